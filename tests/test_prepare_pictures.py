"""Pictures on their way through the command: of many sizes, in duplicate, with boxes, aligned."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fer_jax.data.stored import load_prepared
from fer_jax.errors import UserError
from fer_jax.prepare import main
from tests import layouts


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
    move: np.ndarray


def left_is_dark(images):
    return [Aligned(image[:16, :16], image[0, 0, 0] < 128, np.eye(2, 3)) for image in images]


@pytest.mark.parametrize('missing', ('keep', 'reject'))
def test_alignment_is_counted_and_drawn_and_another_one_is_refused(missing, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr('fer_jax.faces.align.make_aligner', lambda **_: left_is_dark)
    monkeypatch.setattr('fer_jax.faces.draw.draw_alignment', lambda pairs, path: drawn.append((pairs, path.name)))
    table = layouts.fer2013_noise(tmp_path / 'fer2013.csv', 60)
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
    with pytest.raises(UserError, match='was prepared with align'):
        main(flags)
    assert main([*flags, '--align', '--align-size=16', f'--align-missing={missing}']) == 0
    assert 'holds it already' in capsys.readouterr().out


def enlarged(images):
    """Twice as large, one pixel to the right and three up."""
    return [Aligned(np.full((96, 96, 3), 9, np.uint8), True, np.array([(2.0, 0, 1), (0, 2, -3)])) for _ in images]


@pytest.mark.parametrize('aligned', (False, True))
def test_landmarks_move_with_what_is_cut_out_and_aligned(aligned, tmp_path, monkeypatch):
    monkeypatch.setattr('fer_jax.faces.align.make_aligner', lambda **_: enlarged)
    monkeypatch.setattr('fer_jax.faces.draw.draw_alignment', lambda pairs, path: None)
    expected = layouts.affectnet_tables(tmp_path / 'in')
    flags = ['--dataset=affectnet', f'--source={tmp_path / "in"}', f'--output={tmp_path / "out"}', '--workers=1']
    assert main(flags + ['--align'] * aligned) == 0
    checked = 0
    for split in load_prepared(tmp_path / 'out', lazy=True).splits.values():
        for identity, points, valence in zip(split.ids, split.extra['landmarks'], split.extra['valence'], strict=True):
            row = expected.rows[identity]
            places = np.asarray(row.numbers['landmarks'], float) - row.box[:2]
            np.testing.assert_allclose(points, 2 * places + (1, -3) if aligned else places, atol=1e-3)
            np.testing.assert_array_equal(valence, np.float32(row.numbers['valence']))
            checked += 1
    assert checked == len(expected.rows)


def test_only_what_can_be_read_is_cut_so_that_rejects_thin_no_part_of_a_class(tmp_path, capsys):
    good = layouts.folders(tmp_path / 'in', per_class=10, splits=('',), names={'anger': 'angry', 'fear': 'fear'})
    for number in range(10):
        layouts.write(tmp_path / 'in' / 'fear' / f'broken {number}.png', 'no picture')
    (tmp_path / 'in' / 'joy').mkdir()
    layouts.write(tmp_path / 'in' / 'angry' / 'wide.png', layouts.encode(np.zeros((40, 60, 3), np.uint8)))
    assert main(['--dataset=folder', f'--source={tmp_path / "in"}', f'--output={tmp_path / "out"}']) == 0
    said = capsys.readouterr().out
    assert 'Mind: there is no picture in joy' in said
    assert 'Mind: 1 pictures are oblong' in said and 'Accepted 21 of 31, rejected 10' in said
    manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert {split: of_class['fear'] for split, of_class in manifest['counts'].items()} == {
        'train': 8,
        'validation': 1,
        'test': 1,
    }
    splits = load_prepared(tmp_path / 'out', lazy=True).splits
    assert set(good.rows) | {'angry/wide.png'} == {name for split in splits.values() for name in split.ids}
