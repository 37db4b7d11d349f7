"""Checkpoints: written aside, summed, renamed into place; verified before they are read. The only user of orbax.

Among several processes each writes its part of every array, from a thread, while training goes on. Those threads meet
at barriers of jax's coordination service: a collective of the devices there could come between those of the training
step in another order in each process, and never end.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from fer_jax import distributed
from fer_jax.errors import UserError

if TYPE_CHECKING:  # half a second to import; a run does it when it writes its first checkpoint, beside the steps
    import orbax.checkpoint as ocp

_CHECKSUMS = 'checksums.json'
_FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # of a disk
_SUM_SECONDS = 3600  # that the others wait for process 0 to sum and rename what all have written
_FAIL_SECONDS = 5  # that a process that could not write waits for others that could not, and for what they had begun
_QUIET_SECONDS = 0.5

_copy = jax.jit(functools.partial(jax.tree.map, jnp.copy))  # one program, not one for every shape
_saves = itertools.count()  # names the barriers of a save: all processes save equally often


class Checkpoints:
    """The directory `WORKDIR/checkpoints`: one folder per step, with the items model, optimizer and position.

    `position` is a JSON object: at least `step`, `member` (whether `evaluate --last` counts it), `metrics` (of the
    validation split, {} if it was not read at that step) and `chosen_by`, the one of them whose highest value is best;
    runs from before that was written go by `validation/accuracy`.

    Attributes:
        directory: absolute path.
        keep_last: how many members are kept; besides them the best on validation, and the latest.
        keep_latest: how many of the latest.
    """

    _writer = concurrent.futures.ThreadPoolExecutor(1)  # of all: orbax is silenced as a whole while it writes

    def __init__(self, workdir: str, keep_last: int = 3, keep_latest: int = 1):
        self.directory = os.path.abspath(os.path.join(workdir, 'checkpoints'))
        self.keep_last, self.keep_latest = keep_last, keep_latest
        self._pending: concurrent.futures.Future | None = None

    def steps(self) -> list[int]:
        """The complete checkpoints, oldest first."""
        if not os.path.isdir(self.directory):
            return []
        return sorted(int(name) for name in os.listdir(self.directory) if name.isdigit())

    def position(self, step: int) -> dict[str, Any]:
        """The position of a checkpoint.

        Raises:
            UserError: if it cannot be read.
        """
        path = os.path.join(self.directory, str(step), 'position', 'metadata')
        try:
            with open(path) as file:
                return json.load(file)
        except (OSError, ValueError) as error:
            raise UserError(f'checkpoint {path} cannot be read ({error}); launch the run again, or remove it') from None

    def members(self, last: int) -> list[int]:
        """The steps of the last N members, oldest first; fewer where there are fewer."""
        members = [step for step in self.steps() if self.position(step)['member']]
        return members[-last:] if last else []

    def best(self) -> int | None:
        """The best step by its `chosen_by`, the earliest of equals; None where none was measured on validation."""
        scored = []
        for step in self.steps():
            position = self.position(step)
            value = position['metrics'].get(position.get('chosen_by', 'validation/accuracy'))
            scored += [] if value is None else [(value, -step)]
        return -max(scored)[1] if scored else None

    def save(self, model: Any, optimizer: Any, position: dict[str, Any]) -> None:
        """Starts writing a checkpoint and returns; what went wrong with the one before is raised here."""
        self.wait()
        # A copy: the step that follows gives its input buffers back to be overwritten.
        model, optimizer = jax.block_until_ready(_copy((model, optimizer)))
        self._pending = self._writer.submit(self._write, model, optimizer, position, f'fer_jax_save_{next(_saves)}')

    def wait(self) -> None:
        """Waits until the checkpoint under way is complete; raises what went wrong."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def check(self) -> None:
        """Raises what went wrong with the checkpoint under way, if it is known by now."""
        if self._pending and self._pending.done():
            self.wait()

    def _write(self, model: Any, optimizer: Any, position: dict[str, Any], name: str) -> None:
        import orbax.checkpoint as ocp

        step = position['step']
        final, aside = os.path.join(self.directory, str(step)), os.path.join(self.directory, f'.writing-{step}')
        items = ocp.args.Composite(
            model=ocp.args.PyTreeSave(model),
            optimizer=ocp.args.PyTreeSave(optimizer),
            position=ocp.args.JsonSave(position),
        )
        # With the processes listed orbax takes the coordination service for its barriers.
        everyone = set(range(jax.process_count()))
        try:
            if distributed.is_main():
                shutil.rmtree(aside, ignore_errors=True)
            with _quiet(), _checkpointer(everyone, name) as checkpointer:
                checkpointer.save(aside, items)
            if distributed.is_main():
                _commit(aside, final)
                self._prune()
            ocp.multihost.sync_global_processes(f'{name}_committed', timeout=_SUM_SECONDS, processes=everyone)
        except Exception as error:
            # A full disk strikes all: what they wrote goes when none of them writes any more.
            with contextlib.suppress(Exception):
                ocp.multihost.sync_global_processes(f'{name}_failed', timeout=_FAIL_SECONDS, processes=everyone)
            self._tidy_after_failure()
            _raise_os_error(error, self.directory)
            raise

    def _prune(self) -> None:
        steps = self.steps()
        keep = {*self.members(self.keep_last), self.best(), *steps[-self.keep_latest :]}
        for step in steps:
            if step not in keep:
                self._remove(step)

    def _remove(self, step: int) -> None:
        # Renamed first, so that a kill in between never leaves half a checkpoint under its own name.
        doomed = os.path.join(self.directory, f'.doomed-{step}')
        os.rename(os.path.join(self.directory, str(step)), doomed)
        shutil.rmtree(doomed)

    def tidy(self) -> bool:
        """Removes what a killed run left half written; returns whether there was anything."""
        names = os.listdir(self.directory) if os.path.isdir(self.directory) else []
        doomed = [name for name in names if re.match(r'\.(writing|doomed)-', name)]
        for name in doomed:
            shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)
        return bool(doomed)

    def _tidy_after_failure(self) -> None:
        """Tidies until nothing comes back: what orbax had begun to write goes on being written when it has failed."""
        last = time.monotonic()
        end = last + _FAIL_SECONDS
        while time.monotonic() < min(last + _QUIET_SECONDS, end):
            if self.tidy():
                last = time.monotonic()
            time.sleep(0.02)

    def restore(self, step: int, model: Any, optimizer: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Model, optimizer and position of a checkpoint that is known to be whole.

        Args:
            model, optimizer: trees of arrays or ShapeDtypeStructs with the shapes, types and shardings wanted.
        """
        restored = self._read(step, model=model, optimizer=optimizer)
        return restored['model'], restored['optimizer'], self.position(step)

    def newest(self) -> int | None:
        """The step of the newest checkpoint that is whole; see `newest_of_all`."""
        return newest_of_all([self])

    def is_whole(self, step: int) -> bool:
        """Whether a checkpoint is; a damaged one is named on stderr and renamed to STEP.damaged."""
        try:
            self._verify(step)
        except UserError as error:
            folder = os.path.join(self.directory, str(step))
            shutil.rmtree(folder + '.damaged', ignore_errors=True)
            os.rename(folder, folder + '.damaged')
            print(f'{error}; set aside, the checkpoint before it is used', file=sys.stderr)
            return False
        return True

    def forget_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, which are to be made again."""
        for later in self.steps():
            if later > step:
                self._remove(later)

    def restore_model(self, step: int, model: Any) -> Any:
        """The variables of one checkpoint, verified.

        Raises:
            UserError: if it is damaged, or not there.
        """
        self._verify(step)
        return self._read(step, model=model)['model']

    def _read(self, step: int, **items: Any) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        def restore(item):
            target = jax.tree.map(ocp.utils.to_shape_dtype_struct, item)
            return ocp.args.PyTreeRestore(item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))

        # Every process reads what it needs and waits for nobody, so that one alone may read too.
        with _checkpointer({jax.process_index()}) as checkpointer:
            arguments = ocp.args.Composite(**{name: restore(item) for name, item in items.items()})
            return checkpointer.restore(os.path.join(self.directory, str(step)), arguments)

    def _verify(self, step: int) -> None:
        folder = os.path.join(self.directory, str(step))
        try:
            with open(os.path.join(folder, _CHECKSUMS)) as file:
                expected = json.load(file)
        except (OSError, ValueError):
            raise UserError(f'checkpoint {folder} has no readable {_CHECKSUMS}') from None
        found = _checksums(folder)
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise UserError(f'checkpoint {folder} is damaged: {wrong[0]} differs from its checksum')


def newest_of_all(runs: Sequence[Checkpoints]) -> int | None:
    """The newest step of which all these runs have a checkpoint that is whole, or None.

    The same in all processes, which ask together. Process 0 reads every byte for all: sharing that out would save them
    a second (0.1 s per 100 MB), once. Where runs go on together, what some have beyond that step is removed.
    """
    step = _newest_whole(runs) if distributed.is_main() else -1
    distributed.barrier('verified')  # a large checkpoint may take longer than a collective waits
    step = distributed.agree_max(step)
    return None if step < 0 else step


def _newest_whole(runs: Sequence[Checkpoints]) -> int:
    common = set.intersection(*(set(run.steps()) for run in runs)) if runs else set()
    for step in sorted(common, reverse=True):
        whole = [run.is_whole(step) for run in runs]  # of all, so that whatever is damaged is named
        if all(whole):
            break
    else:
        step = -1
    if len(runs) > 1:
        most = max(len(run.steps()) for run in runs)
        if step < 0 and most > 1:  # one, where the first ones were being written
            least = min(runs, key=lambda run: len(run.steps())).directory
            raise UserError(
                f'there is no step of which all members have a whole checkpoint, and {least} has the fewest; '
                'bring back what is missing there, or take another --workdir'
            )
        for run in runs:
            run.forget_after(step)
    return step


def _checkpointer(processes: set[int], name: str | None = None) -> ocp.Checkpointer:
    import orbax.checkpoint as ocp

    options = ocp.options.MultiprocessingOptions(active_processes=processes, barrier_sync_key_prefix=name)
    # Without options of its own the composite would meet at collectives.
    composite = ocp.CompositeOptions(multiprocessing_options=options)
    handler = ocp.CompositeCheckpointHandler(composite_options=composite)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _commit(aside: str, final: str) -> None:
    """Sums what lies in `aside` and gives it its name."""
    with open(os.path.join(aside, _CHECKSUMS), 'w') as file:
        json.dump(_checksums(aside), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.rename(aside, final)


def _raise_os_error(error: Exception, place: str) -> None:
    """Raises what tensorstore says of a disk as the OSError that it is."""
    for number in _FULL_OR_CLOSED:
        if os.strerror(number) in str(error):
            raise OSError(number, os.strerror(number), place) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what orbax says of a failed save besides raising it: the caller turns that into one line.

    After a failure it stays silent: threads that orbax leaves behind speak last, and the run ends anyway.
    """
    loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    sys.unraisablehook = hook


def _checksums(folder: str) -> dict[str, str]:
    sums = {}
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(parent, name)
            if name != _CHECKSUMS or parent != folder:
                with open(path, 'rb') as file:
                    sums[os.path.relpath(path, folder)] = hashlib.file_digest(file, 'sha256').hexdigest()
    return sums
