"""The run's record: metrics.jsonl, and the same numbers as TensorBoard events. Each step once, in order."""

from __future__ import annotations

import json
import os

import tensorboardX


class Record:
    """Writes log points; reopened at a step, it drops what an interrupted run wrote after that step."""

    def __init__(self, workdir: str, step: int):
        self._path = os.path.join(workdir, 'metrics.jsonl')
        kept = [line for line in _lines(self._path) if _step(line) <= step]
        with open(self._path + '.new', 'w') as file:
            file.writelines(kept)
        os.replace(self._path + '.new', self._path)
        self._file = open(self._path, 'a')  # noqa: SIM115 (closed by close)
        self._events = tensorboardX.SummaryWriter(os.path.join(workdir, 'events'), purge_step=step + 1)

    def write(self, values: dict[str, float | None]) -> None:
        """Adds one log point; `values` holds `step` and any numbers (None: not finite)."""
        self._file.write(json.dumps(values) + '\n')
        self._file.flush()
        for name, value in values.items():
            if name != 'step' and value is not None:
                self._events.add_scalar(name, value, values['step'])

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._events.close()


def _step(line: str) -> float:
    """The step of a line; infinite for one that is no log point, which is then dropped."""
    try:
        return json.loads(line)['step']
    except (ValueError, TypeError, KeyError):
        return float('inf')


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path) as file:
        # A line cut short by a kill has no newline.
        return [line for line in file if line.endswith('\n')]
