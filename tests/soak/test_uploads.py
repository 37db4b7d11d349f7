"""What tests/apps/web/test_mutated_uploads.py does a few times, 5,000 times."""

import os

import pytest

from tests.apps.web.test_mutated_uploads import send

pytestmark = pytest.mark.soak


def test_five_thousand_mutated_uploads():
    """The seed is new each time, and told. Memory: the last four fifths may add 64 MB, two large pictures' worth."""
    seed = int.from_bytes(os.urandom(4))
    print(f'seed {seed}')
    codes, memory = send(max(100, round(5000 * float(os.environ.get('FER_JAX_SOAK', '1')))), seed)
    print(f'codes {codes}, memory in MB {[round(size / 1e6) for size in memory]}')
    assert memory[-1] - memory[0] < 64e6
