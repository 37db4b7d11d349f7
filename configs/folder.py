"""Your own pictures, one folder per class: a network and a recipe (ours) that two CPU cores train in minutes.

    python -m fer_jax.prepare --dataset=folder --source=PATH           # --align cuts out and straightens faces
    launch/train.sh configs/folder.py

With a GPU a larger network is better: --config.model.name=resnet18, or, from other pictures' weights,
--config.init_from=RUN or FILE. Few pictures: more epochs. Classes: --config.data.drop=A,B --config.data.rename=A=B.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/folder'
    config.data.size = 48
    config.data.channels = 1
    config.data.normalize = 'image'

    config.model.name = 'wider_cnn'

    config.augment.flip = True
    config.augment.shift = 0.08
    config.augment.rotate = 10.0
    config.augment.zoom = 0.12

    config.train.batch_size = 64
    config.train.epochs = 30.0
    config.train.class_weights = 'balanced'
    config.train.label_smoothing = 0.1
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.1
    config.schedule.name = 'cosine'

    config.evaluation.tta = 'flip'
    return config
