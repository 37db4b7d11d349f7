"""Faces of one look after the other as people with steady numbers and smoothed probabilities, and their timeline."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.apps.recognized import RecognizedFace, read_emotion
from fer_jax.apps.records import face_record, write_timeline
from fer_jax.apps.tracking import Tracker
from fer_jax.reports.timeline import draw_timeline

_NAMED = 6  # people, in the words for all


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


def count_emotions(looks: Iterable[Mapping[str, Any]]) -> dict[int, collections.Counter]:
    """Of each person, by number, how often which emotion was read; of lines of kind `frame`."""
    people = collections.defaultdict(collections.Counter)
    for look in looks:
        for face in look['faces']:
            people[face['person']][face['emotion']] += 1
    return people


def describe_people(people: Mapping[int, collections.Counter]) -> tuple[collections.Counter, str]:
    """How many people were taken for what most often; and for the first ones in words."""
    most = {person: emotions.most_common(1)[0][0] for person, emotions in sorted(people.items())}
    words = ', '.join(f'person {person} mostly {emotion}' for person, emotion in list(most.items())[:_NAMED])
    words += ', …' if len(most) > _NAMED else ''
    return collections.Counter(most.values()), words or 'no face found'


def write_people(looks: Iterable[Mapping[str, Any]], folder: Path, name: str) -> str:
    """Writes the timeline of lines of kind `frame`, as CSV and drawn; returns the path of the CSV in the folder.

    Args:
        looks: with at least one face.
        folder: of all results.
        name: of the film.
    """
    faces = ((look['time'], face) for look in looks for face in look['faces'])
    first = next(faces)
    rows = (
        (seconds, face['person'], face['emotion'], int(face['unsure']), *face['smoothed'].values())
        for seconds, face in itertools.chain([first], faces)
    )
    path = f'timelines/{name}.csv'
    write_timeline(folder / path, tuple(first[1]['smoothed']), rows)
    draw_timeline(folder / path, folder / f'timelines/{name}.png', name)
    return path
