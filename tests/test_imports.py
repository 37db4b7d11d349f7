"""Commands start without what only some of their work needs and takes long to import."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LATER = {'matplotlib', 'torch', 'tensorflow_datasets', 'orbax.checkpoint', 'scipy.stats', 'scipy.optimize', 'grain'}
COMMANDS = ('train', 'evaluate', 'predict', 'serve', 'translate', 'audit', 'report', 'reproduce', 'prepare')


def test_what_takes_long_is_imported_when_it_is_used():
    lines = ['import json, sys', 'from fer_jax.training import record']
    lines += [f'import fer_jax.{name}' for name in COMMANDS]
    lines += ['record._tensorboard()', 'print(json.dumps(sorted(sys.modules)))']
    told = subprocess.run(
        [sys.executable, '-c', '\n'.join(lines)],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(json.loads(told.stdout.splitlines()[-1]))
    assert {'jax', 'tensorboardX', 'fer_jax.audit'} <= modules
    assert not LATER & modules
