"""Neutral and happiness on FER2013 at 64 pixels with seed 001's networks and losses; wants a GPU.

launch/train.sh configs/cyclegan/fer2013.py --config.cyclegan.judge=RUN      # a classifier's run scores and chooses
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.task = 'cyclegan'
    config.pair = ('neutral', 'happiness')
    config.data.name = 'data/fer2013'
    config.data.size = 64
    config.data.remove_twins = 'evaluation'
    config.augment.flip = True

    config.cyclegan.blocks = 9
    config.cyclegan.width = 64
    config.cyclegan.discriminator_width = 64
    config.cyclegan.discriminator_layers = 4
    config.cyclegan.cycle = 10.0
    config.cyclegan.identity = 0.5
    config.cyclegan.pool = 50

    config.model.dtype = 'bfloat16'
    config.train.batch_size = 8
    config.train.epochs = 40.0
    config.train.ema = 0.999
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 2e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = 'linear'
    config.schedule.constant_share = 0.5
    return config
