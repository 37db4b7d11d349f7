"""A ResNet18 on AffectNet at 112 pixels; meant for a GPU.

Not a published recipe, and not trained yet. The best published (65.04 % of eight classes, 67.94 of seven) start from
networks pretrained on faces or ImageNet: give --config.init_from=FILE, a state dict of resnet18 with torchvision's
names, and a tenth of the rate. Seven classes: --config.data.drop=contempt.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/affectnet'
    config.data.size = 112
    config.data.channels = 3
    config.data.crop = 100

    config.model.name = 'resnet18'
    config.model.dtype = 'bfloat16'

    config.augment.flip = True
    config.augment.rotate = 10.0
    config.augment.zoom = 0.1
    config.augment.erase = 0.5

    config.train.batch_size = 256
    config.train.epochs = 30.0
    config.train.class_weights = 'balanced'  # validation has 500 of each class
    config.train.label_smoothing = 0.1
    config.train.ema = 0.999
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = 'cosine'
    config.schedule.warmup_epochs = 2.0

    config.evaluation.tta = 'flip'
    config.evaluation.last = 0  # the best step by validation
    return config
