"""Seed 001's recogniser on AffectNet at 64 pixels, or at another side: configs/affectnet/affectnet_cnn.py:128

The recipe is that of the seed's script. What differs: inputs are normalised by the training pixels' mean and
deviation; L2 takes all kernels and no biases (see fer_jax.models.affectnet); zoom is the same for height and width;
the rate falls with the validation loss without its L2 term, and the run ends early by validation accuracy.
"""

from fer_jax.config import default_config


def get_config(size='64'):
    config = default_config()

    config.data.name = 'data/affectnet'
    config.data.size = int(size)
    config.data.channels = 3
    config.data.limit = ('neutral=24874', 'happiness=34415')  # 50,000 of 74,874 and 100,000 of 134,415 less

    config.model.name = 'affectnet_cnn'

    config.augment.flip = True
    config.augment.rotate = 15.0
    config.augment.shift = 0.15
    config.augment.shear = 0.15  # degrees, as Keras's shear_range, so hardly any
    config.augment.zoom = 0.15

    config.train.batch_size = 64
    config.train.epochs = 200.0
    config.train.class_weights = 'balanced'
    config.train.early_stopping = 20
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.02  # the gradient of an L2 of .01
    config.schedule.name = 'plateau'
    config.schedule.plateau_factor = 0.5
    config.schedule.plateau_patience = 7

    config.evaluation.last = 0  # the best step by validation
    return config
