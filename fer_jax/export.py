"""`python -m fer_jax.export`: the classifier of one run or of several as one file, for use without this project.

    python -m fer_jax.export [--run=DIR[,DIR…]] [--last=N] [--tta=flip] [--format=onnx|stablehlo] --output=FILE

What is written is tried against the JAX networks before it takes its name. What lies in the files: docs/export.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from fer_jax import cli, exported, onnx_files, runtime, zoo
from fer_jax.data.files import printable
from fer_jax.errors import UserError
from fer_jax.packed import SUFFIX

_PLATFORMS = ('cpu', 'cuda', 'tpu')


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and writes the file; see the module."""
    flags = _parser().parse_args(argv)
    if flags.run is not None and not all(flags.run.split(',')):
        raise UserError(f'--run={flags.run}: there is an empty name between the commas')
    if flags.format == 'onnx':
        onnx_files.check_packages()
    output = _output(flags)
    runtime.configure()
    classifier = exported.load_classifier(flags.run.split(',') if flags.run else (), flags.last, flags.tta)
    difference = write(classifier, flags.format, output)
    members, size = len(classifier.description['members']), output.stat().st_size
    print(f'{printable(output)}: {members} member{"s" * (members > 1)}, {size / 1e6:.1f} MB, {flags.format}')
    print(f'tried on batches of 1, 2 and 7: differs from the JAX networks by {difference:.1e} at most')
    return 0


def write(classifier: exported.Classifier, form: str, output: Path) -> float:
    """Writes the file and returns its largest difference from the JAX networks; beside it `.json`, of stablehlo.

    Raises:
        UserError: if it differs by more than 1e-4; then nothing is written.
    """
    content, open_file = _FORMATS[form](classifier)
    aside = output.with_name(output.name + '.partial')
    try:
        aside.write_bytes(content)
        difference = exported.largest_difference(classifier, open_file(aside))
        if not difference <= exported.CLOSE:
            raise UserError(f'the file differs from the JAX networks by {difference:.1e}; it was not written')
        if form == 'stablehlo':
            text = json.dumps(classifier.description, indent=1, ensure_ascii=False) + '\n'
            output.with_name(output.name + '.json').write_text(text, encoding='utf-8')
        os.replace(aside, output)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
    return difference


def _onnx(classifier: exported.Classifier) -> tuple[bytes, Callable]:
    names = exported.INPUT, exported.OUTPUTS
    content = onnx_files.to_onnx(classifier.read, ('N', *classifier.shape), names, classifier.description)
    return content, lambda path: onnx_files.open_onnx(str(path))


def _stablehlo(classifier: exported.Classifier) -> tuple[bytes, Callable]:
    sizes = jax.export.symbolic_shape(', '.join(map(str, ('N', *classifier.shape))))
    export = jax.export.export(jax.jit(classifier.read), platforms=_PLATFORMS)
    content = export(jax.ShapeDtypeStruct(sizes, np.uint8)).serialize()
    return bytes(content), lambda path: jax.export.deserialize(bytearray(path.read_bytes())).call


_FORMATS = {'onnx': _onnx, 'stablehlo': _stablehlo}


def _output(flags: argparse.Namespace) -> Path:
    """The file that is to be written; in a directory it gets the first run's name."""
    output = Path(flags.output)
    if output.is_dir() or flags.output.endswith(os.sep):
        first = (flags.run or zoo.DEFAULT).split(',')[0]
        output = output / f'{Path(os.path.abspath(first)).name.removesuffix(SUFFIX)}.{flags.format}'
    if output.exists() and not flags.overwrite:
        raise UserError(f'{printable(output)} is there; choose another --output or give --overwrite')
    output.parent.mkdir(parents=True, exist_ok=True)
    return output


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(prog='python -m fer_jax.export', description='A classifier as one file.')
    add = parser.add_argument
    add('--run', metavar='DIR[,DIR…]', help='workdirs of training runs or packed models, averaged (default: our own)')
    add('--last', type=int, default=0, metavar='N', help="each run's last N members; default: its best")
    add(
        '--tta',
        choices=exported.VIEWS,
        help='mirror images, inside the file (default: as a packed model was scored, or none)',
    )
    add('--format', default='onnx', choices=tuple(_FORMATS), help='of the file (onnx)')
    add('--output', required=True, metavar='FILE', help='the file, or a directory for it')
    add('--overwrite', action='store_true', help='replace a file that is there')
    return parser


if __name__ == '__main__':
    cli.run(main)
