"""Faces and saliency maps of some answers of an ensemble, computed from its data and checkpoints for the page."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from fer_jax import experiment, run_json
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.evaluation.mistakes import Mistakes
from fer_jax.evaluation.saliency import make_saliency
from fer_jax.members import find_member, group_members, load_group
from fer_jax.reports.page.workdirs import Workdir
from fer_jax.training.checkpoints import Checkpoints

_BATCH = 16  # one size, so that one program serves any number of faces


def explain(workdir: Workdir, rows: np.ndarray, datasets: dict[str, Dataset]) -> tuple[Mistakes, str]:
    """Faces of some wrong answers, and where the ensemble saw the class that it named, and the true one.

    Members of one network are averaged; of several kinds, those of the first one's.

    Args:
        workdir: whose answers they are.
        rows: of its answers, one or more.
        datasets: loaded before, by the configuration of their data; what is loaded here is added.

    Returns:
        What was found, and why there are no maps; '' where there are.

    Raises:
        UserError: if the data is gone, or holds something else than it did.
    """
    answers = workdir.answers
    predicted, ids = answers.predicted[rows], answers.ids[rows]
    places = _places(workdir)
    images = _images(find_member(*places[0]).run, workdir.split, ids, datasets)
    try:
        count, (saw_predicted, saw_true) = _maps(places, images, (predicted, answers.labels[rows]))
        reason = ''
    except UserError as error:
        empty = np.zeros((len(rows), 1, 1), np.float32)
        count, saw_predicted, saw_true, reason = 0, empty, empty, str(error)
    found = Mistakes(
        ids=ids,
        members=workdir.members,
        predicted=predicted,
        confidence=answers.confidence[rows],
        images=images,
        saw_predicted=saw_predicted,
        saw_true=saw_true,
        shown_members=count,
    )
    return found, reason


def _places(workdir: Workdir) -> list[tuple[str, int]]:
    """Run and step of each member, where it is now.

    A run's own members are in its directory, which may have been moved since; an evaluation's are where they were.
    """
    named = [name.rpartition('@') for name in workdir.members.tolist()]
    here = str(workdir.directory) if workdir.kind == 'run' else None
    return [(here or run, int(step)) for run, _, step in named]


def _maps(
    places: Sequence[tuple[str, int]], images: np.ndarray, classes: Sequence[np.ndarray]
) -> tuple[int, list[np.ndarray]]:
    """Of how many members they are, and the maps for each set of classes."""
    members = [find_member(*place) for place in places]
    for member, (workdir, step) in zip(members, places, strict=True):
        if not member.packed and step not in Checkpoints(workdir).steps():
            raise UserError(f'{workdir} no longer has its checkpoint of step {step}')
    group = group_members(members, ('class_names', 'manifest_hash'), lambda of: '')[0]
    model, variables = load_group(group)
    saliency = make_saliency(model, group[0].run.preprocessing)

    def maps_of(classes_N: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), _BATCH):
            count = min(_BATCH, len(images) - start)
            batch = np.zeros((_BATCH, *images.shape[1:]), np.uint8)
            batch[:count] = images[start : start + count]
            wanted = np.zeros(_BATCH, np.int32)
            wanted[:count] = classes_N[start : start + count]
            parts.append(np.asarray(saliency(variables, batch, wanted), np.float32)[:count])
        return np.concatenate(parts)

    return len(group), [maps_of(classes_N) for classes_N in classes]


def _images(run: run_json.RunDescription, split: str, ids: np.ndarray, datasets: dict[str, Dataset]) -> np.ndarray:
    """The images with these ids, as the run's networks got them."""
    key = repr(run.config.data.to_dict())
    if key not in datasets:
        datasets[key] = experiment.load_data(run.config)
    dataset = datasets[key]
    if dataset.manifest_hash != run.manifest_hash:
        raise UserError(
            f'{run.config.data.name} now holds other images than {os.path.basename(run.workdir)} was read on'
        )
    if split not in dataset.splits:
        raise UserError(f'{run.config.data.name} no longer has a {split} split')
    rows = {identity: row for row, identity in enumerate(dataset.splits[split].ids.tolist())}
    if missing := [identity for identity in ids.tolist() if identity not in rows]:
        raise UserError(f'{run.config.data.name} no longer has {missing[0]!r} in {split}')
    at = np.array([rows[identity] for identity in ids.tolist()])
    order = np.argsort(at)  # of images that are read when they are indexed, in the order of the files
    return np.asarray(dataset.splits[split].images[at[order]])[np.argsort(order)]
