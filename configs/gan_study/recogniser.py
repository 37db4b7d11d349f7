"""What every arm of the study trains: configs/gan_study/recogniser.py:fer2013, :fer2013_brief, :affectnet, :synthetic.

The recogniser of seed 001 at 64 pixels by its recipe, see configs/affectnet/affectnet_cnn.py; with :fer2013_brief the
small network of configs/audit/fer2013.py for twelve passes at 64 pixels; on the drawn faces the same one at 32, for a
CPU. The last step of the small one is read. Arms change `data.exclude` and `data.extra`, and
nothing else; so lengths are in steps, of passes over all images, and an arm with fewer images takes as many. Unlike the
seed's, no class is subsampled: what an audit takes would be filled up again.
"""

from fer_jax.config import choose, default_config


def get_config(data='fer2013'):
    return choose(data, {of.__name__: of for of in (fer2013, fer2013_brief, affectnet, synthetic)})()


def seed_001(steps_per_pass):
    config = default_config()

    config.data.size = 64

    config.model.name = 'affectnet_cnn'

    config.augment.flip = True
    config.augment.rotate = 15.0
    config.augment.shift = 0.15
    config.augment.shear = 0.15
    config.augment.zoom = 0.15

    config.train.batch_size = 64
    config.train.steps = 200 * steps_per_pass
    config.train.class_weights = 'balanced'
    config.train.early_stopping = 20
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.02
    config.schedule.name = 'plateau'
    config.schedule.plateau_factor = 0.5
    config.schedule.plateau_patience = 7

    config.evaluation.every_steps = steps_per_pass
    # Not 0, the best step by validation: audits average these members, and choose none. The best is among them, since
    # training ends after 20 without a better.
    config.evaluation.last = 21
    config.checkpoint.keep_last = 21
    return config


def fer2013():
    config = seed_001(steps_per_pass=449)  # of 28,709 images
    config.data.name = 'data/fer2013'
    return config


def fer2013_brief():
    config = default_config()

    config.data.name = 'data/fer2013'
    config.data.size = 64
    config.data.normalize = 'image'
    config.data.fold_by = 'image'

    config.model.name = 'shallow_cnn'
    config.model.dtype = 'bfloat16'

    config.augment.flip = True
    config.augment.shift = 0.08
    config.augment.rotate = 8.0
    config.augment.zoom = 0.1

    config.train.batch_size = 128
    config.train.steps = 12 * 224  # of 28,709 images
    config.train.label_smoothing = 0.1
    config.train.ema = 0.99
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.05

    config.evaluation.every_steps = 12 * 224
    config.evaluation.tta = 'flip'
    config.checkpoint.keep_last = 1
    return config


def affectnet():
    config = seed_001(steps_per_pass=4463)  # of 285,651 images
    config.data.name = 'data/affectnet'
    config.data.channels = 3
    config.data.resplit = ('250',)  # of each class, to choose on; the published validation set is read as test
    config.data.fold_by = 'image'
    return config


def synthetic():
    config = default_config()

    config.data.name = 'synthetic'
    config.data.drop = ('anger', 'contempt', 'disgust', 'fear')
    config.data.synthetic.num_train = 4000  # half of them are of the four emotions left
    config.data.synthetic.num_validation = 1000
    config.data.synthetic.num_test = 4000
    config.data.synthetic.size = 32
    config.data.noise.rate = 0.2
    config.data.normalize = 'image'

    config.model.name = 'shallow_cnn'

    config.augment.flip = True
    config.augment.shift = 0.05

    config.train.batch_size = 64
    config.train.steps = 312  # ten passes
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.1
    config.schedule.name = 'cosine'

    config.evaluation.every_steps = 104
    return config
