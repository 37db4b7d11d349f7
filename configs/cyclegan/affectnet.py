"""The eight pairs of seed 001 on AffectNet at 128 pixels, each a run in WORKDIR/SOURCE_to_TARGET; wants GPUs.

    launch/train.sh configs/cyclegan/affectnet.py --config.cyclegan.judge=RUN    # a classifier's run scores and chooses

One after the other on all GPUs; --config.cyclegan.devices=one --config.train.batch_size=1 trains a pair on each. Other
pixels: configs/cyclegan/affectnet.py:64. What differs from the seed: batches of eight and bfloat16.
"""

from fer_jax.config import default_config


def get_config(size='128'):
    config = default_config()

    config.task = 'cyclegan'
    config.pairs = (
        'anger=happiness',
        'contempt=happiness',
        'disgust=happiness',
        'fear=happiness',
        'sadness=happiness',
        'neutral=anger',
        'happiness=neutral',
        'surprise=neutral',
    )
    config.data.name = 'data/affectnet'
    config.data.size = int(size)
    config.data.channels = 3
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
    config.train.steps = 50000
    config.train.ema = 0.999
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 2e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = 'linear'
    config.schedule.constant_share = 0.5

    config.evaluation.every_steps = 2500
    return config
