"""Seed 002's table: six classes of FER2013 (no disgust), faces aligned, chosen on PublicTest, read on PrivateTest."""

from fer_jax.table import Table, TableRow

SHALLOW = 'configs/fer2013/shallow_cnn.py'
WIDER = 'configs/fer2013/wider_cnn.py'
RESNET = 'configs/fer2013/resnet34.py'
RESNET_CPU = 'configs/fer2013/resnet34_cpu.py'


def get_table():
    return Table(
        title='FER2013, six classes: seed 002 and ours',
        dataset='fer2013',
        prepare={'data/fer2013_aligned': ('--dataset=fer2013', '--align', '--align-size=48')},
        obtain='fer2013.csv, icml_face_data.csv, or the folder form, or a zip of one, as Kaggle hosts them',
        rows=[
            TableRow('shallow CNN single', SHALLOW, 'single', published=62.0, source='seed 002'),
            TableRow('shallow CNN ensemble of 9', SHALLOW, 'ensemble', published=63.7, source='seed 002'),
            TableRow('shallow CNN last 3 of each seed', SHALLOW, 'pooled', last=3),
            TableRow('shallow CNN last 9 of each seed', SHALLOW, 'pooled'),
            TableRow('wider CNN single', WIDER, 'single', published=63.6, source='seed 002'),
            TableRow('wider CNN ensemble of 9', WIDER, 'ensemble', published=65.9, source='seed 002'),
            TableRow('wider CNN last 3 of each seed', WIDER, 'pooled', last=3),
            TableRow('wider CNN last 9 of each seed', WIDER, 'pooled'),
            TableRow('ResNet-34 at 24 px for half an epoch', RESNET_CPU, 'single', seeds=(0,)),
            TableRow('ResNet-34 single', RESNET, 'single', source='seed 002 gives no number', wants_gpu=True),
        ],
    )
