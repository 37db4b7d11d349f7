import dataclasses

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions, load_predictions, save_predictions


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    return Predictions(
        ids=np.array([f'PrivateTest/{i}.png' for i in range(20)]),
        labels=generator.integers(0, 3, 20).astype(np.int32),
        logits=generator.normal(size=(2, 20, 3)).astype(np.float32),
        steps=np.array([1000, 2000]),
        class_names=np.array(['anger', 'fear', 'überraschung']),
        twin_in_train=generator.random(20) < 0.3,
        member_names=np.array(['run_seed0@1000', 'run_seed0@2000']),
        member_runs=np.array(['checkpoints/run_seed0'] * 2),
    )


def test_round_trip(tmp_path, predictions):
    path = tmp_path / 'predictions' / 'test.npz'
    save_predictions(path, predictions)
    loaded = load_predictions(path)
    for field in dataclasses.fields(Predictions):
        before, after = getattr(predictions, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype, field.name
    assert (loaded.num_members, loaded.num_examples, loaded.num_classes) == (2, 20, 3)
    assert [file.name for file in path.parent.iterdir()] == ['test.npz']


def test_types_on_disk_are_those_of_the_format(tmp_path, predictions):
    path = tmp_path / 'test.npz'
    wide = dataclasses.replace(
        predictions, labels=predictions.labels.astype(np.int64), logits=predictions.logits.astype(np.float64)
    )
    save_predictions(path, wide)
    loaded = load_predictions(path)
    assert (loaded.labels.dtype, loaded.logits.dtype, loaded.steps.dtype) == (np.int32, np.float32, np.int64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match='test.npz does not exist'):
        load_predictions(tmp_path / 'test.npz')


def test_missing_arrays_are_named(tmp_path, predictions):
    path = tmp_path / 'test.npz'
    np.savez(path, ids=predictions.ids, labels=predictions.labels)
    with pytest.raises(UserError, match='lacks logits, steps, class_names'):
        load_predictions(path)


def test_pickled_objects_are_refused(tmp_path, predictions):
    path = tmp_path / 'test.npz'
    arrays = {field.name: getattr(predictions, field.name) for field in dataclasses.fields(Predictions)}
    np.savez(path, **arrays | {'ids': arrays['ids'].astype(object)})
    with pytest.raises(UserError, match='damaged'):
        load_predictions(path)


def test_no_damage_gets_through_as_another_exception(tmp_path, predictions):
    path = tmp_path / 'test.npz'
    save_predictions(path, predictions)
    intact = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for attempt in range(400):
        damaged = bytearray(intact)
        position = generator.integers(len(damaged))
        damaged[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged[:position] if attempt % 5 == 0 else damaged)
        try:
            load_predictions(path)
        except UserError as error:
            refused += 1
            assert '\n' not in str(error)
    assert refused > 200


@pytest.mark.parametrize('content', [b'', b'step,label\n1,2\n', b'\x93NUMPY'])
def test_what_is_not_an_npz_is_refused(tmp_path, content):
    path = tmp_path / 'test.npz'
    path.write_bytes(content)
    with pytest.raises(UserError, match='damaged or not an npz'):
        load_predictions(path)


def disagreements():
    return {
        'labels has shape': {'labels': np.zeros(19, np.int32)},
        'member_runs has shape': {'member_runs': np.array(['run'])},
        'class_names has shape': {'class_names': np.array(['anger', 'fear'])},
        'expected .members, examples, classes.': {'logits': np.zeros((20, 3), np.float32)},
        'labels run from 3 to 3': {'labels': np.full(20, 3, np.int32)},
        "'same' occurs more than once": {'ids': np.array(['same'] * 20)},
        'run_seed0@2000 are not finite': {
            'logits': np.stack([np.zeros((20, 3)), np.full((20, 3), np.nan)]).astype(np.float32)
        },
    }


@pytest.mark.parametrize('message', disagreements())
def test_arrays_that_disagree_are_neither_written_nor_read(tmp_path, predictions, message):
    path = tmp_path / 'test.npz'
    wrong = dataclasses.replace(predictions, **disagreements()[message])
    with pytest.raises(UserError, match=message):
        save_predictions(path, wrong)
    assert not path.exists()
    np.savez(path, **{field.name: getattr(wrong, field.name) for field in dataclasses.fields(Predictions)})
    with pytest.raises(UserError, match=message):
        load_predictions(path)
