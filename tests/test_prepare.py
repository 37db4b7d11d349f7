"""The command as users start it: what it leaves, what it says, and how it goes on after a kill or on a full disk."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fer_jax import cli
from fer_jax.data.stored import load_prepared
from fer_jax.errors import UserError
from fer_jax.prepare import main

ROOT = Path(__file__).resolve().parents[1]
FER2013 = ROOT.parent / 'shared' / 'data' / 'fer2013.zip'
OUTPUTS = {'manifest.json', 'rejects.csv', 'duplicates.csv', 'overview.png', 'dataset_info.json', 'features.json'}
ENVIRONMENT = os.environ | {'PYTHONPATH': str(ROOT)}


def write_table(path, count=30, seed=0):
    """Row i: emotion i % 7; every fourth row PublicTest, every fifth PrivateTest."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 2304), np.uint8)
    with path.open('w') as file:
        file.write('emotion,pixels,Usage\n')
        for row, image in enumerate(images):
            usage = 'PublicTest' if row % 4 == 3 else 'PrivateTest' if row % 5 == 4 else 'Training'
            file.write(f'{row % 7},{" ".join(map(str, image))},{usage}\n')
    return path


def command(*arguments):
    return [sys.executable, '-m', 'fer_jax.prepare', *map(str, arguments)]


def test_the_output_is_complete_and_the_same_from_every_form(tmp_path):
    table = write_table(tmp_path / 'fer2013.csv')
    with zipfile.ZipFile(tmp_path / 'table.zip', 'w') as archive:
        archive.write(table, 'x/fer2013.csv')
    folders = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
    for row, line in enumerate(table.read_text().splitlines()[1:]):
        emotion, pixels, usage = line.split(',')
        place = tmp_path / 'folders' / ('train' if usage == 'Training' else 'test') / folders[int(emotion)]
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.array(pixels.split(), np.uint8).reshape(48, 48))
        picture.save(place / f'{usage}_{row}.png')
    loaded = []
    for source in (table, tmp_path / 'table.zip', tmp_path / 'folders'):
        output = tmp_path / f'out {source.name}'
        assert main(['--dataset=fer2013', f'--source={source}', f'--output={output}']) == 0
        assert set(os.listdir(output)) > OUTPUTS
        loaded.append(load_prepared(output))
    for other in loaded[1:]:
        for name, split in loaded[0].splits.items():
            np.testing.assert_array_equal(other.splits[name].images, split.images)
            np.testing.assert_array_equal(other.splits[name].labels, split.labels)
            np.testing.assert_array_equal(other.splits[name].pixel_hashes, split.pixel_hashes)
    assert loaded[0].manifest['checksum'] == loaded[1].manifest['checksum']
    assert [len(split) for split in loaded[0].splits.values()] == [18, 7, 5]
    assert list(loaded[2].splits['train'].ids[:4]) == ['Training_0', 'Training_1', 'Training_2', 'Training_5']


def test_rejects_duplicates_and_manifest_say_what_happened(tmp_path, capsys):
    table = write_table(tmp_path / 'fer2013.csv', 10)
    lines = table.read_text().splitlines()
    pixels = lines[1].split(',')[1]
    table.write_text('\n'.join([*lines, '9,1 2,Training', f'0,{pixels},PublicTest', f'3,{pixels},PrivateTest']) + '\n')
    output = tmp_path / 'out'
    assert main(['--dataset=fer2013', f'--source={table}', f'--output={output}']) == 0
    said = capsys.readouterr().out
    assert 'Found the table fer2013.csv: 13 examples' in said
    assert 'Accepted 12 of 13, rejected 1 (see rejects.csv)' in said
    with (output / 'rejects.csv').open() as file:
        assert list(csv.reader(file)) == [
            ['location', 'reason'],
            ['fer2013.csv:12', "unknown emotion '9'; it can be 0 to 6"],
        ]
    with (output / 'duplicates.csv').open() as file:
        assert list(csv.reader(file)) == [
            ['group', 'split', 'id', 'label', 'conflicting', 'kind'],
            ['0', 'train', 'Training_00000', 'anger', 'yes', 'exact'],
            ['0', 'validation', 'PublicTest_00011', 'anger', 'yes', 'exact'],
            ['0', 'test', 'PrivateTest_00012', 'happiness', 'yes', 'exact'],
        ]
    manifest = json.loads((output / 'manifest.json').read_text())
    assert (manifest['total'], manifest['accepted'], manifest['rejected'], manifest['skipped']) == (13, 12, 1, 0)
    assert sum(sum(counts.values()) for counts in manifest['counts'].values()) == 12
    assert manifest['source']['name'] == 'fer2013.csv'
    assert manifest['source']['bytes'] == table.stat().st_size
    assert str(tmp_path) not in (output / 'manifest.json').read_text()
    assert manifest['duplicates']['twins_in_train_other_label'] == {'validation': 0, 'test': 1}
    with Image.open(output / 'overview.png') as picture:
        assert picture.width >= 1600


def test_a_second_run_says_so_and_another_source_is_refused(tmp_path, capsys):
    table, other = write_table(tmp_path / 'a.csv', 8), write_table(tmp_path / 'b.csv', 8, seed=1)
    output = tmp_path / 'out'
    flags = ['--dataset=fer2013', f'--output={output}']
    assert main([*flags, f'--source={table}']) == 0
    before = (output / 'manifest.json').read_bytes()
    capsys.readouterr()
    assert main([*flags, f'--source={table}']) == 0
    assert 'holds it already' in capsys.readouterr().out
    with pytest.raises(UserError, match=r'was prepared from another source \(a.csv\)'):
        main([*flags, f'--source={other}'])
    assert (output / 'manifest.json').read_bytes() == before
    assert main([*flags, f'--source={other}', '--overwrite']) == 0
    assert load_prepared(output).manifest['source']['name'] == 'b.csv'
    assert sorted(os.listdir(tmp_path)) == ['a.csv', 'b.csv', 'out']


def test_a_damaged_output_is_named_and_can_be_overwritten(tmp_path):
    table, output = write_table(tmp_path / 'a.csv', 8), tmp_path / 'out'
    flags = ['--dataset=fer2013', f'--source={table}', f'--output={output}']
    assert main(flags) == 0
    next(output.glob('*train.array_record*')).unlink()
    with pytest.raises(UserError, match='is damaged'):
        main(flags)
    assert main([*flags, '--overwrite']) == 0
    assert len(load_prepared(output).splits['train']) == 5


def test_foreign_files_are_never_replaced(tmp_path):
    table = write_table(tmp_path / 'a.csv', 8)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.txt').write_text('mine')
    with pytest.raises(UserError, match='holds something else'):
        main(['--dataset=fer2013', f'--source={table}', f'--output={tmp_path / "out"}', '--overwrite'])
    assert (tmp_path / 'out' / 'thesis.txt').read_text() == 'mine'


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
        write_table(tmp_path / 'a.csv', 4)
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
    done = subprocess.run(command(*arguments), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
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


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A table of four shards, and what preparing it in one go gives."""
    folder = tmp_path_factory.mktemp('unbroken')
    table = write_table(folder / 'fer2013.csv', 1000)
    assert main(['--dataset=fer2013', f'--source={table}', f'--output={folder / "out"}', '--workers=1']) == 0
    return table, folder / 'out'


def assert_same_files(folder, expected):
    assert sorted(os.listdir(folder)) == sorted(os.listdir(expected))
    for name in os.listdir(expected):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize('how', ('killed with an older one there', 'interrupted'))
def test_a_stopped_run_leaves_what_was_there_and_goes_on(how, unbroken, tmp_path, capsys):
    table, expected = unbroken
    output, older = tmp_path / 'data' / 'out', 'older' in how
    flags = ['--dataset=fer2013', f'--output={output}', *(['--overwrite'] if older else [])]
    if older:
        assert main([*flags, f'--source={write_table(tmp_path / "old.csv", 10)}']) == 0
    flags += [f'--source={table}', '--workers=2']
    process = subprocess.Popen(
        command(*flags), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob('data/.out.incomplete/pictures-*/*.npz'))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:  # Ctrl-C reaches the whole group
        os.killpg(process.pid, signal.SIGINT) if how == 'interrupted' else process.kill()
        error = process.communicate()[1].decode()
    assert process.returncode == (130 if how == 'interrupted' else -signal.SIGKILL)
    assert 'Traceback' not in error
    if how == 'interrupted':
        assert error.split('\r')[-1].strip() == 'fer_jax.prepare: interrupted; the same command goes on from here'
    if older:
        assert load_prepared(output).manifest['source']['name'] == 'old.csv'
    else:
        assert not output.exists()
    while group_is_alive(process.pid):
        assert time.monotonic() < deadline, 'worker processes outlive the run'
        time.sleep(0.05)
    capsys.readouterr()
    assert main(flags) == 0
    going_on = re.search(r'Going on: ([\d,]+) of 1,000 pictures are done already', capsys.readouterr().out)
    assert int(going_on[1].replace(',', '')) >= 512
    assert_same_files(output, expected)
    assert os.listdir(tmp_path / 'data') == ['out']


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_full_disk_is_one_line_and_with_more_room_the_same_command_goes_on(unbroken, tmp_path):
    table, expected = unbroken
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['unshare', '-rm', 'sh', '-c', f'mount -t tmpfs -o size=1500k tmpfs "{disk}" && exec "$@"', 'sh']
    if not shutil.which('unshare') or subprocess.run([*mount, 'true'], capture_output=True).returncode:
        pytest.skip('no small file system can be mounted here')
    run = ' '.join(command('--dataset=fer2013', '--source=$1', '--output=$2/out', '--workers=1'))
    script = f'{run}; echo $?; ls "$2"; mount -o remount,size=50m "$2"; {run}; echo $?; cp -r "$2/out" "$3"'
    done = subprocess.run(
        [*mount, 'sh', '-c', script, 'sh', str(table), str(disk), str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert said[1] == '1' and said[-1] == '0'
    assert said[2] == said[0]  # `ls` shows nothing
    assert re.fullmatch(r'Going on: (256|512) of 1,000 pictures are done already', said[3])
    assert 'fer_jax.prepare: error: no space left on the disk' in done.stderr
    assert 'Traceback' not in done.stderr
    assert_same_files(tmp_path / 'out', expected)


def write_folders(root, rng):
    """Six pictures in each of three classes, all of other sizes, some grey; one comes again, and again darker."""
    for name in ('angry', 'happy', 'bored'):
        (root / 'train' / name).mkdir(parents=True)
        for index in range(6):
            channels = 1 if name == 'bored' and index % 2 else 3
            coarse = rng.integers(0, 256, (7, 7, channels), np.uint8)
            picture = Image.fromarray(coarse.squeeze()).resize((80 + 7 * index, 90), Image.Resampling.BICUBIC)
            picture.save(root / 'train' / name / f'{index}.{"jpg" if index < 4 else "png"}')
    with Image.open(root / 'train' / 'angry' / '5.png') as picture:
        picture.save(root / 'train' / 'happy' / 'again.bmp')
        picture.point(lambda value: value * 0.9 + 10).save(root / 'train' / 'happy' / 'darker.png')
    (root / 'train' / 'happy' / 'bad.jpg').write_bytes(b'no picture')
    return root


def test_pictures_of_many_sizes_keep_their_bytes_and_duplicates_have_a_kind(tmp_path, capsys):
    source = write_folders(tmp_path / 'my faces', np.random.default_rng(1))
    output = tmp_path / 'out'
    assert main(['--dataset=folder', f'--source={source}', f'--output={output}']) == 0
    said = capsys.readouterr().out
    assert 'Accepted 20 of 21, rejected 1 (see rejects.csv)' in said
    assert 'Nearly identical images (at most 4 bits of 64 apart): 1 groups, 2 spare copies, 1 groups with' in said
    manifest = json.loads((output / 'manifest.json').read_text())
    assert (manifest['image_shape'], manifest['channels'], manifest['format']) == (None, 3, 2)
    assert manifest['class_names'] == ['anger', 'happiness', 'bored']
    assert manifest['counts'] == {'train': {'anger': 6, 'happiness': 8, 'bored': 6}}
    with (output / 'duplicates.csv').open() as file:
        assert [(row['group'], row['id'], row['conflicting'], row['kind']) for row in csv.DictReader(file)] == [
            ('0', 'train/angry/5.png', 'yes', 'exact'),
            ('0', 'train/happy/again.bmp', 'yes', 'exact'),
            ('1', 'train/angry/5.png', 'yes', 'near'),
            ('1', 'train/happy/again.bmp', 'yes', 'near'),
            ('1', 'train/happy/darker.png', 'yes', 'near'),
        ]
    split = load_prepared(output, lazy=True, size=64).splits['train']
    builder = tfds.builder_from_directory(str(output))
    records = builder.as_data_source('train')
    raw = builder.as_data_source('train', deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    for path in (source / 'train' / 'angry' / '2.jpg', source / 'train' / 'bored' / '1.jpg'):
        row = list(split.ids).index(f'train/{path.parent.name}/{path.name}')
        (shown,) = records.__getitems__([row])
        assert shown['id'].decode() == split.ids[row]
        with Image.open(path) as picture:
            np.testing.assert_array_equal(shown['image'][..., 0], np.asarray(picture.convert('RGB'))[..., 0])
        assert path.read_bytes() in raw.__getitems__([row])[0]


@dataclasses.dataclass
class Aligned:
    image: np.ndarray
    found: bool


def left_is_dark(images):
    return [Aligned(image[:16, :16], image[0, 0, 0] < 128) for image in images]


@pytest.mark.parametrize('missing', ('keep', 'reject'))
def test_alignment_is_counted_and_drawn_and_another_one_is_refused(missing, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr('fer_jax.faces.align.make_aligner', lambda **_: left_is_dark)
    monkeypatch.setattr('fer_jax.faces.draw.draw_alignment', lambda pairs, path: drawn.append((pairs, path.name)))
    table = write_table(tmp_path / 'fer2013.csv', 60)
    first = np.array([int(line.split(',')[1].split()[0]) for line in table.read_text().splitlines()[1:]])
    dark = int((first < 128).sum())
    flags = ['--dataset=fer2013', f'--source={table}', f'--output={tmp_path / "out"}']
    assert main([*flags, '--align', '--align-size=16', f'--align-missing={missing}']) == 0
    said = capsys.readouterr().out
    manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    kept, rejected = (60 - dark, 0) if missing == 'keep' else (0, 60 - dark)
    assert manifest['align'] == {'detector': 'mtcnn', 'size': 16, 'missing': missing, 'landmarks': None}
    assert manifest['faces'] == {'found': dark, 'kept_without': kept, 'rejected_without': rejected}
    assert manifest['image_shape'] == [16, 16, 1]
    assert (manifest['accepted'], manifest['rejected']) == (60 - rejected, rejected)
    assert f'Faces found in {dark} pictures; without: {kept} kept, {rejected} rejected' in said
    rejects = (tmp_path / 'out' / 'rejects.csv').read_text().splitlines()[1:]
    lines = [f'fer2013.csv:{row + 2},no face found' for row in np.flatnonzero(first >= 128)]
    assert rejects == (lines if rejected else [])
    ((pairs, name),) = drawn
    assert (name, len(pairs)) == ('alignment.png', 24)
    assert all(image.shape == (48, 48, 1) and face.image.shape == (16, 16, 1) for image, face in pairs)
    with pytest.raises(UserError, match='was prepared with another align'):
        main(flags)
    assert main([*flags, '--align', '--align-size=16', f'--align-missing={missing}']) == 0
    assert 'holds it already' in capsys.readouterr().out


def test_real_fer2013_has_the_published_figures(tmp_path):
    if not FER2013.is_file():
        pytest.skip(f'the real data are not at {FER2013}')
    assert main(['--dataset=fer2013', f'--source={FER2013}', f'--output={tmp_path / "out"}']) == 0
    dataset = load_prepared(tmp_path / 'out')
    assert [len(split) for split in dataset.splits.values()] == [28709, 3589, 3589]
    assert dataset.manifest['counts']['train'] == {
        'anger': 3995,
        'disgust': 436,
        'fear': 4097,
        'happiness': 7215,
        'neutral': 4965,
        'sadness': 4830,
        'surprise': 3171,
    }
    assert dataset.manifest['duplicates'] == {
        'groups': 1516,
        'spare_copies': 1853,
        'conflicting_groups': 57,
        'twins_in_train': {'validation': 280, 'test': 288},
        'twins_in_train_other_label': {'validation': 7, 'test': 9},
        'groups_in_validation_and_test': 43,
    }
    assert dataset.manifest['source']['sha256'].startswith('c1c963e34ae88388')
    assert (dataset.manifest['accepted'], dataset.manifest['rejected']) == (35887, 0)
    pixels = np.concatenate([split.images for split in dataset.splits.values()])
    assert abs(pixels.mean() / 255 - 0.5077) < 5e-4
    assert abs(pixels.std() / 255 - 0.255) < 5e-4
    assert len({identity for split in dataset.splits.values() for identity in split.ids}) == 35887
