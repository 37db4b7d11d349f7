"""What can be trained: an explicit dict from `config.task` to the module that builds it for the train command.

Each module has the same few functions, called in this order:

- `check_config(config)` refuses what can be known to be wrong before data is read;
- `narrow(config, dataset)` gives the data that the task uses, and refuses data that does not fit;
- `epoch_images(config, dataset)` says how many steps of one image make an epoch;
- `make_job(setting)` builds the run;
- `make_feed(config, dataset, make)` builds its feed, where `make(split, seed)` gives one of a split.
"""

from types import ModuleType

from fer_jax.tasks import classify, cyclegan

TASKS: dict[str, ModuleType] = {'classify': classify, 'cyclegan': cyclegan}
