"""A pair of tiny networks that is trained for four steps: fields of `make_config`."""

PAIR = {
    'task': 'cyclegan',
    'pair': ('anger', 'happiness'),
    'train__steps': 4,
    'train__batch_size': 2,
    'train__ema': 0.9,
    'log_every_steps': 1,
    'evaluation__every_steps': 2,
    'cyclegan__blocks': 1,
    'cyclegan__width': 4,
    'cyclegan__discriminator_width': 4,
    'cyclegan__discriminator_layers': 2,
    'cyclegan__pool': 3,
    'cyclegan__samples': 2,
    'augment__flip': True,
}
