import argparse
import errno
import glob
import os
import subprocess
import sys

import pytest

from fer_jax import cli
from fer_jax.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parser():
    made = cli.ArgumentParser(prog='x')
    made.add_argument('--config', required=True)
    made.add_argument('--workdir')
    made.add_argument('--last', type=int)
    made.add_argument('--split', choices=('validation', 'test'))
    return made


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--config=a', '--workdr=b'], "unknown flag '--workdr=b'; did you mean --workdir"),
        (['--config=a', '--conf=b'], 'did you mean --config'),
        (['--config=a', '--zzz'], 'known: --help, --config'),
        (['--config=a', 'lr=2'], "stray word 'lr=2'; flags are written --name=value"),
        (['--workdir=b'], '--config'),
        (['--config=a', '--last=two'], 'two'),
        (['--config=a', '--split=train'], "'train'"),
        (['--config'], 'expected one argument'),
    ],
)
def test_what_is_wrong_with_the_flags_is_said_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        parser().parse_args(words)
    assert '\n' not in str(caught.value)


def test_right_flags_are_read_with_and_without_the_equals_sign():
    assert parser().parse_args(['--config', 'a', '--last=2']) == argparse.Namespace(
        config='a', workdir=None, last=2, split=None
    )


def test_paths_may_stand_before_between_and_after_flags():
    made = cli.ArgumentParser(prog='x')
    made.add_argument('paths', nargs='+')
    made.add_argument('--run', required=True)
    wanted = argparse.Namespace(paths=['a', 'b'], run='r')
    for words in (['a', 'b', '--run=r'], ['--run=r', 'a', 'b'], ['a', '--run', 'r', 'b']):
        assert made.parse_args(words) == wanted
    for words, message in ((['--run=r'], 'paths'), (['a'], '--run'), (['a', '--rum=r'], 'did you mean --run')):
        with pytest.raises(UserError, match=message):
            made.parse_args(words)


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ('main', 'code', 'line'),
    [
        (lambda: None, 0, ''),
        (lambda: 143, 143, ''),
        (raising(UserError('no such thing')), 2, 'error: no such thing\n'),
        (raising(KeyboardInterrupt()), 130, 'interrupted\n'),
        (raising(OSError(errno.ENOSPC, 'x', '/a/b')), 1, 'error: no space left on the disk (/a/b); free some'),
        (raising(OSError(errno.EACCES, 'x', '/a/b')), 1, 'error: permission denied (/a/b); choose'),
        (raising(FileNotFoundError(errno.ENOENT, 'x', '/a/b')), 1, 'error: no such file or directory (/a/b)\n'),
    ],
)
def test_a_command_ends_with_one_line_and_its_code(monkeypatch, capsys, main, code, line):
    monkeypatch.setattr(sys, 'argv', ['/somewhere/train.py'])
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    err = capsys.readouterr().err
    assert caught.value.code == code
    assert err.startswith(f'fer_jax.train: {line}' if line else '')
    assert err.count('\n') == bool(line)


@pytest.mark.parametrize('error', [ValueError('a bug'), OSError(errno.EIO, 'a broken disk')])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raising(error))


def start(*words):
    return subprocess.run([sys.executable, '-m', *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--confg=configs/quickstart.py', '--workdir=/nowhere/x'], 'did you mean --config?'),
        (['--config=configs/quickstart.py', '--workdir=/nowhere/x', 'lr=2'], "stray word 'lr=2'"),
        (['--config=configs/quickstrat.py', '--workdir=/nowhere/x'], 'did you mean configs/quickstart.py?'),
        (['--config=configs/quickstart.py', '--workdir=/nowhere/x', '--config.train.epoch=1'], 'config.train.epochs?'),
        (
            ['--config=configs/quickstart.py', '--workdir=/nowhere/x', '--config.data.name=/nowhere/data'],
            '/nowhere/data',
        ),
    ],
)
def test_train_refuses_in_one_line_before_it_writes_anything(tmp_path, words, message, monkeypatch, capsys):
    from fer_jax import train

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['fer_jax/train.py', *words])
    workdir = str(tmp_path / 'run')
    argv = [word.replace('/nowhere/x', workdir) for word in words]
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: train.main(argv))
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.count('\n') == 1
    assert message in err
    assert not glob.glob(os.path.join(workdir, '*'))


def test_the_same_as_a_real_process():
    done = start('fer_jax.train', '--confg=configs/quickstart.py', '--workdir=/tmp/never_made')
    assert done.returncode == 2
    assert (
        done.stderr == ("fer_jax.train: error: unknown flag '--confg=configs/quickstart.py'; did you mean --config?\n")
        or 'required: --config' in done.stderr
    )
    assert 'Traceback' not in done.stderr
    assert done.stdout == ''
    assert not os.path.exists('/tmp/never_made')
