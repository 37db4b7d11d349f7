"""The embedded faces at 32 pixels, for audits that know the truth; `--config.data.noise.rate=0.2` makes labels wrong.

python -m fer_jax.audit --method=confident_learning --config=configs/audit/synthetic.py --output=DIR
"""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'synthetic'
    config.data.synthetic.num_train = 8000
    config.data.synthetic.size = 32
    config.data.normalize = 'image'
    config.data.fold_by = 'image'

    config.model.name = 'shallow_cnn'

    config.augment.flip = True
    config.augment.shift = 0.05
    config.augment.zoom = 0.05

    config.train.batch_size = 128
    config.train.epochs = 16.0
    config.train.label_smoothing = 0.1
    config.train.ema = 0.99
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.1

    config.evaluation.tta = 'flip'
    return config
