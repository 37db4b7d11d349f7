"""Steps of tables: what rows read, made once by a command, taken up again after a kill, refused when made otherwise.

Step NAME lives in OUTPUT/steps/NAME or, with a seed of its own, OUTPUT/steps/NAME/seedN. When its command is done, a
file beside that directory, of its name with .json, records how it was made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax import rehearsal
from fer_jax.config import as_flags, default_config, flatten, load_config
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.table import Table, TableStep

_PLACE = re.compile(r'\{(\w*)\}')
_OWN = ('here', 'seed')  # what a command may name besides other steps


def named_in(texts: Sequence[Any]) -> list[str]:
    """The names that stand in braces in any of these texts."""
    return list(dict.fromkeys(name for text in texts for name in _PLACE.findall(str(text))))


def filled(text: str, places: Mapping[str, Any]) -> str:
    """The text with names in braces replaced."""
    return _PLACE.sub(lambda found: str(places[found[1]]), text)


def check_steps(path: str, table: Table) -> None:
    """Refuses steps that cannot be made in their order, and rows that name steps which are not there.

    Raises:
        UserError: naming the table file.
    """
    known: dict[str, TableStep] = {}
    for step in table.steps:
        if not isinstance(step, TableStep) or not re.fullmatch(r'\w+', step.name) or step.name in (*known, *_OWN):
            raise UserError(f'{path}: step {getattr(step, "name", step)!r} is no TableStep with a word of its own')
        if isinstance(step.command, str) or not step.command:
            raise UserError(f'{path}: step {step.name!r} needs a command, a list of a module and its flags')
        for name in named_in(step.command):
            if name not in (*known, *_OWN):
                raise UserError(f'{path}: step {step.name!r} names {{{name}}}, which is no step before it')
            if name in known and known[name].per_seed and not step.per_seed:
                raise UserError(f'{path}: step {step.name!r} is one for all seeds and reads {name!r}, one per seed')
        known[step.name] = step
    for row in table.rows:
        for name in named_in([*row.overrides.values(), row.filtered]):
            if name not in known:
                raise UserError(f'{path}: row {row.name!r} names {{{name}}}, which is no step of the table')


@dataclasses.dataclass(frozen=True)
class StepJob:
    """A step for one seed.

    Attributes:
        step: what it is of.
        seed: of the rows that need it; 0 where all seeds share it.
        directory: where it lives.
        inputs: the steps that it reads.
        extra: flags that a rehearsal adds.
    """

    step: TableStep
    seed: int
    directory: Path
    inputs: tuple[StepJob, ...]
    extra: tuple[str, ...]

    @property
    def record(self) -> Path:
        """Where it is recorded how it was made."""
        return self.directory.with_name(self.directory.name + '.json')

    def command(self) -> list[str]:
        """What to run, after `python -m`."""
        places = {job.step.name: job.directory for job in self.inputs}
        places |= {'here': self.directory, 'seed': self.seed}
        return [*(filled(word, places) for word in self.step.command), *self.extra]

    def is_done(self) -> bool:
        """Whether it was made, by this command from these inputs.

        Raises:
            UserError: if it was made otherwise.
        """
        try:
            there = json.loads(self.record.read_text(encoding='utf-8'))
        except FileNotFoundError:
            return False
        except ValueError:
            raise UserError(f'{self.record} cannot be read; move it away and run the same command again') from None
        if isinstance(there.get('config'), dict):  # one from before a field was there is as one with its default
            there['config'] = _fields(default_config(), {}) | there['config']
        for name, wanted in self._described().items():
            if there.get(name) != wanted:
                raise UserError(
                    f'step {self.step.name!r}: {self.directory} was made with another {name}'
                    f'{_difference(there.get(name), wanted)}; move it and {self.record.name} away, or choose another '
                    '--output'
                )
        return self.directory.exists()

    def note_done(self) -> None:
        """Records how it was made."""
        self.record.parent.mkdir(parents=True, exist_ok=True)
        aside = self.record.with_name(self.record.name + '.partial')
        aside.write_text(json.dumps(self._described(), indent=2), encoding='utf-8')
        os.replace(aside, self.record)

    def _described(self) -> dict[str, Any]:
        """What has to be the same for it to be the same; where it lies does not."""
        command = self.command()
        described: dict[str, Any] = {'command': [*self.step.command, *self.extra], 'seed': self.seed}
        files = [word.partition('=')[2] for word in command if word.startswith('--config=')]
        if files:
            config = load_config(files[-1], [word for word in command if word.startswith('--config.')])
            at = {str(job.directory): f'{{{job.step.name}}}' for job in self.inputs}
            described['config'] = _fields(config, at)
            described['data'] = _manifest_hash(config.data.name)
        described['inputs'] = {job.step.name: _hash(job._described()) for job in self.inputs}
        return described


def steps_for(table: Table, names: Sequence[str], seed: int, output: Path, rehearse: bool) -> dict[str, StepJob]:
    """The steps of these names, for one seed, and all that they read, in the table's order."""
    wanted, by_name = set(names), {step.name: step for step in table.steps}
    for step in reversed(table.steps):
        if step.name in wanted:
            wanted |= set(named_in(step.command)) & by_name.keys()
    made: dict[str, StepJob] = {}
    for step in table.steps:
        if step.name in wanted:
            directory = output / 'steps' / step.name / (f'seed{seed}' if step.per_seed else 'all')
            inputs = tuple(made[name] for name in named_in(step.command) if name in made)
            made[step.name] = StepJob(step, seed if step.per_seed else 0, directory, inputs, ())
            if rehearse:
                extra = (*_shortened(made[step.name].command(), output), *step.rehearsal)
                made[step.name] = dataclasses.replace(made[step.name], extra=extra)
    return made


def make_steps(jobs: Mapping[str, StepJob], run: Callable[[Sequence[str]], None], say: Callable[[str], None]) -> None:
    """Makes those that are not there.

    Args:
        run: runs a module with its flags, and ends the process where that fails.
        say: tells what is made.

    Raises:
        UserError: if one was made otherwise.
    """
    for job in jobs.values():
        if not job.is_done():
            say(f'step {job.step.name}: {job.directory}')
            job.directory.parent.mkdir(parents=True, exist_ok=True)
            run(job.command())
            job.note_done()


def _shortened(command: Sequence[str], output: Path) -> list[str]:
    files = [word.partition('=')[2] for word in command if word.startswith('--config=')]
    if not files:
        return []
    config = load_config(files[-1], [word for word in command if word.startswith('--config.')])
    return as_flags(rehearsal.changes(config, output))


def _manifest_hash(name: str) -> str:
    manifest = Path(name, 'manifest.json')
    return Dataset('', (), {}, json.loads(manifest.read_text())).manifest_hash if manifest.exists() else name


def _fields(config: ConfigDict, at: Mapping[str, str]) -> dict[str, Any]:
    """As they come back from JSON, with the places of inputs by their names."""
    return {
        name: _moved(list(value) if isinstance(value, tuple) else value, at) for name, value in flatten(config).items()
    }


def _moved(value: Any, at: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_moved(part, at) for part in value]
    for place, name in at.items():
        value = value.replace(place, name) if isinstance(value, str) else value
    return value


def _hash(described: Mapping[str, Any]) -> str:
    """Of what differs from the defaults, so that a field that comes to be changes no hash."""
    defaults = _fields(default_config(), {})
    changed = {name: value for name, value in described.get('config', {}).items() if value != defaults[name]}
    described = {**described, 'config': changed}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _difference(there: Any, wanted: Any) -> str:
    """In words, of the first entry where they are objects."""
    if not isinstance(there, dict) or not isinstance(wanted, dict):
        return f' ({there!r} there, {wanted!r} now)'
    for name in {**there, **wanted}:
        if there.get(name) != wanted.get(name):
            return f' ({name}: {there.get(name)!r} there, {wanted.get(name)!r} now)'
    return ''
