"""Every mistake in a command ends with one line that says what is wrong, and leaves nothing behind."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from fer_jax import cli
from fer_jax.prepare import main
from tests import layouts

ENVIRONMENT = os.environ | {'PYTHONPATH': str(Path(__file__).resolve().parents[1])}


MISTAKES = {
    'misspelt flag': (['--dataset=fer2013', '--sorce=a.csv', '--source=a.csv'], 'did you mean --source?'),
    'stray word': (['--dataset=fer2013', '--source=a.csv', 'b'], "stray word 'b'"),
    'missing flag': (['--dataset=fer2013'], '--source'),
    'unknown data set': (['--dataset=fer2031', '--source=a.csv'], 'did you mean fer2013?'),
    'missing file': (['--dataset=fer2013', '--source=nowhere.zip'], 'nowhere.zip does not exist'),
    'truncated zip': (['--dataset=fer2013', '--source=cut.zip'], 'is not a whole zip file'),
    'nothing readable': (['--dataset=fer2013', '--source=bad.csv'], 'no readable example (1 rejected'),
    'output is a file': (
        ['--dataset=fer2013', '--source=a.csv', '--output=bad.csv'],
        'bad.csv is there and holds something else',
    ),
    'unknown split': (['--dataset=folder', '--source=.', '--split=80/10'], '--split=80/10 is not three shares'),
    'split of words': (['--dataset=folder', '--source=.', '--split=some/more/or'], 'such as 80/10/10'),
    'no training left': (['--dataset=folder', '--source=.', '--split=0/50/50'], 'not three shares'),
    'classes': (['--dataset=affectnet', '--source=.', '--classes=6'], '--classes'),
    'an option of another set': (
        ['--dataset=fer2013', '--source=a.csv', '--classes=7'],
        'FER2013 has no option classes',
    ),
    'no alignment': (['--dataset=fer2013', '--source=a.csv', '--align-size=64'], 'give --align too'),
    'a tiny alignment': (['--dataset=fer2013', '--source=a.csv', '--align', '--align-size=4'], '--align-size=4'),
    'no workers': (['--dataset=fer2013', '--source=a.csv', '--workers=0'], '--workers=0'),
    'output in the source': (['--dataset=fer2013', '--source=.', '--output=train/out'], 'lies inside the source'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, tmp_path, monkeypatch, capsys):
    arguments, message = MISTAKES[mistake]
    if mistake == 'output in the source':
        (tmp_path / 'train' / 'angry').mkdir(parents=True)
        Image.new('L', (48, 48)).save(tmp_path / 'train' / 'angry' / 'Training_1.png')
    elif '--dataset=folder' in arguments:
        for name in ('angry', 'happy'):
            (tmp_path / name).mkdir()
            Image.new('L', (48, 48)).save(tmp_path / name / '1.png')
    else:
        layouts.fer2013_noise(tmp_path / 'a.csv', 4)
        (tmp_path / 'bad.csv').write_text('emotion,pixels,Usage\n0,1 2 3,Training\n')
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, 'w') as archive:
            archive.write(tmp_path / 'a.csv', 'a.csv')
        (tmp_path / 'cut.zip').write_bytes(whole.getvalue()[:-100])
    before = sorted(tmp_path.rglob('*'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['prepare.py'])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: main(arguments))
    assert ended.value.code == 2
    assert_one_line(capsys.readouterr().err, message)
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('mistake', ('misspelt flag', 'missing file'))
def test_a_real_process_ends_with_one_line_and_no_traceback(mistake, tmp_path):
    arguments, message = MISTAKES[mistake]
    command = [sys.executable, '-m', 'fer_jax.prepare', *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ''
    assert done.stderr.count('\n') == 1
    assert_one_line(done.stderr, message)


def assert_one_line(error, message):
    """The message is the last line; a progress bar may stand before it."""
    last = error.replace('\r', '\n').strip().split('\n')[-1].strip()
    assert last.startswith('fer_jax.prepare: error: ')
    assert message in last
    assert 'Traceback' not in error
