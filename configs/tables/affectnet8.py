"""AffectNet, eight emotions: seeds 001 and 004, and the best published."""

from fer_jax.table import Table, TableRow

CNN = 'configs/affectnet/affectnet_cnn.py'
BASELINE = 'configs/affectnet/baseline_cnn.py'
RESNET = 'configs/affectnet/resnet18.py'

# AffectNet has no public test split, so the published validation set is the test, and nothing is chosen on it: 250
# training images of each class are held out to choose on (the published set is balanced too).
HELD_OUT = {'data.resplit': '250', 'data.fold_by': 'image'}
# Seed 004 cuts the training part and never reads the validation part.
OF_TRAIN = {'data.name': 'data/affectnet', 'data.resplit': '.8,.1,.1', 'data.fold_by': 'image'}

BEST = 'best published, chosen on the validation set that it is read on'
SEED_001 = 'seed 001, chosen on the validation set that it is read on'


def get_table():
    return Table(
        title='AffectNet, eight emotions',
        dataset='affectnet',
        obtain="""
            AffectNet (Mollahosseini et al. 2017), granted on request at http://mohammadmahoor.com/affectnet/: the
            eight-emotion release (train_set/ and val_set/, each with images/ and annotations/), the original
            release (training.csv and validation.csv beside the pictures), or one folder per emotion under train/
            and val/
        """,
        place='data/sources/affectnet',
        rows=[
            TableRow(
                'CNN of seed 001 at 64 px',
                CNN,
                'single',
                overrides=HELD_OUT,
                published=61.9,
                source=f'{SEED_001}; filtered images and 18000 generated ones',
            ),
            TableRow(
                'CNN of seed 001 at 64 px (published protocol)',
                CNN,
                'single',
                split='validation',
                published=61.9,
                source=f'{SEED_001}; filtered images and 18000 generated ones',
            ),
            TableRow(
                'CNN of seed 001 at 128 px',
                f'{CNN}:128',
                'single',
                overrides=HELD_OUT,
                published=57.8,
                source=f'{SEED_001}; 60.8 filtered; 62.2 with generated images too',
            ),
            TableRow(
                'CNN of seed 001 at 128 px (published protocol)',
                f'{CNN}:128',
                'single',
                split='validation',
                published=57.8,
                source=f'{SEED_001}; 60.8 filtered; 62.2 with generated images too',
            ),
            TableRow(
                'baseline of seed 004 on a tenth of train',
                BASELINE,
                'single',
                overrides=OF_TRAIN,
                published=70.0,
                source='seed 004, about, on its own 80/10/10 split of train, as unbalanced as train is',
            ),
            TableRow(
                'baseline of seed 004',
                BASELINE,
                'single',
                overrides={'data.name': 'data/affectnet', **HELD_OUT},
                source='seed 004 never read the published validation set',
            ),
            TableRow('ResNet-18', RESNET, 'single', overrides=HELD_OUT, published=65.04, source=BEST),
            TableRow(
                'ResNet-18 (published protocol)', RESNET, 'single', split='validation', published=65.04, source=BEST
            ),
        ],
        notes="""
            AffectNet has no public test split. Rows on test choose step and rate on 250 training images of each
            class, held out, and read the published validation set (500 of each class) once. Rows called "published
            protocol" choose on the very set that they are read on, as all published numbers do: such a number is a
            best case. Seed 001 also filtered its validation set, by 35 %; no image is left out of ours. Seed 004 is
            measured on a tenth of train, of which nearly half is happiness: its row is not comparable with the
            others.
        """,
    )
