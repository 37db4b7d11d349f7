import json
import os

import jax
import numpy as np
import pytest

from fer_jax import experiment, train
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints


def lines(workdir):
    with open(os.path.join(workdir, 'metrics.jsonl')) as file:
        return [json.loads(line) for line in file]


def test_a_run_leaves_what_the_design_says_and_learns(make_run, dataset):
    workdir = make_run(train__steps=60, evaluation__every_steps=30, log_every_steps=30, optimizer__learning_rate=3e-3)
    found = lines(workdir)
    assert [line['step'] for line in found] == [30, 60]
    assert found[-1]['validation/accuracy'] > 0.9
    assert found[-1]['train/loss'] < found[0]['train/loss']
    assert Checkpoints(workdir).steps() == [30, 60]
    with open(os.path.join(workdir, 'config.json')) as file:
        described = json.load(file)
    assert described['manifest_hash'] == dataset.manifest_hash
    assert described['manifest']['counts']['train'] == {'anger': 14, 'fear': 13, 'happiness': 13}
    assert described['versions']['jax'] == jax.__version__
    assert described['devices']['platform'] == 'cpu'
    assert described['model_summary']['parameters'] == 416 + 14436 + (3 * 3 * 36 * 128 + 128) + (128 * 3 + 3)
    images = dataset.splits['train'].images
    assert described['preprocessing']['mean'] == pytest.approx(images.mean(), abs=1e-4)
    assert described['preprocessing']['deviation'] == pytest.approx(images.std(), abs=1e-4)
    with np.load(os.path.join(workdir, 'predictions', 'validation.npz')) as saved:
        assert saved['logits'].shape == (1, 23, 3)
    with open(os.path.join(workdir, 'scores.json')) as file:
        scores = json.load(file)
    assert list(scores) == ['validation']  # the test split was not asked for
    assert scores['validation']['single']['accuracy'] == pytest.approx(found[-1]['validation/accuracy'])


def test_a_description_is_read_back_as_it_was_trained(make_run, make_config):
    workdir = make_run(data__crop=10, augment__flip=True, evaluation__splits=('validation', 'test'))
    run = experiment.read_run(workdir)
    assert run.config == make_config(data__crop=10, augment__flip=True, evaluation__splits=('validation', 'test'))
    assert (run.preprocessing.crop, run.preprocessing.input_side) == (10, 10)
    assert run.class_names == ('anger', 'fear', 'happiness')


def test_the_end_by_epochs_counts_every_image_once(make_config):
    options = train._loop_options(make_config(train__steps=0, train__epochs=3.0), 40)
    assert (options.total_steps, options.steps_per_epoch) == (round(3 * 40 / 16), 2.5)
    assert train._loop_options(make_config(evaluation__every_steps=0), 40).evaluate_every == round(2.5)
    assert train._loop_options(make_config(evaluation__every_steps=0), 4).evaluate_every == 1


def test_a_repeated_run_may_ask_for_another_evaluation_but_not_for_another_experiment(make_run):
    workdir = make_run()
    logged = lines(workdir)
    make_run(evaluation__splits=('validation', 'test'), evaluation__tta='flip', evaluation__last=2)
    assert lines(workdir) == logged
    with open(os.path.join(workdir, 'scores.json')) as file:
        scores = json.load(file)
    assert sorted(scores) == ['test', 'validation']
    assert [member['step'] for member in scores['test']['members']] == [4, 8]
    with pytest.raises(UserError, match='config.seed is 0 there, 1 here'):
        make_run(seed=1)


def test_other_data_under_the_same_name_is_another_experiment(make_run, make_dataset):
    workdir = make_run()
    with pytest.raises(UserError, match='data'):
        make_run(data=make_dataset(seed=1))
    with open(os.path.join(workdir, 'config.json')) as file:
        assert json.load(file)['manifest_hash'] == make_dataset().manifest_hash


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task': 'paint'}, "task is 'paint'"),
        ({'evaluation__splits': ('train',)}, "names 'train'; it can hold validation and test"),
        ({'evaluation__tta': 'flop'}, "tta is 'flop'"),
        ({'train__batch_size': 0}, 'batch_size is 0; at least 1'),
        ({'log_every_steps': 0}, 'log_every_steps is 0'),
        ({'evaluation__last': 4}, 'keep_last=3'),
        ({'train__steps': 0, 'train__epochs': 0.01}, 'makes no step'),
        ({'model__name': 'resnet43'}, 'resnet34'),
        ({'model__dtype': 'float16'}, 'float32 or bfloat16'),
        ({'optimizer__name': 'sgdm'}, 'sgd, adam'),
        ({'schedule__name': 'cos'}, 'cosine'),
        ({'schedule__warmup_epochs': 10.0}, 'warmup_epochs'),
        ({'data__normalize': 'x'}, 'dataset or image'),
        ({'data__crop': 13}, 'crop is 13'),
        ({'data__channels': 2}, 'channels is 2'),
        ({'data__drop': ('fer',)}, "did you mean 'fear'"),
        ({'data__remove_twins': 'x'}, 'none, evaluation or all'),
        ({'train__class_weights': 'x'}, 'none or balanced'),
        ({'train__steps': -5}, 'steps'),
        ({'evaluation__every_steps': -1}, 'every_steps'),
        ({'checkpoint__every_steps': -1}, 'every_steps'),
        ({'train__max_bad_steps': 0}, 'max_bad_steps'),
        ({'train__steps_per_dispatch': -1}, 'steps_per_dispatch'),
        ({'train__label_smoothing': 1.5}, 'label_smoothing'),
        ({'train__ema': 1.0}, 'ema'),
        ({'train__mixup': -0.1}, 'mixup'),
        ({'model__dropout': 1.5}, 'dropout'),
        ({'data__size': -3}, 'size'),
        ({'augment__crop_scale': 0.0}, 'crop_scale'),
        ({'augment__zoom': 1.0}, 'zoom'),
        ({'augment__erase': 2.0}, 'erase'),
    ],
)
def test_what_cannot_be_is_refused_before_any_step(make_run, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        make_run(**changes)
    assert not (tmp_path / 'run' / 'checkpoints').exists()


@pytest.mark.parametrize('content', [None, '', '{}', '[]', '{"config": {"seed": "x"}}', '{"config": 3}'])
def test_a_folder_that_is_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / 'config.json').write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        experiment.read_run(str(tmp_path))
