"""The best honest single network on FER2013, trained from nothing at 48 pixels; see benchmarks/record.py. For a GPU."""

from fer_jax.config import default_config


def get_config():
    config = default_config()

    config.data.name = 'data/fer2013_aligned'  # prepare --align --align-size=48 --output=data/fer2013_aligned
    config.data.normalize = 'image'
    config.data.crop = 40

    config.model.name = 'resnet18'
    config.model.dropout = 0.2
    config.model.dtype = 'bfloat16'

    config.augment.flip = True
    config.augment.shift = 0.04
    config.augment.rotate = 12.0
    config.augment.zoom = 0.12
    config.augment.erase = 0.3
    config.augment.erase_area = 0.2

    config.train.batch_size = 256
    config.train.epochs = 80.0
    config.train.label_smoothing = 0.1
    config.train.mixup = 0.4
    config.train.cutmix = 1.0
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 0.02
    config.optimizer.momentum = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.name = 'cosine'
    config.schedule.warmup_epochs = 1.0

    config.evaluation.every_steps = 1122  # ten epochs
    config.evaluation.batch_size = 256
    config.evaluation.tta = 'ten_crop'
    config.checkpoint.keep_last = 1
    config.log_every_steps = 112
    return config
