"""Seed 003's ResNet18 on FER2013, by the recipe that the code it follows (WuJie1010) has for that data.

What differs: see configs/ckplus/resnet18.py. Chosen on PublicTest, where the code takes the best by PrivateTest.
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013'
    config.data.channels = 3  # grey, repeated
    config.data.crop = 44
    config.augment.flip = True

    config.model.name = 'resnet18'

    config.train.batch_size = 128
    config.train.epochs = 250.0
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_value = 0.1
    config.schedule.name = 'step'
    config.schedule.step_start_epochs = 80.0
    config.schedule.step_every_epochs = 5.0
    config.schedule.step_factor = 0.9

    config.evaluation.tta = 'ten_crop'
    return config
