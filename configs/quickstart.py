"""The embedded faces and a small network: minutes on two cores, from nothing to a report."""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'synthetic'
    config.data.synthetic.num_train = 6000
    config.data.normalize = 'image'

    config.model.name = 'shallow_cnn'

    config.augment.flip = True
    config.augment.shift = 0.05

    config.train.epochs = 9.0
    config.train.batch_size = 64
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 1e-2
    config.schedule.name = 'cosine'

    config.evaluation.last = 3
    config.evaluation.splits = ('validation', 'test')
    config.evaluation.tta = 'flip'
    return config
