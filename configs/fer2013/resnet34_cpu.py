"""The 34-layer residual network in 25 minutes of one CPU core: 24 pixels, half an epoch. A GPU takes resnet34.py."""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013_aligned'  # prepare --align --align-size=48 --output=data/fer2013_aligned
    config.data.size = 24
    config.data.drop = ('disgust',)
    config.data.normalize = 'image'

    config.model.name = 'resnet34'

    config.augment.flip = True
    config.augment.shift = 0.03
    config.augment.rotate = 8.0
    config.augment.zoom = 0.1

    config.train.batch_size = 128
    config.train.epochs = 0.5
    config.train.label_smoothing = 0.1
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.name = 'cosine'

    config.evaluation.tta = 'flip'
    config.checkpoint.every_steps = 20
    return config
