"""Faces of one look after the other as people with steady numbers and smoothed probabilities; of films, of cameras."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.apps.recognized import RecognizedFace, read_emotion
from fer_jax.apps.records import face_record
from fer_jax.apps.tracking import Tracker


def follow(
    tracker: Tracker, time: float, faces: Sequence[RecognizedFace], threshold: float
) -> tuple[list[RecognizedFace], list[dict[str, Any]]]:
    """The faces with smoothed probabilities and what these say, and their records (docs/predict.md, of films).

    Args:
        tracker: of this film or camera.
        time: of the look, in seconds, not before the last one's.
        threshold: under which probability the emotion is unsure.
    """
    if not faces:
        tracker.update(time, np.zeros((0, 4)), np.zeros((0, 1)))
        return [], []
    names = tuple(faces[0].probabilities)
    alone = np.array([list(face.probabilities.values()) for face in faces])
    people, smoothed = tracker.update(time, np.stack([face.box for face in faces]), alone)
    followed, records = [], []
    for face, person, shares in zip(faces, people, smoothed, strict=True):
        steady = dataclasses.replace(face, **vars(read_emotion(shares, names, threshold)))
        record = face_record(steady)
        record = {'person': int(person), **record, 'probabilities': face_record(face)['probabilities']}
        record['smoothed'] = face_record(steady)['probabilities']
        followed.append(steady)
        records.append(record)
    return followed, records
