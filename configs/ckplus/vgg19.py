"""Seed 003's VGG19 on CK+ in ten folds.

    python -m fer_jax.crossvalidate --config=configs/ckplus/vgg19.py --workdir=DIR

The recipe is that of the code the seed follows (WuJie1010). What differs: inputs are normalised by the training
pixels' mean and deviation, the ten crops' probabilities are averaged instead of their logits, biases and
BatchNorm do not decay, the rate falls after 20 epochs and not 21, and the last step is read instead of the best
by test accuracy.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/ckplus'
    config.data.channels = 3  # grey, repeated
    config.data.crop = 44
    config.data.folds = 10
    config.data.fold_by = 'image'  # as published; 'subject' keeps a person's images together
    config.data.fold_validation = False  # nothing is chosen
    config.augment.flip = True

    config.model.name = 'vgg19'

    config.train.batch_size = 32
    config.train.epochs = 60.0
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_value = 0.1
    config.schedule.name = 'step'
    config.schedule.step_start_epochs = 20.0
    config.schedule.step_every_epochs = 1.0
    config.schedule.step_factor = 0.8

    config.evaluation.tta = 'ten_crop'
    config.evaluation.splits = ('test',)
    return config
