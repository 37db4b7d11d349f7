"""A pair on the embedded faces at 32 pixels, for two CPU cores; a judge first, so that translations get a score:

launch/train.sh configs/cyclegan/judge.py --workdir=checkpoints/judge
launch/train.sh configs/cyclegan/synthetic.py --workdir=checkpoints/pair --config.cyclegan.judge=checkpoints/judge
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.task = 'cyclegan'
    config.pair = ('neutral', 'happiness')
    config.data.name = 'synthetic'
    config.data.synthetic.num_train = 8000
    config.data.synthetic.size = 32
    config.augment.flip = True

    config.cyclegan.blocks = 6
    config.cyclegan.width = 24
    config.cyclegan.discriminator_width = 32
    config.cyclegan.discriminator_layers = 3
    config.cyclegan.cycle = 10.0
    config.cyclegan.identity = 0.5

    config.train.batch_size = 8
    config.train.steps = 4000
    config.train.ema = 0.995
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 4e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = 'linear'

    config.evaluation.every_steps = 500
    return config
