import csv

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.evaluation.audit import Audit
from fer_jax.evaluation.audit_files import flagged_per_class, write_audit_csv

AUDIT = Audit(np.array([0.9, 0.125]), np.array([True, False]), np.array([1, -1], np.int32))


def test_every_image_has_a_row_and_what_was_not_scored_is_empty(tmp_path):
    path, scored = tmp_path / 'ssim.csv', np.array([True, False, True])
    ids, labels = np.array(['a,1', 'b', 'c']), np.array([0, 1, 0])
    write_audit_csv(path, ids, labels, ('x', 'y'), AUDIT, scored)
    with path.open(newline='') as file:
        assert list(csv.reader(file)) == [
            ['id', 'label', 'score', 'flag', 'suggested'],
            ['a,1', 'x', '0.9', '1', 'y'],
            ['b', 'y', '', '0', ''],
            ['c', 'x', '0.125', '0', ''],
        ]
    assert flagged_per_class(path, ('x', 'y')) == {'x': 1, 'y': 0}
    with pytest.raises(UserError, match='flags images of x, which is none of y, z'):
        flagged_per_class(path, ('y', 'z'))


def test_what_is_no_audit_is_refused(tmp_path):
    (tmp_path / 'other.csv').write_text('id,decision\na,keep\n')
    with pytest.raises(UserError, match='has the columns id,decision; an audit has label and flag'):
        flagged_per_class(tmp_path / 'other.csv', ('x', 'y'))
    with pytest.raises(UserError, match='nowhere.csv is not there'):
        flagged_per_class(tmp_path / 'nowhere.csv', ('x', 'y'))
