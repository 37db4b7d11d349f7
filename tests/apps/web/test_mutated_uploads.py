"""Uploads that nobody should send: each is answered in its own words, none costs the server anything that stays."""

import os
from pathlib import Path

from tests import mutated
from tests.serving import Stub, serving


def send(count, seed):
    """Sends them one after the other; returns how many had each code, and the memory in bytes on the way."""
    codes, memory = {}, []
    with serving(Stub(), limits={'size': 4_000_000, 'pixels': 40_000_000}) as server:
        files = len(os.listdir('/proc/self/fd'))
        for index, (body, headers) in enumerate(mutated.uploads(count, seed)):
            answer = server.predict(body, **headers)
            said = answer.json
            assert answer.status in (200, 400, 413, 415, 422), (index, answer)
            assert said['kind'] == ('picture' if answer.status == 200 else 'error'), (index, answer)
            for hidden in (b'Traceback', b'File "', os.getcwd().encode(), b'/site-packages', b'etc/'):
                assert hidden not in answer.body, (index, answer)
            assert answer.headers['Content-Type'] == 'application/json' and 'Set-Cookie' not in answer.headers
            codes[answer.status] = codes.get(answer.status, 0) + 1
            if index % (count // 5) == count // 5 - 1:
                memory.append(resident())
        assert server.ask('GET', '/healthz').status == 200
        assert len(os.listdir('/proc/self/fd')) <= files + 3
        assert b'fer_jax_requests_in_progress 0.0' in server.ask('GET', '/metrics').body
    return codes, memory


def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def test_a_few_of_them():
    codes, _ = send(300, 1)
    assert codes.keys() == {200, 400, 413, 415, 422}
