"""Faces in pictures, found and read, in three lines:

    from fer_jax import Recognizer

    recognizer = Recognizer()  # the model in the box, or Recognizer(['checkpoints/my_run'])
    faces = recognizer(image)  # uint8 [H, W, 3] or [H, W]; of each: box, emotion, emoji, probabilities, …

Shape letters: M members, N faces, K classes, S pixels a side, C channels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float, Int, UInt8

from fer_jax import zoo
from fer_jax.apps.recognized import RecognizedFace, read_emotion
from fer_jax.data.preparing import made_smaller
from fer_jax.data.preprocess import VIEWS
from fer_jax.data.stored import fit_images
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import make_predict
from fer_jax.evaluation.saliency import make_saliency
from fer_jax.evaluation.scores import ensemble_probabilities
from fer_jax.faces.align import cut_square, main_face, warp
from fer_jax.faces.detector import make_detector
from fer_jax.faces.face import Detector, Face
from fer_jax.faces.mtcnn import Mtcnn, Settings
from fer_jax.faces.pyramid import Octaves
from fer_jax.members import Member, choose_members, find_runs, group_members, load_group, usual_tta
from fer_jax.models import onednn

BATCHES = (1, 8, 32)  # faces; networks are compiled for these numbers alone, once each, when first needed

Run = str | os.PathLike[str]


class Recognizer:
    """Finds the faces of pictures and reads them with the members of one run or of several, averaged.

    Faces come to the networks as they did in training. Where a run's data was prepared with --align, they are aligned
    by the same detector to the same size; otherwise each is the upright square about the face's box
    (`fer_jax.faces.align.cut_square`). Then they get the run's size, channels and normalisation. Runs of different
    networks, sizes and alignment can be averaged if their classes are the same ones; every member counts once.

    Attributes:
        class_names: K names, in the order of the logits.
        runs: what is known of the runs that the members come from.
        members: names of the M members, in the order of the logits: `run_seed0@1000`.
        threshold: under which probability the emotion is unsure.
        tta: the test-time augmentation.
    """

    def __init__(
        self,
        runs: Run | Sequence[Run] = (),
        *,
        last: int = 0,
        tta: str | None = None,
        threshold: float = 0.5,
        portraits: bool = False,
        min_face: float = Settings.min_face,
        landmarks: str | os.PathLike[str] | None = None,
        saliency: bool = False,
        most_faces: int = 0,
    ):
        """Loads the members; compiles nothing yet (see `warm_up`).

        Args:
            runs: workdirs of training runs or ensembles, or packed models (`fer_jax.pack`); none: the model in the box.
            last: of each run its last so many members; 0 takes its best by validation.
            tta: test-time augmentation, as in `evaluate`: none, flip, five_crop, ten_crop. None: as the packed models
                were scored; of runs alone: none.
            threshold: under which probability the emotion is unsure.
            portraits: each picture shows one face: it is looked for harder, as `prepare --align` does, and of several
                the main one alone counts.
            min_face: side in pixels of the smallest face that is looked for (not with `portraits`).
            landmarks: dlib's predictor, which runs need whose data was aligned with dlib.
            saliency: whether to compute saliency maps (by the members that are of the first one's kind).
            most_faces: of a picture only so many are read, the surest; 0: all.

        Raises:
            UserError: if a run is missing, damaged or not trained, or the runs do not fit together.
        """
        workdirs = [os.fspath(run) for run in ([runs] if isinstance(runs, (str, os.PathLike)) else runs)]
        workdirs = workdirs or [zoo.DEFAULT]
        if last < 0:
            raise UserError(f'last={last}: a count of checkpoints is wanted, 1 or more, or 0 for the best')
        if not 0 <= threshold <= 1:
            raise UserError(f'threshold={threshold} is no probability; it can be 0 to 1')
        if not 12 <= min_face < float('inf'):
            raise UserError(f'min_face={min_face}: the smallest face that can be found has 12 pixels')
        workdirs = find_runs(workdirs)
        tta = usual_tta(workdirs) if tta is None else tta
        if tta not in VIEWS:
            raise UserError(f'test-time augmentation {tta!r} is none of {", ".join(VIEWS)}')
        members = [member for workdir in workdirs for member in choose_members(workdir, last)]
        groups = group_members(members, ('class_names',), lambda run: repr(run.align))
        self._detector = _make_detector(groups, portraits, min_face, landmarks)
        self._networks = [_Network(group, tta, saliency and group is groups[0]) for group in groups]
        self._portraits, self._saliency, self._most_faces = portraits, saliency, most_faces or None
        self.class_names = members[0].run.class_names
        self.runs = tuple({member.run.workdir: member.run for member in members}.values())
        self.members = tuple(member.name for group in groups for member in group)
        self.threshold = threshold
        self.tta = tta

    def warm_up(self) -> None:
        """Compiles every program, so that no later picture waits for it."""
        self._detector.warm_up()
        for network in self._networks:
            network.warm_up()

    @overload
    def __call__(self, images: np.ndarray) -> list[RecognizedFace]: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray]) -> list[list[RecognizedFace]]: ...

    def __call__(self, images):
        """The faces of one picture, the surest first; of many pictures a list of faces for each.

        Args:
            images: one picture, uint8 [H, W, 3] (RGB), [H, W, 1] or [H, W]; or a sequence of pictures of any sizes, or
                one array [N, H, W, C] of them.

        Raises:
            ValueError: on an array that is no such picture.
        """
        if isinstance(images, np.ndarray) and images.ndim < 4:
            return self._read([images])[0]
        return self._read(list(images))

    def _read(self, images: Sequence[np.ndarray]) -> list[list[RecognizedFace]]:
        factors = [1] * len(images)
        if self._portraits and images:  # large ones are made smaller, as they are before `prepare` aligns them
            images, factors = zip(*(made_smaller(np.atleast_3d(image)) for image in images), strict=True)
        found = self._detector.detect(images)
        if self._portraits:
            found = [
                [main_face(faces, image.shape[:2])] if faces else [] for image, faces in zip(images, found, strict=True)
            ]
        found = [faces[: self._most_faces] for faces in found]
        frames = [[] for _ in self._networks]
        for image, faces in zip(images, found, strict=True):
            octaves = Octaves(image) if faces else None
            for face in faces:
                for network, own in zip(self._networks, frames, strict=True):
                    own.append(network.frame(octaves, face))
        read = iter(self._classify([face for faces in found for face in faces], frames))
        return [[_enlarged(next(read), factor) for _ in faces] for faces, factor in zip(found, factors, strict=True)]

    def _classify(self, faces: list[Face], frames: list[list[np.ndarray]]) -> list[RecognizedFace]:
        """`faces` with what is read in `frames`: for each network, of each face what it gets."""
        if not faces:
            return []
        logits_MNK = np.concatenate(
            [network.logits(np.stack(own)) for network, own in zip(self._networks, frames, strict=True)]
        )
        probabilities_NK = ensemble_probabilities(logits_MNK)
        first = self._networks[0]
        heat = [None] * len(faces)
        if self._saliency:
            heat = first.saliency(np.stack(frames[0]), probabilities_NK.argmax(1))
        return [
            RecognizedFace(
                **vars(read_emotion(probabilities_NK[index], self.class_names, self.threshold)),
                **vars(face),
                logits=logits_MNK[:, index],
                seen=first.seen(frames[0][index]),
                saliency=heat[index],
            )
            for index, face in enumerate(faces)
        ]


class _Network:
    """Members that stack, and how faces are brought to them."""

    def __init__(self, group: Sequence[Member], tta: str, with_saliency: bool):
        self._run = group[0].run
        self._how = self._run.preprocessing
        model, self._variables = load_group(group)
        self._predict = make_predict(model, self._how, tta, temperature=self._run.temperature)
        self._saliency = make_saliency(model, self._how) if with_saliency else None

    def frame(self, picture: Octaves, face: Face) -> UInt8[np.ndarray, 'S S C']:
        """The face as a picture of the prepared data would show it."""
        align = self._run.align
        square = warp(picture, face.points, align['size']) if align else cut_square(picture, face.box, self._how.size)
        return fit_images(square[None], self._how.size, self._how.channels)[0]

    def seen(self, frame: UInt8[np.ndarray, 'S S C']) -> UInt8[np.ndarray, 's s C']:
        """The central window."""
        side = self._how.input_side
        start = (self._how.size - side) // 2
        return frame[start : start + side, start : start + side]

    def logits(self, frames: UInt8[np.ndarray, 'N S S C']) -> Float[np.ndarray, 'M N K']:
        with onednn.without():
            return np.concatenate(_in_batches(lambda batch: self._predict(self._variables, batch), frames, axis=1), 1)

    def saliency(self, frames: UInt8[np.ndarray, 'N S S C'], classes: Int[np.ndarray, ' N']) -> np.ndarray:
        maps = lambda *batch: self._saliency(self._variables, *batch)
        with onednn.without():
            return np.concatenate(_in_batches(maps, frames, classes.astype(np.int32)))

    def warm_up(self) -> None:
        for size in BATCHES:
            frames = np.zeros((size, self._how.size, self._how.size, self._how.channels), np.uint8)
            self.logits(frames)
            if self._saliency:
                self.saliency(frames, np.zeros(size, np.int32))


def _enlarged(face: RecognizedFace, factor: int) -> RecognizedFace:
    """The face in a picture so many times as large."""
    return dataclasses.replace(face, box=face.box * factor, points=face.points * factor) if factor > 1 else face


def _in_batches(program: Callable[..., Any], *inputs: np.ndarray, axis: int = 0) -> list[np.ndarray]:
    """The program over any number of inputs [N, …] in batches of BATCHES alone; N is at `axis` of what it gives."""
    outputs, count = [], len(inputs[0])
    for start in range(0, count, BATCHES[-1]):
        left = min(count - start, BATCHES[-1])
        size = next(size for size in BATCHES if size >= left)
        batch = [np.pad(part[start : start + left], [(0, size - left)] + [(0, 0)] * (part.ndim - 1)) for part in inputs]
        outputs.append((program(*batch), left))  # a GPU is sent the next batch while it works
    return [np.take(np.asarray(output, np.float32), np.arange(left), axis) for output, left in outputs]


def _make_detector(
    groups: Sequence[Sequence[Member]], portraits: bool, min_face: float, landmarks: str | os.PathLike[str] | None
) -> Detector:
    names = {group[0].run.align['detector']: group[0].run.workdir for group in groups if group[0].run.align}
    if len(names) > 1:
        (one, first), (other, second) = list(names.items())[:2]
        raise UserError(
            f'the faces of {first} were aligned with {one}, those of {second} with {other}; '
            'only runs whose faces were aligned by one detector can be averaged here'
        )
    name = next(iter(names), 'mtcnn')
    if name == 'dlib' and landmarks is None:
        raise UserError(f"{names[name]} needs dlib's predictor, by which its faces were aligned: landmarks=PATH")
    if name == 'mtcnn' and not portraits and landmarks is None:
        return Mtcnn(Settings(min_face=min_face))
    return make_detector(name, portraits=portraits, landmarks=Path(landmarks) if landmarks else None)
