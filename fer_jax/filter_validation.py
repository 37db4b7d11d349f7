"""`python -m fer_jax.filter_validation`: which validation images seed 001 would have removed, to show what that does.

    python -m fer_jax.filter_validation --config=FILE[:ARG] --audit=DIR --pairs=DIR[,DIR…] --output=DIR

Judges the validation split as an audit by SSIM judged the training split, by the same pairs and the same threshold, and
writes OUTPUT/ssim.csv. No training and no evaluation takes this file: accuracy without the flagged images is shown
beside the honest one and marked (the field `filtered` of a table's row), since the seed's published number is of such
a set.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

from fer_jax import cli, evidence, experiment, runtime
from fer_jax.config import load_config
from fer_jax.errors import UserError
from fer_jax.evaluation.audit import similarity
from fer_jax.evaluation.audit_files import write_audit_csv


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and filters; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.filter_validation', description=__doc__.splitlines()[0])
    parser.add_argument('--config', required=True, metavar='FILE[:ARG]', help='describes the data')
    parser.add_argument('--audit', required=True, metavar='DIR', help='of training by ssim, whose threshold is taken')
    parser.add_argument('--pairs', required=True, metavar='DIR[,DIR…]', help='trained pairs')
    parser.add_argument('--output', required=True, metavar='DIR', help='where the CSV goes')
    parser.add_argument('--config.KEY', metavar='VALUE', dest='_', help='changes one field, as --config.seed=1')
    words = sys.argv[1:] if argv is None else argv
    flags = parser.parse_args([word for word in words if not word.startswith('--config.')])
    config = load_config(flags.config, [word for word in words if word.startswith('--config.')])
    threshold, translated = _judged(flags.audit)
    runtime.configure()
    dataset = experiment.load_data(config)
    if 'validation' not in dataset.splits:
        raise UserError(f'{dataset.name} has no validation split to filter')
    split = dataset.splits['validation']
    translations = evidence.Translations(flags.pairs.split(','), dataset.class_names)
    ways = lambda told: {name: (of['target'], of['step']) for name, of in told.items()}
    if translated and ways(translated) != ways(translations.described()):
        raise UserError(
            f'{flags.audit} judged by other pairs, or other checkpoints of them, than {flags.pairs} has now'
        )
    ssim_N, scored_N = translations.similarities(split)
    found = similarity(ssim_N[scored_N], threshold=np.nextafter(threshold, -np.inf))
    os.makedirs(flags.output, exist_ok=True)
    path = os.path.join(flags.output, 'ssim.csv')
    write_audit_csv(path, split.ids, split.labels, dataset.class_names, found, scored_N)
    count = int(found.flags.sum())
    print(f'{path}: {count:,} of {len(split):,} validation images have an SSIM of {threshold:.4f} or more')
    return 0


def _judged(directory: str) -> tuple[float, dict[str, dict[str, Any]]]:
    """The score from which on the audit flagged, and by what it translated; {} of audits that do not say it."""
    path = os.path.join(directory, 'audit.json')
    try:
        with open(path) as file:
            told = json.load(file)['methods']['ssim']
        threshold = told['threshold']
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f'{path} tells of no audit by ssim; run fer_jax.audit --method=ssim first') from None
    if threshold is None:
        raise UserError(f'{path}: the audit flags nothing, so that it has no threshold')
    return float(threshold), told.get('translated', {})


if __name__ == '__main__':
    cli.run(main)
