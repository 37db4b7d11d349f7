"""The launchers as a user calls them, with the environment that runs the tests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = [
    '--config.data.synthetic.num_train=64',
    '--config.data.synthetic.num_validation=16',
    '--config.data.synthetic.num_test=16',
    '--config.data.synthetic.size=16',
    '--config.train.steps=2',
    '--config.train.batch_size=16',
    '--config.schedule.cycles=1',
]


def launch(script, *arguments, cwd=ROOT, **environment):
    variables = os.environ | {'FER_JAX_VENV': sys.prefix, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'} | environment
    return subprocess.run(
        [ROOT / 'launch' / script, *arguments], cwd=cwd, env=variables, capture_output=True, text=True
    )


def test_train_without_arguments_but_sizes_trains_evaluates_and_says_where_pictures_are(tmp_path):
    arguments = [f'--workdir={tmp_path}/run', *TINY, '--config.model.dtype=bfloat16']  # oneDNN's where it has that
    done = launch('train.sh', *arguments, cwd=tmp_path, FER_JAX_ONEDNN='1')
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / 'run' / 'scores.json').read_text())
    assert scores['test']['num_examples'] == 16
    assert f'pictures: {tmp_path}/run/figures' in done.stdout
    assert list((tmp_path / 'run' / 'figures').glob('*.png'))
    again = launch('train.sh', *arguments, FER_JAX_ONEDNN='1')
    assert again.returncode == 0, again.stderr
    steps = [json.loads(line)['step'] for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert steps == sorted(set(steps))


@pytest.mark.skipif(shutil.which('nvidia-smi') is not None, reason='of hosts without GPU')
@pytest.mark.parametrize(('given', 'found'), [({}, 'glibc.malloc.hugetlb=1'), ({'GLIBC_TUNABLES': 'x'}, 'x')])
def test_the_heap_of_a_training_on_the_cpu_has_huge_pages_unless_the_user_says_otherwise(
    tmp_path, monkeypatch, given, found
):
    monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'python').write_text('#!/bin/sh\necho "$GLIBC_TUNABLES"\n')
    (tmp_path / 'bin' / 'python').chmod(0o755)
    assert launch('train.sh', FER_JAX_VENV=str(tmp_path), **given).stdout == found + '\n'


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['configs/quickstrt.py'], 'did you mean configs/quickstart.py?'),
        (['--confg.train.steps=1'], "unknown flag '--confg.train.steps=1'"),
        (['configs/quickstart.py', 'lr=2'], "stray word 'lr=2'"),
        (['--config.data.name=data/absent', '--workdir={tmp}/run'], 'data/absent'),
        (['--config.data.drop=rage', '--workdir={tmp}/run'], "no class 'rage'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, tmp_path):
    done = launch('train.sh', *[argument.format(tmp=tmp_path) for argument in arguments])
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if 'no NVIDIA GPU' not in line]
    assert len(lines) == 1 and says in lines[0], done.stderr


def test_a_python_that_is_too_old_is_named(tmp_path):
    done = launch('train.sh', FER_JAX_VENV='', PYTHON='/bin/false')
    assert done.returncode == 2
    assert 'Python 3.11 or 3.12 is needed' in done.stderr
