"""The study of seed 001's claim: does leaving out what a CycleGAN hardly changes help, and do its images?

    python -m fer_jax.reproduce --table=configs/tables/gan_study.py                 FER2013 at 64 pixels, on a GPU
    python -m fer_jax.reproduce --table=configs/tables/gan_study.py:fer2013_brief   the same in minutes of one
    python -m fer_jax.reproduce --table=configs/tables/gan_study.py:affectnet       the seed's own, on a GPU
    python -m fer_jax.reproduce --table=configs/tables/gan_study.py:synthetic       drawn faces, wrong labels put in

Every arm trains one recogniser by one recipe and differs from arm (a) in `data.exclude` and `data.extra` alone; all
are chosen on the same validation images and read on the same test images, none of which ever goes. On a GPU pairs,
audits and translations are made anew for each seed, so that intervals hold what these add; on drawn faces and in the
brief one all seeds share the pairs and with them the audit by SSIM. With --at-once=8 as many processes train at a time.
"""

import dataclasses

from fer_jax.config import choose
from fer_jax.table import Table, TableRow, TableStep

METHODS = ('confident_learning', 'self_confidence', 'margin', 'aum')
CONFIGS = 'configs/gan_study'
FER2013 = 'fer2013.csv, icml_face_data.csv, or the folder form, or a zip of one, as Kaggle hosts them'

ALL = '(a) all'
LESS, RANDOM = '(b) without flagged', "(b') without as many at random"
GENERATED, COPIES = '(c) without flagged plus generated', "(c') without flagged plus copies"


@dataclasses.dataclass(frozen=True)
class Study:
    """What differs between data sets.

    Attributes:
        title, dataset, obtain: of the table.
        share: of the training images, that every audit flags; of validation too, where it is filtered.
        generated, to, sources: how many images are added, which emotions they show, which they are made from.
        notes: on the data.
        wants_gpu: see TableRow.
        pairs_per_seed: whether pairs are trained for every seed, or once.
        folds: of the out-of-fold predictions.
        methods: of (d).
        audits: flags of what the audits of (d) train, which goes by the training images alone: a recipe that lowers its
            rate by validation, or stops by it, has a fixed length and schedule there.
    """

    title: str
    dataset: str
    obtain: str
    share: float
    generated: int
    to: str
    sources: str
    notes: str
    wants_gpu: bool = True
    pairs_per_seed: bool = True
    folds: int = 5
    methods: tuple[str, ...] = METHODS
    audits: tuple[str, ...] = ()
    place: str = ''


def fixed(steps):
    return ('--config.schedule.name=cosine', f'--config.train.steps={steps}')


STUDIES = {
    'fer2013': Study(
        title='FER2013 at 64 pixels',
        dataset='fer2013',
        obtain=FER2013,
        share=0.2,
        generated=18_000,
        to='anger,disgust,fear,sadness,surprise',
        sources='happiness,neutral',
        audits=fixed(40 * 449),
        notes="""
            What share of its labels is wrong nobody knows; every audit flags a fifth. Pairs, audits and translations
            are each seed's own.
        """,
    ),
    'fer2013_brief': Study(
        title='FER2013 at 64 pixels, in minutes of one GPU',
        dataset='fer2013',
        obtain=FER2013,
        share=0.2,
        generated=6_000,
        to='anger,disgust,fear,sadness,surprise',
        sources='happiness,neutral',
        methods=(*METHODS, 'consensus'),
        notes="""
            What share of its labels is wrong nobody knows; every audit flags a fifth. A small network, and pairs that
            are trained for a minute each; all seeds share these and the audits by SSIM, all else is each seed's own.
        """,
        pairs_per_seed=False,
        folds=2,
    ),
    'affectnet': Study(
        title='AffectNet, eight emotions, at 64 pixels',
        dataset='affectnet',
        obtain="""
            AffectNet (Mollahosseini et al. 2017), granted on request at http://mohammadmahoor.com/affectnet/: the
            eight-emotion release (train_set/ and val_set/, each with images/ and annotations/)
        """,
        place='data/sources/affectnet',
        share=0.35,
        generated=18_000,
        to='anger,contempt,disgust,fear,sadness,surprise',
        sources='happiness,neutral',
        audits=fixed(40 * 4463),
        notes="""
            Every audit flags 35 %, as the filter of seed 001 did. Test is the published validation set. Pairs, audits
            and translations are each seed's own.
        """,
    ),
    'synthetic': Study(
        title='drawn faces at 32 pixels, four emotions, a fifth of the training labels wrong',
        dataset='synthetic',
        obtain='nothing: the faces are drawn',
        share=0.2,
        generated=600,
        to='happiness,neutral,sadness,surprise',
        sources='happiness,neutral,sadness,surprise',
        notes="""
            Every audit flags as many as labels are wrong. All seeds share the pairs and the audits by SSIM; all else
            is each seed's own.
        """,
        wants_gpu=False,
        pairs_per_seed=False,
        folds=4,
    ),
}


def get_table(data='fer2013'):
    study = choose(data, STUDIES)
    return Table(
        title=f'The study: {study.title}',
        dataset=study.dataset,
        obtain=study.obtain,
        place=study.place,
        steps=steps(data, study),
        rows=rows(data, study),
        notes=f"""
            Effects are differences to arm (a) under the same seed, paired; intervals are of their mean over seeds.
            Generated images and copies are as many and of the same emotions. {study.notes}
        """,
    )


def steps(data, study):
    config = f'--config={CONFIGS}/recogniser.py:{data}'
    audit = ('fer_jax.audit', config, '--config.seed={seed}', '--review=100', '--output={here}')
    share = f'--share={study.share}'
    sizes = {'width': 4, 'blocks': 1, 'discriminator_width': 4, 'discriminator_layers': 2}
    small = tuple(f'--config.cyclegan.{name}={size}' for name, size in sizes.items())
    return [
        TableStep(
            'pairs',
            ('fer_jax.train', f'--config={CONFIGS}/pairs.py:{data}', '--config.seed={seed}', '--workdir={here}'),
            per_seed=study.pairs_per_seed,
            rehearsal=small,
        ),
        TableStep('ssim', (*audit, '--method=ssim', '--pairs={pairs}', share), study.pairs_per_seed),
        TableStep(
            'seeds_ssim',
            (*audit, '--method=ssim', '--pairs={pairs}', '--threshold=0.85'),
            study.pairs_per_seed,
            rehearsal=('--threshold=2',),  # hardly trained pairs change so little that .85 would leave no image
        ),
        TableStep('random', (*audit, '--method=random', '--like={ssim}/ssim.csv', '--seed={seed}'), per_seed=True),
        TableStep(
            'audits',
            (*audit, f'--method={",".join(study.methods)}', f'--folds={study.folds}', share, *study.audits),
            per_seed=True,
            rehearsal=('--folds=3',),
        ),
        TableStep(
            'generated',
            (
                'fer_jax.translate',
                '--run={pairs}',
                f'--from={study.sources}',
                f'--to={study.to}',
                f'--count={study.generated}',
                '--exclude={ssim}/ssim.csv',
                '--seed={seed}',
                '--output={here}',
            ),
            per_seed=True,
            rehearsal=('--count=12',),
        ),
        TableStep(
            'copies',
            (
                'fer_jax.translate',
                '--copies-of={generated}/translations.csv',
                '--exclude={ssim}/ssim.csv',
                '--seed={seed}',
                '--output={here}',
            ),
            per_seed=True,
        ),
        TableStep(
            'filtered',
            ('fer_jax.filter_validation', config, '--audit={ssim}', '--pairs={pairs}', '--output={here}'),
            per_seed=study.pairs_per_seed,
        ),
    ]


def rows(data, study):
    without = {'data.exclude': '{ssim}/ssim.csv'}
    arms = [
        (ALL, (), {}),
        (LESS, (ALL, RANDOM), without),
        (RANDOM, (ALL,), {'data.exclude': '{random}/random.csv'}),
        (GENERATED, (ALL, COPIES), {**without, 'data.extra': '{generated}/translations.csv'}),
        (COPIES, (ALL,), {**without, 'data.extra': '{copies}/translations.csv'}),
        ('without flagged by SSIM over 0.85', (ALL,), {'data.exclude': '{seeds_ssim}/ssim.csv'}),
        *((f'(d) {method}', (ALL, LESS), {'data.exclude': f'{{audits}}/{method}.csv'}) for method in study.methods),
    ]
    return [
        TableRow(
            name,
            f'{CONFIGS}/recogniser.py:{data}',
            'single',
            overrides=overrides,
            baselines=baselines,
            filtered='{filtered}/ssim.csv',
            wants_gpu=study.wants_gpu,
        )
        for name, baselines, overrides in arms
    ]
