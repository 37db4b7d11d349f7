"""FER2013, aligned, for the audit of its labels: a small network, few epochs, no selection.

python -m fer_jax.audit --method=confident_learning --config=configs/audit/fer2013.py --output=DIR
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013_aligned'  # prepare --align --align-size=48 --output=data/fer2013_aligned
    config.data.normalize = 'image'
    config.data.crop = 40
    config.data.fold_by = 'image'

    config.model.name = 'shallow_cnn'

    config.augment.flip = True
    config.augment.shift = 0.03
    config.augment.rotate = 8.0
    config.augment.zoom = 0.1

    config.train.batch_size = 128
    config.train.epochs = 8.0
    config.train.label_smoothing = 0.1
    config.train.ema = 0.99
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.05

    config.evaluation.tta = 'flip'
    config.checkpoint.keep_last = 1
    return config
