"""The container file as far as it can be read without an engine: stages, what they copy, install, run as and start."""

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest

from fer_jax import serve
from fer_jax.apps.web.app import HEALTH

ROOT = Path(__file__).resolve().parent.parent


def read_stages():
    """Of each stage its base and its instructions, in order, with comments and line breaks taken out."""
    text = re.sub(r'^\s*#.*\n', '', (ROOT / 'launch/Dockerfile').read_text(), flags=re.M).replace('\\\n', ' ')
    stages = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        if word == 'FROM':
            base, as_, name = rest.split()
            assert as_ == 'AS' and name not in stages
            stages[name] = base, []
        else:
            list(stages.values())[-1][1].append((word, rest))
    return stages


def all_of(stages, name):
    """A stage's instructions after those of the stages that it begins from."""
    base, own = stages[name]
    return (all_of(stages, base) if base in stages else [('FROM', base)]) + own


@pytest.fixture(scope='module')
def stages():
    return read_stages()


def test_the_last_stage_trains_and_all_begin_from_one_image(stages):
    assert list(stages)[-1] == 'train'
    assert {all_of(stages, name)[0] for name in stages} == {('FROM', 'python:3.12-slim')}
    known = ('FROM', 'ARG', 'ENV', 'WORKDIR', 'COPY', 'RUN', 'USER', 'EXPOSE', 'HEALTHCHECK', 'ENTRYPOINT')
    assert {word for name in stages for word, _ in all_of(stages, name)} <= set(known)


@pytest.mark.parametrize(('name', 'extras'), [('serve', 'serve'), ('serve-cuda', 'gpu,serve'), ('train', '$EXTRAS')])
def test_a_stage_installs_its_extras_by_the_lock_and_is_not_root(stages, name, extras):
    instructions = all_of(stages, name)
    installs = [rest for word, rest in instructions if word == 'RUN' and 'pip install' in rest]
    assert '--constraint launch/lock.txt' in installs[-1] and f'[{extras}]' in installs[-1]
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'setup.cfg')
    assert all(extra in settings['options.extras_require'] for extra in extras.split(',') if extra[0] != '$')
    words = [word for word, _ in instructions]
    last_user = len(words) - 1 - words[::-1].index('USER')
    assert instructions[last_user] == ('USER', '1000') and not {'RUN', 'COPY'} & set(words[last_user:])
    assert 'ENTRYPOINT' in words
    for word, rest in instructions:
        if word == 'COPY':
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest


def test_the_page_is_started_with_flags_that_are_and_looked_after_where_it_listens(stages):
    instructions = dict(stages['serve'][1])
    python, option, module, *words = json.loads(instructions['ENTRYPOINT'])
    assert (option, module) == ('-m', 'fer_jax.serve') and python.startswith('/opt/venv/')
    flags = serve._parser().parse_args([*words, '--max-faces=3'])
    assert flags.host == '0.0.0.0' and str(flags.port) == instructions['EXPOSE'] and flags.run is None
    health = instructions['HEALTHCHECK']
    assert f'http://127.0.0.1:{flags.port}{HEALTH}' in health
    compile(json.loads(health[health.index('[') :])[2], 'health', 'exec')
    assert {shlex.split(word)[0].split('=')[0] for word in health.split(' CMD ')[0].split()} == {
        '--interval',
        '--timeout',
        '--start-period',
    }
