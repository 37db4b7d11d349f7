"""`python -m fer_jax.audit`: finds suspect labels of a training split, by one method or several.

    python -m fer_jax.audit --method=NAME[,NAME…] --config=FILE [--config.KEY=VALUE …] --output=DIR
        [--share=S | --threshold=T] [--pairs=DIR[,DIR…]] [--runs=DIR] [--folds=K] [--like=OTHER.csv]

The training split is the one that the configuration describes; no image of validation or test is judged, or has a
say, unless a judge chose the pairs that `ssim` is given by validation.
Of each method DIR/METHOD.csv (id, label, score, flag, suggested), which `config.data.exclude` takes, and figures are
written; of all of them audit.json and audit.md; and review.html, a page on which a person goes through the suspects of
the first one. What methods need is trained if it is missing, in DIR/runs or --runs; the same command goes on where it
stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax import cli, run_json, runtime
from fer_jax.audit_methods import METHODS, MOST_REVIEWED, OUT_OF_FOLD, Options, Subject, trained_for
from fer_jax.config import load_config
from fer_jax.data.change_files import changes_in_words
from fer_jax.errors import UserError
from fer_jax.evaluation import audit as methods
from fer_jax.evaluation.audit_files import write_audit_csv
from fer_jax.reports.audit import Suspects, write_audit_report
from fer_jax.reports.review import write_review_page
from fer_jax.training.stopping import Stopped


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and audits; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = cli.ArgumentParser(prog='fer_jax.audit', description=__doc__.splitlines()[0])
    parser.add_argument('--method', required=True, metavar='NAME[,NAME…]', help=', '.join(METHODS))
    parser.add_argument('--config', required=True, metavar='FILE[:ARG]', help='describes the training split')
    parser.add_argument('--output', required=True, metavar='DIR', help='where everything is written')
    parser.add_argument('--share', type=float, metavar='S', help='flag this share of the images, the highest scores')
    parser.add_argument('--threshold', type=float, metavar='T', help='flag the images of a score above T')
    parser.add_argument('--pairs', default='', metavar='DIR[,DIR…]', help='trained pairs, for ssim')
    parser.add_argument('--runs', default='', metavar='DIR', help='networks to go by, shared; default OUTPUT/runs')
    parser.add_argument('--folds', type=int, default=3, metavar='K', help='of the out-of-fold predictions; default 3')
    parser.add_argument('--like', default='', metavar='CSV', help='random: as many per class as this audit flagged')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of random')
    parser.add_argument('--review', type=int, default=MOST_REVIEWED, metavar='N', help='suspects on review.html')
    parser.add_argument('--config.KEY', metavar='VALUE', dest='_', help='changes one field, as --config.seed=1')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    names = flags.method.split(',')
    pairs = tuple(name for name in flags.pairs.split(',') if name)
    chosen = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Options)} | {'pairs': pairs}
    _check_flags(names, Options(**chosen))
    config = load_config(flags.config, [word for word in argv if word.startswith('--config.')])
    runtime.configure()
    try:
        print(audit(config, names, flags.output, Options(**chosen)))
    except Stopped as stopped:
        number, step = stopped.args
        print(f'stopped at step {step}; the checkpoint is written, the same command goes on from it', file=sys.stderr)
        return 128 + number
    return 0


def audit(config: ConfigDict, names: Sequence[str], output: str, options: Options) -> str:
    """Audits the training split of a configuration and writes what the module says.

    Returns:
        A table of what was flagged, in words.

    Raises:
        UserError: for anything in the configuration, the data, the flags or the directory that does not fit.
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written; the same call goes on.
    """
    subject = Subject(config, options, output)
    told = _description(subject, output)
    found = {}
    for line in changes_in_words(subject.dataset.manifest.get('changes', {})):
        print(line)
    for name in names:
        start = time.perf_counter() - trained_for(subject, name)
        said, scored_N = METHODS[name].judge(subject)
        if options.threshold is not None:
            said = dataclasses.replace(said, flags=said.scores > options.threshold)
        os.makedirs(output, exist_ok=True)
        ids, labels = subject.split.ids, subject.split.labels
        digest = write_audit_csv(f'{output}/{name}.csv', ids, labels, subject.dataset.class_names, said, scored_N)
        found[name] = Suspects(name, said, scored_N)
        trained = trained_for(subject, name)
        spent = {'seconds': time.perf_counter() - start - trained, 'training_seconds': trained}
        told['methods'][name] = _summary(subject, found[name], digest) | spent
        run_json.write_json(os.path.join(output, 'audit.json'), told)
    reviewed = _suspects_to_review(subject, found[names[0]])
    page = write_review_page(os.path.join(output, 'review.html'), **reviewed)
    return write_audit_report(output, told, found, subject.split, page)


def _check_flags(names: Sequence[str], options: Options) -> None:
    for name in names:
        if name not in METHODS:
            raise UserError(f'--method={name}: there is no such method; there are {", ".join(METHODS)}')
    if options.share is not None and options.threshold is not None:
        raise UserError('--share and --threshold both say what is flagged; give one')
    if options.share is not None and not 0 < options.share <= 1:
        raise UserError(f'--share={options.share}: a share of the images is wanted, such as 0.1')
    if options.threshold is not None and 'random' in names:
        raise UserError('--threshold means nothing to random; give --share or --like')
    if options.folds < 2:
        raise UserError(f'--folds={options.folds}: 2 or more are wanted, so that none predicts what it was trained on')
    if options.seed < 0:
        raise UserError(f'--seed={options.seed}: a whole number from 0 is wanted')
    if options.review < 1:
        raise UserError(f'--review={options.review}: a number of suspects is wanted, 1 or more')


def _description(subject: Subject, output: str) -> dict[str, Any]:
    """audit.json as it stands, or a new one.

    Raises:
        UserError: if the directory holds the audit of something else.
    """
    path = os.path.join(output, 'audit.json')
    told = run_json.describe(subject.config, subject.dataset, methods={})
    labels = np.char.add(np.char.add(subject.split.ids, '\t'), subject.split.labels.astype(str))
    told['labels_hash'] = hashlib.sha256('\n'.join(labels.tolist()).encode()).hexdigest()[:16]
    if os.path.exists(path):
        try:
            with open(path) as file:
                there = json.load(file)
            same, told['methods'] = there['labels_hash'] == told['labels_hash'], there['methods']
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{path} is not from an audit; choose another --output') from None
        if not same:
            raise UserError(f'{output} holds an audit of other images or labels; choose another --output')
    return told


def _summary(subject: Subject, suspects: Suspects, digest: str) -> dict[str, Any]:
    """What audit.json says of a method."""
    options, method, audit = subject.options, METHODS[suspects.method], suspects.audit
    labels_N, names = subject.split.labels[suspects.scored_N], subject.dataset.class_names
    rule, threshold = method.rule, method.threshold
    if options.threshold is not None:
        rule, threshold = f'its score is above {options.threshold}', options.threshold
    elif options.like and suspects.method == 'random':
        rule = f'it is drawn by lot, as many per class as {options.like} flags'
    elif options.share is not None:
        rule = f'its score is among the highest {100 * options.share:g} %'
        threshold = float(audit.scores[audit.flags].min()) if audit.flags.any() else None
    count = lambda chosen: {name: int((labels_N[chosen] == k).sum()) for k, name in enumerate(names)}
    told = {
        'file': f'{suspects.method}.csv',
        'sha256': digest,
        'rule': rule,
        'threshold': threshold,
        'images': len(subject.split),
        'scored': int(suspects.scored_N.sum()),
        'flagged': int(audit.flags.sum()),
        'not_scored_classes': [names[k] for k in np.unique(subject.split.labels[~suspects.scored_N])],
        'scored_per_class': count(slice(None)),
        'flagged_per_class': count(audit.flags),
        'detection': None,
    }
    if suspects.method in OUT_OF_FOLD:
        told['folds'] = {'count': options.folds, 'by': subject.fold_config.data.fold_by}
    if suspects.method == 'ssim':
        told['translated'] = subject.translations.described()
    true_N = subject.split.extra.get('true_label')
    if true_N is not None and (true_N != subject.split.labels).any():
        told['detection'] = methods.detection_scores(audit, labels_N, true_N[suspects.scored_N], names)
    return told


def _suspects_to_review(subject: Subject, suspects: Suspects) -> dict[str, Any]:
    """What the page shows of the flagged images with the highest scores, the most suspect first."""
    rows, split, names = suspects.flagged()[: subject.options.review], subject.split, subject.dataset.class_names
    images, translated = split.images[rows], [None] * len(rows)
    if subject.options.pairs:
        translated = subject.translations.translate(split, rows)
    shown = []
    for place, (row, score, suggested) in enumerate(zip(rows, *suspects.of(rows), strict=True)):
        shown.append(
            {
                'id': str(split.ids[row]),
                'label': names[split.labels[row]],
                'suggested': names[suggested] if suggested >= 0 else '',
                'score': float(score),
                'image': images[place],
                'translation': translated[place],
            }
        )
    return {
        'suspects': shown,
        'class_names': names,
        'dataset': subject.dataset.name,
        'method': suspects.method,
        'total': int(suspects.audit.flags.sum()),
    }


if __name__ == '__main__':
    cli.run(main)
