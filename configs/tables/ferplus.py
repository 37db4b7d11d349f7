"""FER+, majority labels of eight emotions: the best published and ours."""

from fer_jax.table import Table, TableRow

RESNET = 'configs/ferplus/resnet18.py'
BEST = 'best published'


def get_table():
    return Table(
        title='FER+, majority labels, eight emotions',
        dataset='ferplus',
        obtain="""
            one folder with fer2013.csv (or icml_face_data.csv), as Kaggle hosts it, and fer2013new.csv, the votes,
            from https://github.com/microsoft/FERPlus
        """,
        place='data/sources/ferplus',
        rows=[
            TableRow('ResNet-18 on votes', RESNET, 'single', published=92.0, source=BEST),
            TableRow(
                'ResNet-18 on majority labels',
                RESNET,
                'single',
                overrides={'data.soft_labels': False, 'train.label_smoothing': 0.1},
                published=92.0,
                source=BEST,
            ),
        ],
        notes="""
            Trained on the Training rows, chosen on PublicTest, read on PrivateTest; from random weights. FER+ drops
            images without a majority, and so do we.
        """,
    )
