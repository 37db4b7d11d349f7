"""The network in the box: seven classes of FER2013, aligned, small enough for two CPU cores."""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013_aligned'  # prepare --align --align-size=48 --output=data/fer2013_aligned
    config.data.normalize = 'image'
    config.data.crop = 40

    config.model.name = 'resnet10'

    config.augment.flip = True
    config.augment.shift = 0.04
    config.augment.rotate = 10.0
    config.augment.zoom = 0.12
    config.augment.erase = 0.3
    config.augment.erase_area = 0.15

    config.train.batch_size = 128
    config.train.epochs = 22.0
    config.train.label_smoothing = 0.1
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.name = 'cosine'
    config.schedule.warmup_epochs = 0.5

    config.evaluation.tta = 'flip'
    config.checkpoint.keep_last = 3
    return config
