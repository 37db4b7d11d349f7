"""The run's record: metrics.jsonl, and the same numbers as TensorBoard events. Each step once, in order."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from types import SimpleNamespace

from PIL import Image


class Record:
    """Writes log points; reopened at a step, it drops what an interrupted run wrote after that step.

    Of several processes one has it. Events are written here and not by tensorboardX's SummaryWriter: its thread ends on
    a full disk, and whoever writes after that waits for it without end.
    """

    def __init__(self, workdir: str, step: int):
        self._path = os.path.join(workdir, 'metrics.jsonl')
        kept = [line for line in _lines(self._path) if _step(line) <= step]
        with open(self._path + '.new', 'w') as file:
            file.writelines(kept)
        os.replace(self._path + '.new', self._path)
        self._file = open(self._path, 'a')  # noqa: SIM115 (closed by close)
        folder = os.path.join(workdir, 'events')
        os.makedirs(folder, exist_ok=True)
        tensorboard = _tensorboard()
        # The writer's own name tells launches of the same second not apart.
        suffix = f'.{os.getpid()}.{time.monotonic_ns()}'
        self._events = tensorboard.EventsWriter(os.path.join(folder, 'events'), suffix)
        # TensorBoard drops what came before from this step on.
        self._event(step + 1, session_log=tensorboard.SessionLog(status=tensorboard.SessionLog.START))
        self._events.flush()

    def write(self, values: dict[str, float | None]) -> None:
        """Adds one log point; `values` holds `step` and any numbers (None: not finite)."""
        self._file.write(json.dumps(values) + '\n')
        self._file.flush()
        finite = {name: value for name, value in values.items() if name != 'step' and value is not None}
        for name, value in finite.items():
            self._summary(values['step'], tag=name, simple_value=value)
        self._events.flush()

    def write_picture(self, step: int, name: str, path: str | os.PathLike[str]) -> None:
        """Adds a PNG file to the events; `name` is its tag."""
        with Image.open(path) as picture:
            width, height, bands = *picture.size, len(picture.getbands())
        with open(path, 'rb') as file:
            content = {'width': width, 'height': height, 'colorspace': bands, 'encoded_image_string': file.read()}
        self._summary(step, tag=name, image=_tensorboard().Summary.Image(**content))
        self._events.flush()

    def close(self) -> None:
        """Flushes both."""
        try:
            self._file.close()
        finally:
            self._events.close()

    def _summary(self, step: int, **content) -> None:
        summary = _tensorboard().Summary
        self._event(step, summary=summary(value=[summary.Value(**content)]))

    def _event(self, step: int, **content) -> None:
        self._events.write_event(_tensorboard().Event(step=step, wall_time=time.time(), **content))


@functools.cache
def _tensorboard() -> SimpleNamespace:
    """What is used of tensorboardX, which would import PyTorch where that is there: for seconds, and for nothing."""
    hidden = 'torch' not in sys.modules
    if hidden:
        sys.modules['torch'] = None
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
    finally:
        if hidden:
            del sys.modules['torch']
    return SimpleNamespace(EventsWriter=EventsWriter, Event=Event, SessionLog=SessionLog, Summary=Summary)


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
