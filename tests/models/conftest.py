"""What tests of models share."""

import jax
import pytest


@pytest.fixture
def alone(monkeypatch):
    """As with one device: these tests' process has eight."""
    monkeypatch.setattr(jax, 'device_count', lambda: 1)
    monkeypatch.setenv('FER_JAX_ONEDNN', '1')
