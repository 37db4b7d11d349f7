"""No arrow runs backward: configs -> data -> models -> training -> evaluation -> reports -> apps -> commands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'fer_jax'
COMMON = ('fer_jax.errors', 'fer_jax.draws')  # which import nothing of the package
PROCESSES = 'fer_jax.distributed'
SCORING = tuple(
    f'fer_jax.evaluation.{name}'
    for name in ('predictions', 'scores', 'temperature', 'folds', 'paired', 'mistakes', 'audit', 'audit_files')
)

# Of the modules directly in fer_jax/, what a task needs to build its part of the train command.
SHARED = tuple(
    f'{PACKAGE}.{name}'
    for name in (
        'config',
        'evaluate',
        'experiment',
        'judges',
        'members',
        'pretrained',
        'run_json',
        'teachers',
        'translators',
    )
)

# What the modules under a name may import from the package. The longest matching name counts.
# Modules directly in fer_jax/ are commands and what commands share: they import from anywhere.
ALLOWED = {
    'configs': ('fer_jax.config', 'fer_jax.table'),
    **dict.fromkeys(COMMON, ()),
    'fer_jax.zoo': (),
    'fer_jax.data': ('fer_jax.data',),
    'fer_jax.models': ('fer_jax.models',),
    'fer_jax.faces': ('fer_jax.faces', 'fer_jax.data'),
    PROCESSES: ('fer_jax.peers', 'fer_jax.clusters'),
    'fer_jax.peers': ('fer_jax.clusters',),
    'fer_jax.clusters': (),
    'fer_jax.training': ('fer_jax.training', 'fer_jax.models', 'fer_jax.data', PROCESSES),
    'fer_jax.evaluation': ('fer_jax.evaluation', 'fer_jax.training', 'fer_jax.models', 'fer_jax.data', PROCESSES),
    **dict.fromkeys(SCORING, (*SCORING, 'fer_jax.data.dataset')),
    'fer_jax.reports': ('fer_jax.reports', *SCORING, 'fer_jax.data.dataset'),
    'fer_jax.tasks': (
        'fer_jax.tasks',
        'fer_jax.reports',
        'fer_jax.evaluation',
        'fer_jax.training',
        'fer_jax.models',
        'fer_jax.data',
        PROCESSES,
        *SHARED,
    ),
    'fer_jax.apps': (
        'fer_jax.apps',
        'fer_jax.faces',
        'fer_jax.reports',
        'fer_jax.evaluation',
        'fer_jax.training',
        'fer_jax.models',
        'fer_jax.data',
    ),
}
# Libraries that must not be imported, by the modules that must not. Orbax has one door for the whole package.
WITHOUT = dict.fromkeys((*SCORING, 'fer_jax.reports'), ('jax', 'flax', 'optax', 'orbax'))
ONLY_DOOR = {'orbax': 'fer_jax.training.checkpoints'}


def lies_under(module, name):
    return module == name or module.startswith(name + '.')


def module_name(path, root):
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(path, root, modules):
    """(line, imported module) of every import in the file, those inside functions and conditions included."""
    package = module_name(path, root).split('.')
    if path.name != '__init__.py':
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = '.'.join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f'{source}.{alias.name}'
                yield node.lineno, inner if inner in modules else source


def backward_arrows(root):
    """One message per import that is not allowed: file, line and the arrow."""
    files = sorted([*root.glob(f'{PACKAGE}/**/*.py'), *root.glob('configs/**/*.py')])
    modules = {module_name(path, root) for path in files}
    found = []
    for path in files:
        module = module_name(path, root)
        for line, target in imports(path, root, modules):
            reason = refusal(module, target)
            if reason:
                found.append(f'{path.relative_to(root)}:{line}: {module} -> {target}: {reason}')
    return found


def refusal(module, target):
    """Why `module` may not import `target`, or None if it may."""
    library = target.split('.')[0]
    if library in ONLY_DOOR and module != ONLY_DOOR[library]:
        return f'only {ONLY_DOOR[library]} imports {library}'
    for name, libraries in WITHOUT.items():
        if lies_under(module, name) and library in libraries:
            return f'{name} is made from files on disk and does without {library}'
    rooms = [name for name in ALLOWED if lies_under(module, name)]
    if library != PACKAGE or target in (PACKAGE, *COMMON) or not rooms:
        return None
    room = max(rooms, key=len)
    if any(lies_under(target, name) for name in ALLOWED[room]):
        return None
    return f'{room} may import only {", ".join((*ALLOWED[room], *COMMON))}'


def test_no_arrow_runs_backward():
    found = backward_arrows(ROOT)
    assert not found, 'imports that run backward:\n' + '\n'.join(found)


def test_every_room_has_its_rule():
    rooms = {f'{PACKAGE}.{path.parent.name}' for path in ROOT.glob(f'{PACKAGE}/*/__init__.py')}
    assert rooms, 'no rooms found'
    assert not rooms - set(ALLOWED), 'rooms without a rule in ALLOWED'


@pytest.mark.parametrize(
    ('file', 'source', 'message'),
    [
        (
            'data/a.py',
            'import os\nfrom fer_jax.models import b',
            'fer_jax/data/a.py:2: fer_jax.data.a -> fer_jax.models',
        ),
        ('data/a.py', 'from .. import training', 'fer_jax.data.a -> fer_jax.training'),
        ('models/a.py', 'def f():\n    import fer_jax.data.b', 'models/a.py:2: fer_jax.models.a -> fer_jax.data.b'),
        ('models/a.py', 'from fer_jax.train import main', 'fer_jax.models.a -> fer_jax.train'),
        ('training/a.py', 'from ..evaluation.scores import b', 'fer_jax.training.a -> fer_jax.evaluation.scores'),
        ('training/a.py', 'import orbax.checkpoint', 'only fer_jax.training.checkpoints imports orbax'),
        ('train.py', 'from orbax import checkpoint', 'fer_jax/train.py:1: fer_jax.train -> orbax'),
        ('evaluation/scores.py', 'import jax.numpy as jnp', 'does without jax'),
        ('evaluation/scores.py', 'from fer_jax.data import records', 'fer_jax.evaluation.scores -> fer_jax.data'),
        ('reports/a.py', 'from fer_jax.evaluation import inference', '-> fer_jax.evaluation.inference'),
        ('reports/a.py', 'from flax import linen', 'does without flax'),
        ('../configs/a.py', 'from fer_jax.models import b', 'configs/a.py:1: configs.a -> fer_jax.models'),
    ],
)
def test_a_backward_arrow_is_named(tmp_path, file, source, message):
    make_package(tmp_path, {file: source})
    (found,) = backward_arrows(tmp_path)
    assert message in found


def test_forward_arrows_pass(tmp_path):
    make_package(
        tmp_path,
        {
            'data/a.py': 'import fer_jax\nfrom fer_jax.data import b\nfrom fer_jax.errors import UserError',
            'training/checkpoints.py': 'import orbax.checkpoint\nfrom fer_jax.models import b',
            'evaluation/inference.py': 'import jax\nfrom fer_jax.training.checkpoints import c\nfrom . import scores',
            'reports/a.py': 'from fer_jax.evaluation import scores\nfrom fer_jax.data.dataset import EMOTIONS',
            '../configs/a.py': 'from fer_jax.config import default_config',
            'config.py': 'import ml_collections',
            'train.py': 'from fer_jax import data, reports\nfrom fer_jax.training import checkpoints',
        },
    )
    assert backward_arrows(tmp_path) == []


def make_package(root, files):
    names = [f'{room}/__init__.py' for room in ('data', 'models', 'training', 'evaluation', 'reports')]
    names += [
        '__init__.py',
        'data/dataset.py',
        'evaluation/scores.py',
        'evaluation/inference.py',
        '../configs/__init__.py',
    ]
    for name, source in (dict.fromkeys(names, '') | files).items():
        path = (root / PACKAGE / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def test_reports_are_made_without_jax():
    code = (
        'import sys, fer_jax.reports.report, fer_jax.reports.tables, fer_jax.reports.page.document; '
        'print(sorted({"jax", "flax", "orbax", "matplotlib.pyplot"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, '[]'), done.stderr
