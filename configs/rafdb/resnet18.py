"""A ResNet18 on RAF-DB's seven basic emotions, aligned faces of 100 pixels; meant for a GPU.

    python -m fer_jax.prepare --dataset=folder --source=PATH --output=data/rafdb

Not a published recipe, and not trained yet; the best published has 93.0 %, from networks pretrained on faces: for
those give --config.init_from=FILE, a state dict of resnet18 with torchvision's names, and a tenth of the rate.
RAF-DB has no validation split, so nothing is chosen: the last step is read.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/rafdb'
    config.data.size = 100
    config.data.channels = 3
    config.data.crop = 88

    config.model.name = 'resnet18'
    config.model.dtype = 'bfloat16'

    config.augment.flip = True
    config.augment.rotate = 10.0
    config.augment.zoom = 0.1
    config.augment.erase = 0.5

    config.train.batch_size = 128
    config.train.epochs = 60.0
    config.train.label_smoothing = 0.1
    config.train.ema = 0.998
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = 'cosine'
    config.schedule.warmup_epochs = 3.0

    config.evaluation.tta = 'flip'
    config.evaluation.splits = ('test',)
    return config
