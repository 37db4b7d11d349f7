import dataclasses

import numpy as np
import pytest

from fer_jax.evaluation.mistakes import Mistakes, load_mistakes, mistakes_path, save_mistakes
from fer_jax.evaluation.paired import Answers


def made():
    random = np.random.default_rng(0)
    maps = random.random((2, 3, 8, 8)).astype(np.float32)
    return Mistakes(
        ids=np.array(['c', 'a', 'd']),
        members=np.array(['run@4', 'run@8']),
        predicted=np.array([1, 0, 0]),
        confidence=np.array([0.9, 0.8, 0.7]),
        images=random.integers(0, 256, (3, 12, 12, 1)).astype(np.uint8),
        saw_predicted=maps[0],
        saw_true=maps[1],
        shown_members=2,
    )


def test_what_is_saved_is_read_back(tmp_path):
    path, mistakes = mistakes_path(tmp_path, 'test'), made()
    save_mistakes(path, mistakes)
    assert [file.name for file in path.parent.iterdir()] == ['test.npz']
    found = load_mistakes(path)
    for name, value in dataclasses.asdict(mistakes).items():
        np.testing.assert_array_equal(getattr(found, name), value)


@pytest.mark.parametrize('damage', ['missing', 'cut', 'text', 'lacking'])
def test_a_damaged_file_is_as_none(tmp_path, damage):
    path = mistakes_path(tmp_path, 'test')
    save_mistakes(path, made())
    whole = path.read_bytes()
    if damage == 'missing':
        path.unlink()
    elif damage == 'lacking':
        np.savez(path, ids=np.array(['a']))
    else:
        path.write_bytes(whole[:300] if damage == 'cut' else b'no archive')
    assert load_mistakes(path) is None


def test_it_fits_the_answers_that_it_was_made_of_alone():
    sure = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])
    answers = Answers(np.array(list('abcd')), np.array([1, 0, 0, 1]), sure, ('x', 'y'))
    members = np.array(['run@4', 'run@8'])
    assert made().fits(answers, members)
    assert not made().fits(answers, np.array(['run@4', 'run@12']))
    other = sure + np.array([[0.01, -0.01], [0, 0], [0, 0], [0, 0]])
    assert not made().fits(dataclasses.replace(answers, probabilities=other), members)
    assert not made().fits(dataclasses.replace(answers, ids=np.array(list('abce'))), members)
