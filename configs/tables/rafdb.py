"""RAF-DB, seven basic emotions: the best published and ours."""

from fer_jax.table import Table, TableRow


def get_table():
    return Table(
        title='RAF-DB, seven basic emotions',
        dataset='rafdb',
        obtain="""
            RAF-DB (Li et al. 2017), granted on request at http://www.whdeng.cn/RAF/model1.html: the aligned images
            of the seven basic emotions, one folder per class under train/ (12271) and test/ (3068); the folders may
            be called by the emotions or, as Kaggle has them, 1 to 7
        """,
        place='data/sources/rafdb',
        prepare={'data/rafdb': ('--dataset=folder',)},
        rows=[
            TableRow(
                'ResNet-18',
                'configs/rafdb/resnet18.py',
                'single',
                published=93.0,
                source='best published',
            )
        ],
        notes="""
            RAF-DB has no validation split: ours trains on all of train, chooses nothing, and reads the last step on
            test once. It starts from random weights.
        """,
    )
