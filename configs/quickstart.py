"""The embedded faces and a small network: two minutes on two cores, from nothing to a report."""

from fer_jax.config import default_config

STEPS_PER_CYCLE = 94  # two epochs


def get_config():
    config = default_config()

    config.data.name = 'synthetic'
    config.data.synthetic.num_train = 6000
    config.data.normalize = 'image'

    config.model.name = 'shallow_cnn'

    config.augment.flip = True
    config.augment.shift = 0.05
    config.augment.zoom = 0.05

    config.train.batch_size = 128
    config.train.steps = 4 * STEPS_PER_CYCLE
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.1
    config.schedule.name = 'cycles'
    config.schedule.cycles = 4

    config.evaluation.last = 3
    config.evaluation.splits = ('validation', 'test')
    config.evaluation.tta = 'flip'
    config.checkpoint.snapshot_steps = STEPS_PER_CYCLE
    return config
