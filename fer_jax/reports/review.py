"""The review page of an audit: one HTML file that needs nothing else, on which a person decides suspect by suspect.

It exports `id,label,decision,new_label`, which `config.data.exclude` takes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_review_page(
    path: str | os.PathLike[str],
    *,
    suspects: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    method: str,
    dataset: str,
    total: int,
) -> Path:
    """Writes the page, aside first.

    Args:
        suspects: the most suspect first, each with `id`, `label`, `suggested` ('' for none), `score`, `image` (uint8
            [H, W, C]) and `translation` (None, or its emotion and uint8 [S, S, C]).
        method: of the audit.
        total: how many the method flagged; the page may show fewer.
    """
    shown = []
    for suspect in suspects:
        target, translation = suspect['translation'] or ('', None)
        told = {name: suspect[name] for name in ('id', 'label', 'suggested', 'score')}
        picture = '' if translation is None else _data_url(translation)
        shown.append(told | {'image': _data_url(suspect['image']), 'target': target, 'translation': picture})
    # Decisions are kept under this key: of another audit they are others.
    key = hashlib.sha256(json.dumps([[of['id'], of['label']] for of in shown] + [dataset, method]).encode()).hexdigest()
    data = {'dataset': dataset, 'method': method, 'total': total, 'key': key[:16], 'class_names': list(class_names)}
    # '<' would let an id end the script that holds it.
    content = json.dumps(data | {'suspects': shown}, ensure_ascii=False).replace('<', r'\u003c')
    template = resources.files(__package__).joinpath('review.html').read_text(encoding='utf-8')
    path = Path(path)
    aside = path.with_name(path.name + '.partial')
    aside.write_text(template.replace('@@DATA@@', content), encoding='utf-8')
    os.replace(aside, path)
    return path


def _data_url(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, 'PNG')
    return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
