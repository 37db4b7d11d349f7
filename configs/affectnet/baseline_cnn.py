"""Seed 004's baseline on AffectNet's eight emotions at 224 pixels.

The seed cuts the training part 80/10/10 and never reads the validation part that AffectNet has; so does this. Its
script takes the images in one fixed order in every epoch, as pixels of 0 to 255; here the order is new in each epoch,
and pixels are normalised.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/affectnet'
    config.data.resplit = ('.8', '.1', '.1')
    config.data.fold_by = 'image'
    config.data.size = 224
    config.data.channels = 3

    config.model.name = 'baseline_cnn'

    config.train.batch_size = 64
    config.train.epochs = 50.0
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 5e-4
    config.schedule.name = 'constant'

    config.evaluation.last = 0  # the best step by validation
    return config
