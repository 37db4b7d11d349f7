"""The 34-layer residual network of seed 002 on six classes of FER2013; meant for a GPU."""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013_aligned'  # prepare --align --align-size=48 --output=data/fer2013_aligned
    config.data.drop = ('disgust',)
    config.data.normalize = 'image'

    config.model.name = 'resnet34'
    config.model.dtype = 'bfloat16'

    config.augment.flip = True
    config.augment.shift = 0.1
    config.augment.rotate = 15.0
    config.augment.zoom = 0.15
    config.augment.erase = 0.5

    config.train.batch_size = 128
    config.train.epochs = 80.0
    config.train.label_smoothing = 0.1
    config.train.mixup = 0.2
    config.train.ema = 0.998
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = 'cosine'
    config.schedule.warmup_epochs = 3.0

    config.evaluation.tta = 'flip'
    return config
