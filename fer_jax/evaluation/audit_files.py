"""What an audit says, on disk: one row per training image, which `config.data.exclude` reads.

    id,label,score,flag,suggested

`score` and `suggested` are empty where the method has none; `flag` is 1 for the images to leave out.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from fer_jax.evaluation.audit import Audit, FlagsN, LabelsN

IdsN = Shaped[np.ndarray, 'N']

COLUMNS = ('id', 'label', 'score', 'flag', 'suggested')


def write_audit_csv(
    path: str | os.PathLike[str],
    ids_N: IdsN,
    labels_N: LabelsN,
    class_names: Sequence[str],
    audit: Audit,
    scored_N: FlagsN,
) -> str:
    """Writes the file, aside first.

    Args:
        ids_N, labels_N: of all images.
        audit: of the images where `scored_N` is true; the others get neither score nor flag.

    Returns:
        Its SHA-256.
    """
    path = Path(path)
    aside = path.with_name(path.name + '.partial')
    rows = np.cumsum(scored_N) - 1
    with aside.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        for identity, label, scored, row in zip(ids_N.tolist(), labels_N.tolist(), scored_N, rows, strict=True):
            said = ('', 0, '')
            if scored:
                suggested = int(audit.suggested[row])
                named = class_names[suggested] if suggested >= 0 else ''
                said = (repr(float(audit.scores[row])), int(audit.flags[row]), named)
            writer.writerow((identity, class_names[label], *said))
    digest = hashlib.sha256(aside.read_bytes()).hexdigest()
    os.replace(aside, path)
    return digest
