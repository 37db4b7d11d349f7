import csv

import numpy as np

from fer_jax.evaluation.audit import Audit
from fer_jax.evaluation.audit_files import write_audit_csv

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
