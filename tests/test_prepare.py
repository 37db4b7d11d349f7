"""The command: what it leaves, what it says, and what it never replaces."""

import csv
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.stored import load_prepared
from fer_jax.errors import UserError
from fer_jax.prepare import main
from tests import layouts

FER2013 = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'fer2013.zip'
OUTPUTS = {'manifest.json', 'rejects.csv', 'duplicates.csv', 'overview.png', 'dataset_info.json', 'features.json'}


def test_the_output_is_complete_and_the_same_from_every_form(tmp_path):
    table = layouts.fer2013_noise(tmp_path / 'fer2013.csv')
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
    table = layouts.fer2013_noise(tmp_path / 'fer2013.csv', 10)
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
    table, other = layouts.fer2013_noise(tmp_path / 'a.csv', 8), layouts.fer2013_noise(tmp_path / 'b.csv', 8, seed=1)
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
    table, output = layouts.fer2013_noise(tmp_path / 'a.csv', 8), tmp_path / 'out'
    flags = ['--dataset=fer2013', f'--source={table}', f'--output={output}']
    assert main(flags) == 0
    next(output.glob('*train.array_record*')).unlink()
    with pytest.raises(UserError, match='is damaged'):
        main(flags)
    assert main([*flags, '--overwrite']) == 0
    assert len(load_prepared(output).splits['train']) == 5


def test_foreign_files_are_never_replaced(tmp_path):
    table = layouts.fer2013_noise(tmp_path / 'a.csv', 8)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.txt').write_text('mine')
    with pytest.raises(UserError, match='holds something else'):
        main(['--dataset=fer2013', f'--source={table}', f'--output={tmp_path / "out"}', '--overwrite'])
    assert (tmp_path / 'out' / 'thesis.txt').read_text() == 'mine'


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
