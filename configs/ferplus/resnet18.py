"""A ResNet18 on FER+, aiming at the ten annotators' votes instead of their majority; meant for a GPU.

Not a published recipe, and not trained yet; the best published has 92.0 % of the majority labels of eight classes.
Majority labels in training too: --config.data.soft_labels=false.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/ferplus'
    config.data.soft_labels = True
    config.data.normalize = 'image'
    config.data.crop = 44

    config.model.name = 'resnet18'
    config.model.dtype = 'bfloat16'

    config.augment.flip = True
    config.augment.shift = 0.1
    config.augment.rotate = 15.0
    config.augment.zoom = 0.15
    config.augment.erase = 0.5

    config.train.batch_size = 128
    config.train.epochs = 100.0
    config.train.mixup = 0.2
    config.train.ema = 0.998
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = 'cosine'
    config.schedule.warmup_epochs = 3.0

    config.evaluation.tta = 'ten_crop'
    config.evaluation.last = 0  # the best step by validation
    return config
