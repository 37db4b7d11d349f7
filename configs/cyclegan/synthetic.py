"""Neutral and happiness on the embedded faces at 32 pixels, for a CPU: twelve minutes of one core.

A classifier first, so that translations get a score and the best checkpoint is chosen by it:

    launch/train.sh configs/quickstart.py --workdir=checkpoints/judge --config.data.synthetic.size=32
    launch/train.sh configs/cyclegan/synthetic.py --workdir=checkpoints/smile --config.cyclegan.judge=checkpoints/judge

What differs from the paper: smaller networks, of which the generators add to the image instead of making it anew, a
cycle weight of 1 (they start from the image, where 10 keeps them), twice the rate, fewer steps on batches of four.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.task = 'cyclegan'
    config.pair = ('neutral', 'happiness')
    config.data.name = 'synthetic'
    config.data.synthetic.num_train = 8000  # 1,000 of either class
    config.data.synthetic.num_validation = 2000  # 250
    config.data.synthetic.size = 32
    config.augment.flip = True

    config.cyclegan.blocks = 4
    config.cyclegan.width = 16
    config.cyclegan.skip = True
    config.cyclegan.cycle = 1.0
    config.cyclegan.discriminator_width = 32
    config.cyclegan.discriminator_layers = 3

    config.train.batch_size = 4
    config.train.steps = 5000
    config.train.ema = 0.99
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 4e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = 'linear'

    config.evaluation.every_steps = 500
    return config
