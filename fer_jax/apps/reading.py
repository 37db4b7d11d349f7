"""Inputs read one after the other: pictures several at a time, films frame by frame; each into the journal."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_jax.apps.drawing import draw_faces, draw_saliency
from fer_jax.apps.film import Film, FilmWriter, UnreadableFilm, open_film
from fer_jax.apps.following import count_emotions, describe_people, follow, write_people
from fer_jax.apps.inputs import Input
from fer_jax.apps.recognized import RecognizedFace
from fer_jax.apps.records import Journal, face_record
from fer_jax.apps.tracking import Tracker
from fer_jax.data.pixels import count_frames, decode_picture

MAX_BYTES = 256 << 20  # of a picture's file
_NAMED = 6  # faces, in the words for one picture
_TOGETHER, _PIXELS_TOGETHER = 16, 32_000_000  # pictures, or frames that are looked at, in one go

Recognize = Callable[[Sequence[np.ndarray]], list[list[RecognizedFace]]]


@dataclasses.dataclass(frozen=True)
class FilmOptions:
    """Look at every Nth frame; smooth with a time constant in seconds; under which probability it is unsure."""

    every: int
    smoothing: float
    threshold: float


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of an input.

    emotions: how many faces were taken for each; of a film people, by what they were taken for most often.
    words: for people.
    reason: why it was rejected; '' where it was not.
    """

    source: Input
    emotions: Mapping[str, int]
    words: str
    reason: str = ''


def read_pictures(sources: Sequence[Input], recognize: Recognize, journal: Journal, draw: bool) -> Iterator[Result]:
    """Reads pictures, several at a time, and writes what was found; a result for each, in order."""
    group, pixels = [], 0
    for source in sources:
        try:
            data = source.member.read(MAX_BYTES)
            image, frames = decode_picture(data), count_frames(data)
        except ValueError as error:
            yield from _write_pictures(group, recognize, journal, draw)
            group, pixels = [], 0
            yield _reject(source, str(error), journal)
            continue
        group.append((source, image, frames))
        pixels += image.shape[0] * image.shape[1]
        if len(group) >= _TOGETHER or pixels > _PIXELS_TOGETHER:
            yield from _write_pictures(group, recognize, journal, draw)
            group, pixels = [], 0
    yield from _write_pictures(group, recognize, journal, draw)


def _write_pictures(
    group: Sequence[tuple[Input, np.ndarray, int]], recognize: Recognize, journal: Journal, draw: bool
) -> Iterator[Result]:
    found = recognize([image for _, image, _ in group]) if group else []
    for (source, image, frames), faces in zip(group, found, strict=True):
        line = {'kind': 'picture', 'source': source.name, 'bytes': source.member.size, 'modified': source.modified}
        line |= {'width': image.shape[1], 'height': image.shape[0]}
        if frames > 1:
            line['first_of_frames'] = frames
        line['faces'] = [face_record(face) for face in faces]
        for number, (face, record) in enumerate(zip(faces, line['faces'], strict=True), 1):
            if face.saliency is not None:
                record['saliency'] = _save(draw_saliency(face), journal.folder, f'saliency/{source.name}.{number}.png')
        if draw:
            line['drawn'] = _save(draw_faces(image, faces), journal.folder, f'drawn/{source.name}.jpg')
        journal.add(line)
        words = ', '.join(map(_words, faces[:_NAMED])) or 'no face found'
        if len(faces) > _NAMED:
            words = f'{len(faces)} faces: {words}, …'
        if frames > 1:
            words += f' (the first of {frames} frames)'
        yield Result(source, collections.Counter(face.emotion for face in faces), words)


def _words(face: RecognizedFace) -> str:
    return f'{face.emoji} {face.emotion}{"?" * face.unsure} {100 * face.confidence:.0f} %'.strip()


def _save(image: np.ndarray, folder: Path, name: str) -> str:
    """Writes a picture aside, then in its place; returns the name, '/' between the parts."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f'.{path.name}.partial')
    options = {'format': 'PNG'} if path.suffix == '.png' else {'format': 'JPEG', 'quality': 92}
    Image.fromarray(image).save(aside, **options)
    os.replace(aside, path)
    return name


def _reject(source: Input, reason: str, journal: Journal) -> Result:
    journal.add({'kind': 'reject', 'source': source.name, 'reason': reason})
    return Result(source, {}, f'rejected: {reason}', reason)


def read_film(source: Input, recognize: Recognize, journal: Journal, draw: bool, options: FilmOptions) -> Result:
    """Reads a film and writes what was found, its timeline and, if wanted, the film with faces drawn into it."""
    drawn = f'drawn/{source.name}.mp4'
    try:
        with contextlib.ExitStack() as stack:
            film = stack.enter_context(open_film(source.member.path))
            writer = stack.enter_context(FilmWriter(journal.folder / drawn, film.rate)) if draw else None
            looks, line = _look(film, recognize, writer, options, source.name)
    except UnreadableFilm as error:
        return _reject(source, str(error), journal)
    line |= {'bytes': source.member.size, 'modified': source.modified}
    people = count_emotions(looks)
    line['people'] = len(people)
    if people:
        line['timeline'] = write_people(looks, journal.folder, source.name)
    if draw:
        line['drawn'] = drawn
    journal.add(*looks, {'kind': 'film', 'source': source.name, **line})
    return Result(source, *describe_people(people))


def _look(
    film: Film, recognize: Recognize, writer: FilmWriter | None, options: FilmOptions, name: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A line for each frame that was looked at; and what is to be said of the whole film.

    Raises:
        UnreadableFilm: if the film is damaged, or has no frame.
    """
    tracker, looks, shown = Tracker(options.smoothing), [], ([], [])
    count, time, image = 0, 0.0, None
    total = -(-film.count // options.every) or None
    with tqdm(total=total, desc=name, unit=' looks', disable=None, delay=2, leave=False) as bar:
        for chunk in _chunks(film.frames(), options.every):
            looked = [image for index, _, image in chunk if index % options.every == 0]
            found = iter(recognize(looked) if looked else ())
            for index, time, image in chunk:
                if index % options.every == 0:
                    faces, records = follow(tracker, time, next(found), options.threshold)
                    looks.append({'kind': 'frame', 'source': name, 'frame': index, 'time': round(time, 4)})
                    looks[-1]['faces'] = records
                    shown = faces, [f'{record["person"]}:' for record in records]
                if writer:
                    writer.add(time, draw_faces(image, *shown))
            count += len(chunk)
            bar.update(len(looked))
    if image is None:
        raise UnreadableFilm('not a film: it has no frame')
    sizes = {'width': image.shape[1], 'height': image.shape[0]}
    return looks, {**sizes, 'frames': count, 'looks': len(looks), 'seconds': round(time, 4)}


def _chunks(frames: Iterator[tuple[int, float, np.ndarray]], every: int) -> Iterator[list]:
    """Frames in lists of up to _TOGETHER looks and about _PIXELS_TOGETHER pixels."""
    chunk, pixels = [], 0
    for frame in frames:
        if chunk and (frame[0] % (every * _TOGETHER) == 0 or pixels > _PIXELS_TOGETHER):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(frame)
        pixels += frame[2].shape[0] * frame[2].shape[1]
    if chunk:
        yield chunk
