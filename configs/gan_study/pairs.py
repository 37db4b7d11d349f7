"""The pairs of the study: configs/gan_study/pairs.py:fer2013, :affectnet, :fer2013_brief or :synthetic.

Data as in recogniser.py. Networks and recipe of seed 001 at 64 pixels, on a GPU; its eight pairs, or seven where there
is no contempt. With :fer2013_brief five, for every emotion, by generators of six blocks that add to the image, each for
a minute of one. On the drawn faces two small pairs, each for ten minutes of one CPU core, or with :all_drawn four, for
every emotion. The last checkpoint translates: nothing is chosen.
"""

from fer_jax.config import choose, default_config

TO_HAPPINESS = ('anger=happiness', 'disgust=happiness', 'fear=happiness', 'sadness=happiness')
OTHERS = ('neutral=anger', 'happiness=neutral', 'surprise=neutral')


def get_config(data='fer2013'):
    known = (fer2013, fer2013_brief, affectnet, synthetic, all_drawn)
    return choose(data, {of.__name__: of for of in known})()


def seed_001():
    config = default_config()

    config.task = 'cyclegan'
    config.data.size = 64
    config.augment.flip = True

    config.model.dtype = 'bfloat16'
    config.cyclegan.blocks = 9
    config.cyclegan.width = 64
    config.cyclegan.discriminator_width = 64
    config.cyclegan.discriminator_layers = 4
    config.cyclegan.cycle = 10.0
    config.cyclegan.identity = 0.5
    config.cyclegan.pool = 50

    config.train.batch_size = 16
    config.train.epochs = 100.0
    config.train.ema = 0.999
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 2e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = 'linear'
    return config


def fer2013():
    config = seed_001()
    config.pairs = (*TO_HAPPINESS, *OTHERS)
    config.data.name = 'data/fer2013'
    return config


def fer2013_brief():
    config = seed_001()
    config.pairs = ('anger=happiness', 'disgust=happiness', 'fear=neutral', 'sadness=neutral', 'surprise=neutral')
    config.data.name = 'data/fer2013'
    config.data.fold_by = 'image'
    config.cyclegan.blocks = 6
    config.cyclegan.skip = True
    config.cyclegan.cycle = 1.0
    config.train.batch_size = 8
    config.train.steps = 4000
    config.train.ema = 0.995
    config.evaluation.every_steps = 4000
    return config


def affectnet():
    config = seed_001()
    config.pairs = ('contempt=happiness', *TO_HAPPINESS, *OTHERS)
    config.data.name = 'data/affectnet'
    config.data.channels = 3
    config.data.resplit = ('250',)
    config.data.fold_by = 'image'
    config.train.epochs = 10.0  # of happiness, 134,000 images
    return config


def synthetic():
    config = default_config()

    config.task = 'cyclegan'
    config.pairs = ('neutral=happiness', 'sadness=surprise')
    config.data.name = 'synthetic'
    config.data.drop = ('anger', 'contempt', 'disgust', 'fear')
    config.data.synthetic.num_train = 4000
    config.data.synthetic.num_validation = 1000
    config.data.synthetic.num_test = 4000
    config.data.synthetic.size = 32
    config.data.noise.rate = 0.2
    config.augment.flip = True

    config.cyclegan.blocks = 4
    config.cyclegan.width = 16
    config.cyclegan.discriminator_width = 24
    config.cyclegan.discriminator_layers = 3

    config.train.batch_size = 4
    config.train.steps = 4500
    config.train.ema = 0.995
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 4e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = 'linear'

    config.evaluation.every_steps = 1500
    return config


def all_drawn():
    config = synthetic()
    config.pairs = (*config.pairs, 'anger=contempt', 'disgust=fear')
    config.data.drop = ()
    return config
