"""Benchmarks as modules: they are commands of their own and in no package."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def load_benchmark(name, monkeypatch):
    """benchmarks/NAME.py, with the repository as the working directory, as it is called."""
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location(f'benchmark_of_{name}', f'benchmarks/{name}.py')
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module
