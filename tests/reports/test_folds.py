"""The report of a cross-validation says what folds.json holds, and draws it."""

import json

import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.evaluation.scores import classification_scores
from fer_jax.reports.folds import folds_table, write_folds_report

NAMES = ('anger', 'fear')


def make_folds(members=1, by='subject', validation=False):
    """Two folds of ten and six images, 12 of 16 right."""
    labels = np.array([0, 1] * 8, np.int32)
    right = np.arange(16) % 4 > 0
    probabilities = np.where((labels == np.arange(2)[:, None]) == right, 0.75, 0.25).T
    pooled = classification_scores(probabilities, labels, NAMES, np.zeros(16, bool))
    kind = {
        'accuracy': {'mean': 0.75, 'sd': 0.0707},
        'macro_f1': {'mean': 0.74, 'sd': 0.05},
        'pooled': pooled | {'accuracy_ci95_units': [0.5, 0.875]},
    }
    fold = lambda number, count, absent, accuracy: {
        'fold': number,
        'num_examples': count,
        'absent': absent,
        'step': 60,
        'seconds': 100.0,
        'single': {'accuracy': accuracy, 'macro_f1': 0.7},
        'ensemble': {'members': members, 'accuracy': accuracy, 'macro_f1': 0.7},
    }
    return {
        'dataset': 'ckplus',
        'manifest': '0123456789abcdef',
        'class_names': list(NAMES),
        'num_examples': 16,
        'num_folds': 2,
        'by': by,
        'num_units': 5,
        'validation': validation,
        'tta': 'none',
        'folds': [fold(0, 10, [], 0.8), fold(1, 6, ['fear'], 0.7)],
        'single': kind,
        'ensemble': kind,
    }


def write(workdir, folds):
    (workdir / 'fold0').mkdir()
    (workdir / 'fold0' / 'config.json').write_text(json.dumps({'config': {}, 'seed': 3, 'command': 'python -m x'}))
    (workdir / 'folds.json').write_text(json.dumps(folds))
    return write_folds_report(workdir).read_text()


def test_the_report_says_what_was_measured_and_how(tmp_path):
    text = write(tmp_path, make_folds())
    assert text.startswith('# ckplus: 2 folds by subject\n')
    assert '| only member | 75.00 ± 7.07 | 0.7400 ± 0.0500 | 75.00 | 50.00 to 87.50 |' in text
    assert 'nothing was chosen: the last member is read' in text
    assert 'Nobody is in training and in test. There are 5 subjects.' in text
    assert 'All 16 images were tested, each once.' in text
    assert 'Fold 1 tests no image of fear' in text and 'Fold 0 tests no image' not in text
    assert '| 1 | 6 | 60 | 70.00 | 0.7000 | 2 min |' in text
    assert '| time | 3 min |' in text and 'python -m x' in text
    pictures = [line.split('(')[1].rstrip(')') for line in text.splitlines() if line.startswith('![')]
    assert len(pictures) == 4
    for name in pictures:
        pixels = np.asarray(Image.open(tmp_path / name).convert('L'))
        assert min(pixels.shape) > 300 and pixels.std() > 5


def test_other_protocols_are_other_words(tmp_path):
    text = write(tmp_path, make_folds(members=9, by='image', validation=True))
    assert 'chosen on the fold after the tested one' in text
    assert 'the same person, and frames of the same sequence where there are several, are in training' in text
    assert '| best single |' in text and '| ensemble of 9 |' in text


def test_the_table_for_the_terminal():
    lines = folds_table(make_folds(members=2)).splitlines()
    assert lines[2].startswith('last member') and lines[3].startswith('ensemble of 2')
    assert lines[2].split()[2:8] == ['75.00', '±', '7.07', '0.7400', '±', '0.0500']


def test_damaged_scores_are_named(tmp_path):
    with pytest.raises(UserError, match='does not exist; fer_jax.crossvalidate writes it'):
        write_folds_report(tmp_path)
    (tmp_path / 'folds.json').write_text('{')
    with pytest.raises(UserError, match='is not JSON'):
        write_folds_report(tmp_path)
