"""Seeds that are trained together: a run of each in WORKDIR/seedN, and what WORKDIR itself holds of all of them.

The members' runs are complete ones, as if each had been trained alone on the images in the same order. Beside them
WORKDIR has ensemble.json, which says who the members are, and in the end the evaluation of all of them together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import distributed, evaluate, experiment, run_json
from fer_jax.config import set_field
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.members import ENSEMBLE_JSON, choose_members, read_seeds
from fer_jax.tasks.classify import is_scored
from fer_jax.training.checkpoints import Checkpoints

_KEEP_LATEST = 2  # a kill may come when some have written their newest checkpoint and others have not


def member_seeds(config: ConfigDict) -> list[int]:
    """The seeds of the members that `config.ensemble` asks for, in a row from `config.seed` on.

    Raises:
        UserError: if they leave the range of seeds.
    """
    seeds = list(range(config.seed, config.seed + config.ensemble.members))
    if seeds[-1] >= 2**32:
        raise UserError(f'config.ensemble.members={len(seeds)} from config.seed={config.seed} on pass 2**32 - 1')
    return seeds


def member_config(config: ConfigDict, seed: int) -> ConfigDict:
    """The configuration with which a member is trained alone, on the images in the same order."""
    order = experiment.order_seed(config)
    config = ConfigDict(config.to_dict())
    for name, value in {'seed': seed, 'data.order_seed': order, 'ensemble.members': 1, 'ensemble.how': 'auto'}.items():
        set_field(config, name, value)
    return config.lock()


def checkpoints_of(config: ConfigDict, workdir: str, members: int) -> Checkpoints:
    """Those of a run that is trained alone, or with others as one of so many members."""
    return Checkpoints(workdir, config.checkpoint.keep_last, _KEEP_LATEST if members > 1 else 1)


def refuse_other_ensemble(config: ConfigDict, workdir: str) -> None:
    """Refuses a workdir that holds a run, or other members."""
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f'--workdir={workdir} is a file; a directory is wanted')
    if Checkpoints(workdir).steps():
        raise UserError(f'{workdir} holds a single run; choose another --workdir for config.ensemble.members')
    seeds, wanted = read_seeds(workdir), member_seeds(config)
    if seeds and seeds != wanted:
        raise UserError(
            f'{workdir} holds the members of seeds {in_words(seeds)}, not {in_words(wanted)}; choose another '
            '--workdir, or give the same configuration to go on'
        )


def write_members(workdir: str, seeds: Sequence[int]) -> None:
    """Writes ensemble.json."""
    run_json.write_json(os.path.join(workdir, ENSEMBLE_JSON), {'seeds': list(seeds)})


def in_words(seeds: Sequence[int]) -> str:
    """Such as `0 to 8`."""
    return f'{seeds[0]} to {seeds[-1]}' if len(seeds) > 1 else str(seeds[0])


def report_failed(workdir: str, seeds: Sequence[int], failed: Sequence[str]) -> None:
    """Says which members could not be trained to their end.

    Args:
        failed: of each why, '' where it could.

    Raises:
        UserError: if there are any.
    """
    told = [f'seed{seed}: {words}' for seed, words in zip(seeds, failed, strict=True) if words]
    if told:
        others = 'the others are trained' if len(told) < len(seeds) else 'and so none is trained'
        raise UserError(f'{len(told)} of the {len(seeds)} members in {workdir} failed, {others}: {"; ".join(told)}')


def evaluate_ensemble(config: ConfigDict, workdir: str, runs: Sequence[str], dataset: Dataset) -> dict[str, Any]:
    """Scores the members of all these runs together, into WORKDIR, unless that is done.

    Of each run as many members count as of its own ensemble; where one has fewer, as many as that has; where one
    has none, the best step of each.

    Returns:
        scores.json as written now; {} if nothing was.
    """
    checkpoints = [Checkpoints(run) for run in runs]
    last = min(len(of_run.members(config.evaluation.last)) for of_run in checkpoints)
    steps = [member.step for run in runs for member in choose_members(run, last)]
    if distributed.agree_max(is_scored(config, workdir, steps)):
        if distributed.is_main():
            print(f'{workdir} is trained and scored already; see {os.path.join(workdir, "report.md")}')
        return {}
    how = {'last': last, 'tta': config.evaluation.tta}
    return evaluate.evaluate_runs(runs, config.evaluation.splits, workdir, dataset=dataset, **how)
