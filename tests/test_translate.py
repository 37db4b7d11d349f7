"""New training images by a tiny pair on drawn faces: which, how many, where, and the same after a kill."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax import experiment, run_json, translate
from fer_jax.data.augment import Augmentation
from fer_jax.errors import UserError
from fer_jax.translators import load_translators
from tests.small_pair import PAIR

ROOT = Path(__file__).parents[1]
DRAWN = PAIR | {
    'data__name': 'synthetic',
    'data__synthetic__num_train': 160,
    'data__synthetic__num_validation': 16,
    'data__synthetic__num_test': 16,
    'data__synthetic__size': 12,
}
# Both sides of a comparison in processes alike: with other devices or flags a pixel may be rounded otherwise.
COUNTED = """
import os, signal, sys
from fer_jax.data import deriving
from fer_jax import translate
deriving._TOGETHER, deriving.usable_cores, write, written = 4, lambda: 1, deriving.write_chunk, []
def counted(*given):
    written.append(write(*given))
    if len(written) == int(os.environ['KILLED_AFTER']):
        os.kill(os.getpid(), signal.SIGKILL)
    return written[-1]
deriving.write_chunk = counted
translate.main(sys.argv[1:])
print('chunks', len(written))
"""


@pytest.fixture
def pair(make_run, monkeypatch):
    monkeypatch.setattr('fer_jax.data.deriving._TOGETHER', 4)
    monkeypatch.setattr('fer_jax.data.deriving.usable_cores', lambda: 1)
    return make_run(**DRAWN)


def read(output):
    with open(output / 'translations.csv', newline='') as file:
        return list(csv.DictReader(file))


def pictures(output):
    """As they were written, without the description of the run and the drawn overview."""
    kept = lambda path: path.is_file() and path.suffix in ('.png', '.csv') and path.parent.name != 'figures'
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob('*') if kept(path)}


def audit_of(ids, path):
    path.write_text('id,flag\n' + ''.join(f'{identity},1\n' for identity in ids))
    return path


def test_images_are_translations_of_training_images_and_training_adds_them(pair, tmp_path, capsys):
    output = tmp_path / 'out'
    assert translate.main([f'--run={pair}', '--to=happiness,anger', '--count=21', f'--output={output}']) == 0
    rows, dataset = read(output), experiment.load_data(run_json.read_run(pair).config)
    assert [row['label'] for row in rows] == ['happiness'] * 11 + ['anger'] * 10
    train, translators = dataset.splits['train'], load_translators([pair])
    place = {identity: index for index, identity in enumerate(train.ids.tolist())}
    for row in rows:
        index = place[row['source']]
        assert dataset.class_names[train.labels[index]] == row['source_label']
        assert (row['run'], row['step']) == (pair, '4')
        wanted = translators[row['source_label'], row['label']](train.images[[index]])[0, ..., 0]
        np.testing.assert_array_equal(np.asarray(Image.open(output / row['path'])), wanted)
        assert hashlib.sha256((output / row['path']).read_bytes()).hexdigest().startswith(row['sha256'])
    assert len({(row['source'], row['label']) for row in rows}) == 21
    told = json.loads((output / 'translations.json').read_text())
    assert (told['count'], [part['images'] for part in told['parts']]) == (21, [11, 10])
    assert told['parts'][0]['sources_available'] == 20
    assert sorted(path.name for path in (output / 'figures').iterdir()) == ['to_anger.png', 'to_happiness.png']
    assert f'--config.data.extra={output}/translations.csv' in capsys.readouterr().out
    config = run_json.read_run(pair).config.copy_and_resolve_references()
    with config.unlocked():
        config.data.extra = (str(output / 'translations.csv'),)
    more = experiment.load_data(config).splits['train']
    assert len(more) == len(train) + 21
    counts = np.bincount(more.labels[len(train) :], minlength=8)
    assert (counts[dataset.class_names.index('happiness')], counts[dataset.class_names.index('anger')]) == (11, 10)


def test_a_killed_command_goes_on_to_the_same_bytes(pair, tmp_path):
    def run(name, killed_after=0):
        flags = [f'--run={pair}', '--to=happiness,anger', '--count=30', '--seed=5', f'--output={tmp_path}/{name}']
        environment = os.environ | {'XLA_FLAGS': '', 'KILLED_AFTER': str(killed_after)}
        command = [sys.executable, '-c', COUNTED, *flags]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert run('killed', killed_after=3).returncode == -9
    assert not (tmp_path / 'killed').exists()
    assert len(list((tmp_path / '.killed.incomplete').rglob('notes/*.json'))) == 3
    assert run('killed').stdout.endswith('chunks 5\n')
    assert run('whole').stdout.endswith('chunks 8\n')  # of 15 and 15 images, four in each
    assert pictures(tmp_path / 'killed') == pictures(tmp_path / 'whole')
    assert sorted(path.name for path in tmp_path.iterdir() if 'incomplete' in path.name) == []
    before = pictures(tmp_path / 'whole')
    assert run('whole').stdout.endswith('chunks 0\n')
    assert pictures(tmp_path / 'whole') == before


def test_copies_are_as_many_of_each_emotion_and_no_flagged_image_is_used(pair, tmp_path, monkeypatch):
    made = tmp_path / 'made'
    translate.main([f'--run={pair}', '--to=happiness', '--count=13', f'--output={made}'])
    dataset = experiment.load_data(run_json.read_run(pair).config)
    train = dataset.splits['train']
    happy = train.ids[train.labels == dataset.class_names.index('happiness')]
    audit = audit_of([*happy[:12], read(made)[0]['source']], tmp_path / 'audit.csv')
    flags = [f'--copies-of={made}/translations.csv', f'--exclude={audit}']
    translate.main([*flags, f'--output={tmp_path}/copies'])
    rows = read(tmp_path / 'copies')
    assert [(row['label'], row['source_label'], row['run']) for row in rows] == [('happiness', 'happiness', '')] * 13
    assert {row['source'] for row in rows} == set(happy[12:])
    assert [row['step'] for row in rows] == ['0'] * 8 + ['1'] * 5
    assert len(set(pictures(tmp_path / 'copies').values())) == 14  # no two alike
    translate.main([f'--run={pair}', '--to=happiness', '--count=9', f'--exclude={audit}', f'--output={tmp_path}/less'])
    assert read(made)[0]['source'] not in {row['source'] for row in read(tmp_path / 'less')}
    monkeypatch.setattr(translate, '_COPY', Augmentation())
    translate.main([*flags, f'--output={tmp_path}/plain'])
    for row in read(tmp_path / 'plain'):
        (index,) = np.flatnonzero(train.ids == row['source'])
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / 'plain' / row['path'])), train.images[index, ..., 0]
        )


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--to=happiness', '--count=1'], '--run=: workdirs of pairs are wanted'),
        (['--run={pair}', '--count=1'], '--to=: emotions to translate to are wanted'),
        (['--run={pair}', '--to=happiness'], '--count=0: how many images to make is wanted'),
        (['--run={pair}', '--to=hapiness', '--count=1'], '--to=hapiness: no pair .* did you mean happiness'),
        (['--run={pair}', '--to=fear', '--count=1'], 'there are pairs for anger, happiness'),
        (['--run={pair}', '--to=anger', '--from=anger', '--count=1'], 'no pair goes from anger to anger; there are '),
        (['--run={pair}', '--to=anger', '--count=21'], 'there are 20 images to translate'),
        (['--run={pair}/nothing', '--to=anger', '--count=1'], 'no run of a pair'),
        (['--copies-of=x.csv', '--count=1'], '--count has no meaning with --copies-of'),
        (['--copies-of=x.csv'], 'no file x.csv'),
        (['--run={pair}', '--to=anger', '--count=1', '--output={pair}'], 'is there already and no work of this'),
        (['--run={pair}', '--to=anger', '--count=1', '--batch-size=0'], '--batch-size=0'),
    ],
)
def test_what_cannot_be_is_one_line(pair, tmp_path, flags, message):
    flags = [flag.format(pair=pair) for flag in flags]
    flags = flags if flags[-1].startswith('--output') else [*flags, f'--output={tmp_path}/out']
    with pytest.raises(UserError, match=message) as caught:
        translate.main(flags)
    assert '\n' not in str(caught.value)


def test_an_output_made_with_other_settings_is_refused_and_unfinished_work_of_others_goes(pair, tmp_path, capsys):
    flags = [f'--run={pair}', '--to=anger', f'--output={tmp_path}/out']
    translate.main([*flags, '--count=5'])
    with pytest.raises(UserError, match='out was made with images "[0-9a-f]{16}", and now it would be'):
        translate.main([*flags, '--count=6'])
    work = tmp_path / '.other.incomplete' / 'unfinished'
    work.mkdir(parents=True)
    (work / 'settings.json').write_text('{}')
    translate.main([f'--run={pair}', '--to=anger', '--count=5', f'--output={tmp_path}/other'])
    assert 'unfinished work of other settings is removed' in capsys.readouterr().err
    assert pictures(tmp_path / 'other') == pictures(tmp_path / 'out')
