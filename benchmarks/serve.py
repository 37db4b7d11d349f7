"""The web server under load: its first answers, eight clients at once, thirty-two, and its memory over minutes.

    python benchmarks/serve.py [--run=DIR] [--rounds=40] [--minutes=10]

Starts `python -m fer_jax.serve` with its own limits (8 requests at once) on this machine and asks it over the loopback
address alone; the clients take their share of the same cores. Pictures are scikit-image's astronaut in a textured
surrounding, as JPEG. A client asks again at once when it has its answer, and after a refusal waits as it was told.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import skimage.data
from PIL import Image

from fer_jax import zoo

SIZES = ((640, 480), (1280, 720), (320, 240))
_CLIENTS = 8


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request: when it was answered, in how many seconds, with which code, and how long to wait then."""

    at: float
    seconds: float
    status: int
    wait: float


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the tables; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', default=zoo.DEFAULT, help='workdir of a training run (default: the model in the box)')
    parser.add_argument('--rounds', type=int, default=40, help='requests of each client')
    parser.add_argument('--minutes', type=float, default=10, help='of load while the memory is watched')
    flags = parser.parse_args(argv)
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start')
    with _serving(flags.run) as port:
        first = [1000 * _ask(port, _picture(640, 480)).seconds for _ in range(6)]
        print(f'first answer {first[0]:.0f} ms, the next {" ".join(f"{value:.0f}" for value in first[1:])} ms\n')
        print('| at once | picture | answered | refused (503) | other | p50 ms | p95 ms | most ms | refusals p95 ms |')
        print('| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
        for clients in (1, _CLIENTS, 4 * _CLIENTS):
            for size in SIZES[:2]:
                _row(clients, size, _load(port, clients, [_picture(*size)], flags.rounds, False))
        _memory(port, flags.minutes)


def _row(clients: int, size: tuple[int, int], asked: Sequence[Asked]) -> None:
    codes = collections.Counter(one.status for one in asked)
    times = lambda status: [1000 * one.seconds for one in asked if one.status == status]
    share = lambda status, part: f'{np.percentile(times(status), part):.0f}' if codes[status] else ''
    other = len(asked) - codes[200] - codes[503]
    shown = ' | '.join([share(200, 50), share(200, 95), share(200, 100), share(503, 95)])
    print(f'| {clients} | {size[0]}x{size[1]} | {codes[200]} | {codes[503]} | {other} | {shown} |', flush=True)


def _memory(port: int, minutes: float) -> None:
    """Eight clients with pictures of all sizes, the server's memory every twentieth of the time."""
    pictures, began = [_picture(*size) for size in SIZES], time.monotonic()
    print(f'\n{_CLIENTS} at once for {minutes:g} minutes; memory of the server in MB:')
    memory, answered = [_resident(port)], 0
    for part in range(1, 21):
        end = began + part * 60 * minutes / 20
        asked = _load(port, _CLIENTS, pictures, 100_000, True, end)
        answered += sum(one.status == 200 for one in asked)
        memory.append(_resident(port))
    print(' '.join(f'{size / 1e6:.0f}' for size in memory))
    print(f'{answered:,} answered; from a tenth of the time on {(memory[-1] - memory[2]) / 1e6:+.1f} MB')


def _load(
    port: int, clients: int, pictures: Sequence[bytes], rounds: int, patient: bool, end: float = np.inf
) -> list[Asked]:
    """What so many clients were answered, each asking `rounds` times or until `end`."""

    def client(number: int) -> list[Asked]:
        asked = []
        while len(asked) < rounds and time.monotonic() < end:
            asked.append(_ask(port, pictures[(number + len(asked)) % len(pictures)]))
            if patient and asked[-1].wait:
                time.sleep(min(asked[-1].wait, max(0, end - time.monotonic())))
        return asked

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return [one for asked in pool.map(client, range(clients)) for one in asked]


def _ask(port: int, picture: bytes) -> Asked:
    began = time.perf_counter()
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=60)) as connection:
        connection.request('POST', '/api/predict', picture, {'Content-Type': 'image/jpeg'})
        answer = connection.getresponse()
        answer.read()
        wait = float(answer.headers['Retry-After']) if answer.status == 503 else 0.0
    return Asked(time.monotonic(), time.perf_counter() - began, answer.status, wait)


def _resident(port: int) -> float:
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=60)) as connection:
        connection.request('GET', '/metrics')
        return float(re.search(rb'^process_resident_memory_bytes (.*)$', connection.getresponse().read(), re.M)[1])


def _picture(width: int, height: int) -> bytes:
    """The astronaut on a wall of bricks, as high as the picture."""
    wall = Image.fromarray(skimage.data.brick()).convert('RGB').resize((width, height))
    wall.paste(Image.fromarray(skimage.data.astronaut()).resize((height, height)), ((width - height) // 2, 0))
    file = io.BytesIO()
    wall.save(file, 'JPEG', quality=90)
    return file.getvalue()


@contextlib.contextmanager
def _serving(run: str) -> Iterator[int]:
    """The command as a process of its own; gives its port."""
    command = [sys.executable, '-m', 'fer_jax.serve', f'--run={run}', '--port=0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout:
                print(line, end='')
                found = re.match(r'Listening at http://127.0.0.1:(\d+)', line)
                if found:
                    yield int(found[1])
                    return
            raise SystemExit('the server did not start')
        finally:
            server.terminate()
            print(f'stopped with code {server.wait(60)}')


if __name__ == '__main__':
    main()
