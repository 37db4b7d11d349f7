import glob
import os

import pytest

from fer_jax.config import default_config, flatten, load_config, set_field
from fer_jax.errors import UserError
from fer_jax.tables import load_table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write(tmp_path, body, name='small.py'):
    path = tmp_path / name
    path.write_text('from fer_jax.config import default_config\n\ndef get_config(*arguments):\n' + body)
    return str(path)


@pytest.fixture
def plain(tmp_path):
    return write(tmp_path, '    return default_config()\n')


@pytest.mark.parametrize(
    ('flag', 'field', 'value'),
    [
        ('train.steps=1e3', 'train.steps', 1000),
        ('train.steps=250', 'train.steps', 250),
        ('train.steps=250.0', 'train.steps', 250),
        ('seed=-1', 'seed', -1),
        ('train.epochs=3', 'train.epochs', 3.0),
        ('optimizer.learning_rate=2e-4', 'optimizer.learning_rate', 2e-4),
        ('optimizer.learning_rate=.5', 'optimizer.learning_rate', 0.5),
        ('augment.flip=true', 'augment.flip', True),
        ('augment.flip=True', 'augment.flip', True),
        ('optimizer.nesterov=false', 'optimizer.nesterov', False),
        ('model.name=resnet34', 'model.name', 'resnet34'),
        ('data.name=data/a=b', 'data.name', 'data/a=b'),
        ('data.name=1e3', 'data.name', '1e3'),
        ('data.drop=fear', 'data.drop', ('fear',)),
        ('data.drop=fear,contempt', 'data.drop', ('fear', 'contempt')),
        ("data.drop=('fear', 'contempt')", 'data.drop', ('fear', 'contempt')),
        ('data.drop=["fear"]', 'data.drop', ('fear',)),
        ('data.drop="angry, at me",fear', 'data.drop', ('angry, at me', 'fear')),
        ("data.drop=['angry, at me', 'fear']", 'data.drop', ('angry, at me', 'fear')),
        ('data.rename="angry, at me"=anger', 'data.rename', ('angry, at me=anger',)),
        ("data.drop=l'ennui,d'or", 'data.drop', ("l'ennui", "d'or")),
        ('data.drop=grin (wide)', 'data.drop', ('grin (wide)',)),
        ('data.drop=', 'data.drop', ()),
        ('evaluation.splits=()', 'evaluation.splits', ()),
    ],
)
def test_an_override_takes_the_type_of_its_field(plain, flag, field, value):
    found = flatten(load_config(plain, [f'--config.{flag}']))[field]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    'flag',
    [
        'train.steps=1.5',
        'train.steps=many',
        'train.steps=true',
        'train.steps=',
        'train.steps=inf',
        'train.steps=1e999',
        'optimizer.learning_rate=1e999',
        'train.steps=[1]',
        'train.epochs=nan',
        'optimizer.learning_rate=True',
        'optimizer.learning_rate=1e-3x',
        'optimizer.learning_rate=inf',
        'optimizer.learning_rate=1+2j',
        'augment.flip=1',
        'augment.flip=yes',
        'seed=__import__("os").getpid()',
    ],
)
def test_a_value_of_the_wrong_type_is_one_line_with_the_field_and_what_is_wanted(plain, flag):
    with pytest.raises(UserError, match=f'^config.{flag.split("=")[0]}=.* is wanted') as caught:
        load_config(plain, [f'--config.{flag}'])
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('flag', 'suggestion'),
    [
        ('train.epoch=3', 'config.train.epochs'),
        ('optimizer.learning_rat=1', 'config.optimizer.learning_rate'),
        ('optimiser.momentum=1', 'config.optimizer.momentum'),
        ('learning_rate=1', 'config.optimizer.learning_rate'),
        ('train.epochs.x=1', 'config.train.epochs'),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(plain, flag, suggestion):
    with pytest.raises(UserError, match=f'did you mean {suggestion}\\?'):
        load_config(plain, [f'--config.{flag}'])


def test_a_whole_section_cannot_be_set(plain):
    with pytest.raises(UserError, match='there is no config.train'):
        load_config(plain, ['--config.train=3'])


def test_a_flag_without_a_value_is_refused(plain):
    with pytest.raises(UserError, match='--config.augment.flip=VALUE'):
        load_config(plain, ['--config.augment.flip'])


def test_later_overrides_win_over_earlier_ones_and_over_the_file(tmp_path):
    path = write(tmp_path, '    c = default_config()\n    c.seed = 3\n    return c\n')
    assert load_config(path).seed == 3
    assert load_config(path, ['--config.seed=4', '--config.seed=5']).seed == 5


def test_the_result_is_locked(plain):
    config = load_config(plain)
    with pytest.raises(AttributeError):
        config.train.epoch = 3
    with pytest.raises(KeyError):
        config['new'] = 1


def test_a_file_takes_an_argument_after_a_colon(tmp_path):
    path = write(tmp_path, '    c = default_config()\n    c.seed = int(arguments[0])\n    return c\n')
    assert load_config(f'{path}:17').seed == 17


@pytest.mark.parametrize('future', ['', 'from __future__ import annotations\n'])
def test_a_file_is_read_as_it_is_now_and_may_hold_a_dataclass(tmp_path, future):
    head = f'{future}import dataclasses\nfrom fer_jax.config import default_config\n'
    head += '@dataclasses.dataclass\nclass Recipe:\n    seed: int = NUMBER\n'
    body = 'def get_config():\n    c = default_config()\n    c.seed = Recipe().seed\n    return c\n'
    path = tmp_path / 'recipe.py'
    for number in (1, 2):  # of one size, within one second
        path.write_text((head + body).replace('NUMBER', str(number)))
        assert load_config(str(path)).seed == number
    assert os.listdir(tmp_path) == ['recipe.py']


def test_a_variant_that_is_not_there_is_named_with_its_neighbour():
    for path in ('gan_study/pairs.py', 'gan_study/recogniser.py'):
        with pytest.raises(UserError, match="no variant 'fer2013_breif'; did you mean fer2013_brief"):
            load_config(f'{ROOT}/configs/{path}:fer2013_breif')
    with pytest.raises(UserError, match="no variant 'x'; there are fer2013, fer2013_brief, affectnet, synthetic"):
        load_table(f'{ROOT}/configs/tables/gan_study.py:x')


def test_a_missing_file_is_named_with_its_neighbour(tmp_path):
    write(tmp_path, '    return default_config()\n', 'quickstart.py')
    with pytest.raises(UserError, match=r'no configuration file .*quikstart.py; did you mean .*/quickstart.py\?'):
        load_config(str(tmp_path / 'quikstart.py'))
    with pytest.raises(UserError, match='no configuration file'):
        load_config(str(tmp_path / 'nowhere' / 'x.py'))


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        ('    raise ValueError("first\\nsecond")\n', 'ValueError: first$'),
        ('    return default_config()[\n', 'SyntaxError'),
        ('    c = default_config()\n    c.nothing.at_all = 1\n', 'AttributeError|KeyError'),
        ('    return 3\n', 'returned int'),
        ('    pass\n', 'returned NoneType'),
        (
            '    c = default_config()\n    c.train.epoch = 1\n    return c\n',
            'config.train.epoch, .*did you mean train.epochs',
        ),
        ('    c = default_config()\n    del c.train.epochs\n    return c\n', 'lacks config.train.epochs'),
        ('    c = default_config()\n    c.train = 3\n    return c\n', "field 'train'"),
        ('    c = default_config()\n    c.unlock()\n    c.train.epochs = None\n    return c\n', 'train.epochs'),
        ('    c = default_config()\n    c.unlock()\n    c.seed = "first"\n    return c\n', 'seed'),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, body, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(tmp_path, body))
    assert '\n' not in str(caught.value)


def test_a_file_without_get_config_and_one_that_is_no_python(tmp_path):
    (tmp_path / 'empty.py').write_text('')
    with pytest.raises(UserError, match='get_config'):
        load_config(str(tmp_path / 'empty.py'))
    (tmp_path / 'small.yaml').write_text('a: 1')
    with pytest.raises(UserError, match='not a Python file'):
        load_config(str(tmp_path / 'small.yaml'))


def test_a_whole_number_in_a_file_is_right_for_a_float_field(tmp_path):
    path = write(tmp_path, '    c = default_config()\n    c.train.epochs = 3\n    return c\n')
    assert type(load_config(path).train.epochs) is float


def test_set_field_refuses_lists_of_other_things():
    with pytest.raises(UserError, match='a list'):
        set_field(default_config(), 'data.drop', (1, 2))


@pytest.mark.parametrize('path', sorted(glob.glob(os.path.join(ROOT, 'configs', '**', '*.py'), recursive=True)))
def test_every_file_in_configs_loads(path):
    if os.sep + 'tables' + os.sep in path:
        pytest.skip('a table of runs, not a configuration')
    config = load_config(path)
    assert flatten(config).keys() == flatten(default_config()).keys()
