"""Seed 002's shallow CNN on six classes of FER2013, aligned: a long cosine cycle, then nine short ones."""

from fer_jax.config import default_config

STEPS_PER_CYCLE = 276  # 1.25 epochs


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013_aligned'  # prepare --align --align-size=48 --output=data/fer2013_aligned
    config.data.drop = ('disgust',)
    config.data.normalize = 'image'
    config.data.crop = 40

    config.model.name = 'shallow_cnn'

    config.augment.flip = True
    config.augment.shift = 0.03
    config.augment.rotate = 8.0
    config.augment.zoom = 0.1

    config.train.batch_size = 128
    config.train.steps = 16 * STEPS_PER_CYCLE
    config.train.label_smoothing = 0.1
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.name = 'cycles'
    config.schedule.cycles = 10
    config.schedule.first_cycle = 7.0
    config.schedule.restart_factor = 0.5

    config.evaluation.every_steps = STEPS_PER_CYCLE
    config.evaluation.tta = 'flip'
    config.evaluation.last = 9
    config.checkpoint.snapshot_steps = STEPS_PER_CYCLE
    config.checkpoint.keep_last = 9
    return config
