"""The configuration: every field with its default and meaning, files that change some, flags that change more."""

from __future__ import annotations

import ast
import difflib
import math
import os
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax.errors import UserError

# One part of a list: in single quotes, or with what is in double quotes taken whole.
_PARTS = re.compile(r"""\s*'[^']*'\s*(?=,|$)|(?:"[^"]*"|[^,])+""")


def default_config() -> ConfigDict:
    """Every field there is. A configuration file starts from here and changes what its experiment needs."""
    config = ConfigDict()
    config.task = 'classify'  # what the run trains: classify, or cyclegan, a pair of translators between two emotions
    config.pair = ('neutral', 'happiness')  # cyclegan: the two classes, each of which is translated into the other
    config.pairs = ()  # cyclegan: several pairs, as anger=happiness, each a run in WORKDIR/anger_to_happiness
    config.seed = 0  # initial parameters, order of the data, augmentation, dropout
    config.init_from = ''  # first parameters: a run of fer_jax, or a .safetensors or .pth file with torchvision's names

    data = config.data = ConfigDict()
    data.name = 'synthetic'  # 'synthetic', or the directory that `prepare` wrote, such as data/fer2013
    data.size = 0  # side in pixels to resize to; 0 keeps the stored side
    data.channels = 0  # 1 grey, 3 RGB; 0 keeps what is stored
    data.drop = ()  # classes left out of every split alike
    data.rename = ()  # OLD=NEW classes, in every split alike; two that become one name are merged
    data.limit = ()  # CLASS=N: at most N training images of a class; evaluation splits stay whole
    data.soft_labels = False  # train on the annotators' distribution of votes, where the data has votes
    # resident (all images on every device), sharded (on the devices together, a part on each), streaming (decoded while
    # training), auto (the first of these that fits); the batches are the same
    data.feed = 'auto'
    data.resplit = ()  # training cut anew: .9,.1 or 250 (images per class) for a validation, .8,.1,.1 for a test too
    data.folds = 0  # k-fold cross-validation: how many folds; 0 = the data's own splits
    data.fold = 0  # the fold that is tested
    data.fold_of = 'all'  # what folds are drawn of: all splits together; or train, as an audit does, and nothing else
    data.fold_by = 'subject'  # what stays together in a fold or cut: image, sequence, subject
    data.fold_validation = True  # the next fold is validation; False: it is trained on too, and nothing is chosen
    data.split_seed = 0  # of cuts, folds and limits
    data.order_seed = -1  # order of the training images; -1 = config.seed
    # Of the training split only; evaluation images never go and never change.
    data.exclude = ()  # CSV files of an audit (id, flag) or of its review page (id, decision, new_label)
    data.extra = ()  # CSV files of further pictures (path, label), such as translations
    data.remove_twins = 'none'  # exact duplicates taken out of training: none, evaluation (leaks only), all
    data.normalize = 'dataset'  # 'dataset': training mean and deviation; 'image': each image's own
    data.crop = 0  # side of the window the network sees, random in training, central after; 0 = all

    noise = data.noise = ConfigDict()  # wrong training labels, put in on purpose; extra['true_label'] keeps the truth
    noise.rate = 0.0  # share of the labels
    noise.kind = 'symmetric'  # any other class alike; or confusion, as a classifier confuses them
    noise.seed = 0
    noise.confusion = ''  # of that classifier: the scores.json of its run, of which validation's matrix is taken

    synthetic = data.synthetic = ConfigDict()  # read when data.name is 'synthetic'
    synthetic.seed = 0  # faces are a pure function of (seed, index)
    synthetic.num_train = 6000
    synthetic.num_validation = 1000
    synthetic.num_test = 1000
    synthetic.size = 48
    synthetic.channels = 1

    model = config.model = ConfigDict()
    model.name = 'shallow_cnn'  # one of fer_jax.models.MODELS: wider_cnn, resnet18, vgg19 and others
    model.dropout = -1.0  # share of units dropped where the network has dropout; -1 keeps the network's own
    model.dtype = 'float32'  # of the computation, float32 or bfloat16; parameters stay float32
    # BatchNorm in training: 1 = statistics of the whole batch, on all devices; G = of each G-th of it, on however many
    # devices: with whole parts on each (G a multiple of the devices) nothing is sent for them.
    model.norm_groups = 1

    cyclegan = config.cyclegan = ConfigDict()  # of a pair's networks and losses, see fer_jax.training.cyclegan
    cyclegan.blocks = 9  # residual blocks of a generator
    cyclegan.width = 64  # channels of its first layer; the blocks have four times as many
    cyclegan.skip = False  # generators add to the image instead of making it anew, which is learned much sooner
    cyclegan.discriminator_width = 64  # channels of a discriminator's first layer; they double up to eight times
    cyclegan.discriminator_layers = 4  # of them; with 4, a score sees 70x70 pixels
    cyclegan.cycle = 10.0  # weight of the distance between an image and its translation back
    cyclegan.identity = 0.5  # weight of what a generator changes in its own target, in parts of `cycle`; 0 = off
    cyclegan.pool = 50  # past translations shown to the discriminators again; 0 = the newest only
    cyclegan.samples_every = 0  # steps between sheets of samples; 0 = with every validation
    cyclegan.samples = 8  # images per direction on a sheet
    cyclegan.judge = ''  # a classifier's run that scores translations of validation images; '' = no score
    cyclegan.score_images = 2000  # validation images per class that are translated for the score at most
    cyclegan.devices = 'all'  # of each of several pairs: all (one pair after the other), one (as many pairs at once)

    augment = config.augment = ConfigDict()  # see fer_jax.data.augment.Augmentation
    augment.flip = False  # mirror, probability one half
    augment.rotate = 0.0  # degrees, either way
    augment.shift = 0.0  # fraction of the side, either way
    augment.shear = 0.0  # degrees, either way
    augment.zoom = 0.0  # fraction, either way
    augment.crop_scale = 1.0  # smallest share of the area a random crop keeps before it is resized
    augment.crop_aspect = 1.0  # largest ratio of the crop's sides
    augment.brightness = 0.0  # fraction of the full range, either way
    augment.contrast = 0.0  # fraction, either way
    augment.erase = 0.0  # probability of an erased rectangle
    augment.erase_area = 0.2  # its largest share of the area

    train = config.train = ConfigDict()
    train.epochs = 10.0  # length of the run in passes over the training images (of a pair, of its larger class)
    train.steps = 0  # length in steps instead; 0 = by epochs
    # Images per step, over all devices together, which share them evenly; of a pair, of either class.
    train.batch_size = 128
    train.steps_per_dispatch = 0  # steps compiled into one program; 0 = 1 on a CPU, up to 32 elsewhere
    train.label_smoothing = 0.0  # share of each target spread evenly over the classes
    train.mixup = 0.0  # alpha of mixup's Beta distribution (Zhang et al. 2018); 0 = off
    train.cutmix = 0.0  # alpha of cutmix (Yun et al. 2019); with mixup too, a coin decides per step
    # Runs, ensembles or packed models on the same data whose mean probability for the same augmented image is the
    # target (distillation, see fer_jax.teachers). With a share of 1 the labels have no part in the loss, nor have
    # their smoothing and class weights.
    train.teachers = ()
    train.teacher_share = 1.0  # of the loss that goes by them; the rest goes by the labels
    train.class_weights = 'none'  # 'balanced': each class weighs the same in the loss
    train.ema = 0.0  # decay per step of the averaged parameters, which are then the ones evaluated; 0 = off
    train.early_stopping = 0  # evaluations without a better one (by what chooses) before the run ends; 0 = off
    train.max_bad_steps = 10  # steps in a row with a non-finite loss or gradient before the run stops

    optimizer = config.optimizer = ConfigDict()
    optimizer.name = 'adamw'  # sgd, adam, adamw, muon
    optimizer.learning_rate = 1e-3  # peak
    # More devices alone change nothing, since train.batch_size counts the images of all. A larger batch may want a
    # higher rate: linear (Goyal et al. 2017, SGD) or sqrt (Adam's kin) times train.batch_size / base_batch_size.
    optimizer.scale_rate = 'none'  # none, linear, sqrt
    optimizer.base_batch_size = 0  # the batch that learning_rate was found with; only for linear and sqrt
    optimizer.momentum = 0.9  # sgd, muon
    optimizer.nesterov = True  # sgd, muon
    optimizer.b1 = 0.9  # adam, adamw; muon's arrays that are no kernels
    optimizer.b2 = 0.999  # the same
    optimizer.weight_decay = (
        0.0  # kernels only (muon: not the head); adamw, muon: decoupled; sgd, adam: in the gradient
    )
    optimizer.clip_norm = 0.0  # global norm of the gradients; 0 = off
    optimizer.clip_value = 0.0  # each gradient value, either way; 0 = off

    schedule = config.schedule = ConfigDict()
    schedule.name = 'cosine'  # constant, step, cosine, linear, cycles (cosine with restarts), plateau
    schedule.warmup_epochs = 0.0  # linear from zero
    schedule.constant_share = 0.5  # linear: share of the run at the peak, before the line down
    schedule.end_factor = 0.0  # cosine, linear, cycles: last rate as a share of the peak
    schedule.step_start_epochs = 20.0  # step: epochs before the first decay
    schedule.step_every_epochs = 1.0  # step: epochs between decays
    schedule.step_factor = 0.8  # step: rate times this at each
    schedule.cycles = 1  # cycles: how many
    schedule.first_cycle = 1.0  # cycles: length of the first one, in lengths of the others
    schedule.restart_factor = 1.0  # cycles: peak of the later ones, as a share of the first one's
    schedule.plateau_factor = 0.5  # plateau: rate times this …
    schedule.plateau_patience = 5  # … after as many evaluations without a lower validation loss

    evaluation = config.evaluation = ConfigDict()
    evaluation.every_steps = 0  # validation during training; 0 = once per epoch
    evaluation.batch_size = 256  # images per step
    evaluation.tta = 'none'  # test-time augmentation: none, flip, five_crop, ten_crop
    evaluation.last = 1  # members of the run's own ensemble: its last N checkpoints; 0 = the best one by validation
    evaluation.splits = ('validation',)  # read at the end of training, () for none; test only when named here

    checkpoint = config.checkpoint = ConfigDict()
    checkpoint.every_steps = 0  # besides one at every evaluation; 0 = only there
    checkpoint.snapshot_steps = 0  # checkpoints at these multiples are the ones `last` counts; 0 = all
    checkpoint.keep_last = 3  # of those, how many are kept; the best on validation is kept too

    ensemble = config.ensemble = ConfigDict()  # several seeds trained together on the same batches
    # Seeds config.seed, config.seed + 1, …, each a run of its own in WORKDIR/seedN.
    ensemble.members = 1
    # vmap (in one batched step), threads (as many steps at once as cores), turn (one by one), auto (as it pays)
    ensemble.how = 'auto'

    config.log_every_steps = 50  # a line of metrics.jsonl; evaluations add theirs
    return config


def load_config(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a configuration file and applies `--config.KEY=VALUE` flags.

    Args:
        path: a Python file with `get_config()`, or FILE:ARG for `get_config(ARG)`.
        overrides: flags, each `--config.section.key=value`.

    Returns:
        A locked ConfigDict with exactly the fields of `default_config`, each of its default's type.

    Raises:
        UserError: for a missing or broken file, an unknown key, or a value of the wrong type.
    """
    config = _run_config_file(path)
    _check_fields(config, default_config(), path)
    for flag in overrides:
        name, separator, text = flag.removeprefix('--config.').partition('=')
        if not separator:
            raise UserError(f'flag {flag!r} has no value; write --config.{name}=VALUE')
        set_field(config, name, text)
    return config.lock()


def set_field(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a dotted field to a value, or to what its text means for a field of that type.

    Raises:
        UserError: if there is no such field, naming the nearest, or the value is of another type.
    """
    *sections, key = name.split('.')
    section = config
    for part in sections:
        section = section.get(part) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or key not in section or isinstance(section[key], ConfigDict):
        close = _nearest(name, flatten(config))
        raise UserError(f'there is no config.{name}' + (f'; did you mean config.{close[0]}?' if close else ''))
    with config.unlocked():
        section[key] = _typed(value, section[key], name)


def as_flags(changes: Mapping[str, Any]) -> list[str]:
    """Fields and their values as the flags that `load_config` takes."""
    return [f'--config.{name}={as_text(value)}' for name, value in changes.items()]


def as_text(value: Any) -> str:
    """What a flag says to set a field to this value."""
    if not isinstance(value, (tuple, list)):
        return str(value)
    return ','.join(f'"{part}"' if ',' in str(part) else str(part) for part in value)


def flatten(config: ConfigDict, prefix: str = '') -> dict[str, Any]:
    """Dotted field names to values, in order."""
    fields = {}
    for key, value in config.items():
        fields |= flatten(value, f'{prefix}{key}.') if isinstance(value, ConfigDict) else {prefix + key: value}
    return fields


def _nearest(name: str, known: Mapping[str, Any]) -> list[str]:
    """The field that was probably meant: by its whole name, or by its last part in another section."""
    last = {field.rsplit('.', 1)[-1]: field for field in known}
    by_last = difflib.get_close_matches(name.rsplit('.', 1)[-1], last, 1, 0.75)
    return difflib.get_close_matches(name, known, 1, 0.75) or [last[part] for part in by_last]


def _typed(value: Any, default: Any, name: str) -> Any:
    wanted = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a word', tuple: 'a list a,b,c'}
    failure = UserError(f'config.{name}={value!r}: {wanted[type(default)]} is wanted, such as {default!r}')
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise failure
    if isinstance(default, tuple):
        if isinstance(value, str):
            value = _listed(value)
        if isinstance(value, (tuple, list)) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise failure
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value.strip().capitalize() if isinstance(default, bool) else value.strip())
        except (ValueError, SyntaxError):
            raise failure from None
    if isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
        raise failure
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise failure
    if isinstance(default, int) and value != int(value):
        raise failure
    return type(default)(value)


def _listed(text: str) -> list[str]:
    """The parts of 'a,b', ['a', 'b'] or ('a', 'b'); a comma within quotes is of the part: '"a, b",c'."""
    text = text.strip()
    text = text[1:-1] if text[:1] + text[-1:] in ('()', '[]') else text
    parts = (part.strip() for part in _PARTS.findall(text))
    bare = (part.strip("'") if part.startswith("'") else part.replace('"', '') for part in parts)
    return [part.strip() for part in bare if part.strip()]


def choose(name: str, known: Mapping[str, Any]) -> Any:
    """What FILE:NAME asks for of the variants that a configuration or a table has.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f'did you mean {close[0]}?' if close else f'there are {", ".join(known)}'
        raise UserError(f'there is no variant {name!r}; {hint}')
    return known[name]


def run_file(path: str, what: str, function: str, home: str) -> types.ModuleType:
    """The module of a configuration or a table, from its source: Python tells what it kept by second and size alone.

    Args:
        what: it is, for the message.
        function: that is wanted in it.
        home: where the project's own lie.

    Raises:
        UserError: if it is not there, with its nearest neighbour, or no Python file.
    """
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or '.'
        there = sorted(name for name in os.listdir(folder) if name.endswith('.py')) if os.path.isdir(folder) else []
        close = difflib.get_close_matches(os.path.basename(path), there, 1, 0.4)
        hint = f'did you mean {os.path.join(folder, close[0])}?' if close else f'those of the project lie in {home}'
        raise UserError(f'no {what} {path}; {hint}')
    if not path.endswith('.py'):
        raise UserError(f'{path} is not a Python file with {function}()')
    place = os.path.abspath(path)
    module = types.ModuleType(f'fer_jax_file:{place}')
    module.__file__ = place
    sys.modules[module.__name__] = module  # where dataclasses look up annotations that are strings
    with open(path, 'rb') as file:
        exec(compile(file.read(), path, 'exec', dont_inherit=True), module.__dict__)
    return module


def _run_config_file(path: str) -> ConfigDict:
    file, _, argument = path.partition(':')
    try:
        module = run_file(file, 'configuration file', 'get_config', 'configs')
        config = module.get_config(argument) if argument else module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a configuration file is the user's code: whatever it raises is one line
        raise UserError(
            f'{file} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f'{file}: get_config() returned {type(config).__name__}; a ConfigDict is wanted')
    return config


def _check_fields(config: ConfigDict, defaults: ConfigDict, path: str) -> None:
    known, given = flatten(defaults), flatten(config)
    for name in given:
        if name not in known:
            close = _nearest(name, known)
            raise UserError(
                f'{path} sets config.{name}, which is no field' + (f'; did you mean {close[0]}?' if close else '')
            )
    for name, default in known.items():
        if name not in given:
            raise UserError(f'{path} lacks config.{name}; start from fer_jax.config.default_config()')
        set_field(config, name, _typed(given[name], default, name))
