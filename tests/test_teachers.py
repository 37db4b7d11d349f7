"""Networks that learn from others: `config.train.teachers`."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax import crossvalidate, evidence, experiment, pack
from fer_jax.data.augment import Augmentation
from fer_jax.errors import UserError
from fer_jax.evaluation.scores import softmax
from fer_jax.members import choose_members
from fer_jax.teachers import Teachers, load_teachers, refuse_other_teachers
from fer_jax.train import train_members
from fer_jax.training import classify
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.classify import Teacher
from tests.training.test_classify import Linear, make_task, start

BATCH = {
    'images': np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1)).astype(np.uint8),
    'labels': np.array([0, 1, 2, 2, 1, 2], np.int32),
}


def stacked(*seeds):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(start_of(seed) for seed in seeds))


def start_of(seed):
    return classify.init_state(make_task(), jax.random.key(seed)).variables


def logits_by_hand(variables, images, mean=100.0, deviation=50.0):
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables['params']['Dense_0'])
    return (images.reshape(6, -1) - mean) / deviation @ dense['kernel'] + dense['bias']


@pytest.mark.parametrize('share', [1.0, 0.3])
def test_the_loss_is_that_of_the_teachers_mean_probability_and_of_the_labels_for_the_rest(share):
    """Two groups: two members, and one with a temperature and other figures of pixels; each member counts once."""
    task = make_task(
        teachers=(Teacher(Linear()), Teacher(Linear(), 2.5, 2.0, -0.5)), teacher_share=share, label_smoothing=0.1
    )
    state = start(task).replace(teachers=(stacked(1, 2), stacked(3)))
    after, metrics = classify.train_step(task, state, BATCH, jax.random.key(9))
    images = BATCH['images']
    taught = [softmax(logits_by_hand(start_of(seed), images)) for seed in (1, 2)]
    taught.append(softmax(logits_by_hand(start_of(3), images, mean=112.5, deviation=25.0) / 2.5))
    smooth = 0.9 * np.eye(3)[BATCH['labels']] + 0.1 / 3
    targets = share * np.mean(taught, 0) + (1 - share) * smooth
    log_p = np.log(softmax(logits_by_hand(state.variables, images)))
    np.testing.assert_allclose(metrics['loss'], -(targets * log_p).sum(1).mean(), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.teachers, state.teachers)


def test_teachers_read_the_images_as_they_are_augmented_and_mixed():
    """A learner that begins as its teacher has no gradient, whatever is made of the images; else it has one."""
    how = Augmentation(flip=True, rotate=20.0, shift=0.2, brightness=0.2, erase=1.0)
    task = make_task(teachers=(Teacher(Linear()),), mixup=1.0, cutmix=1.0, augmentation=how, optimizer=optax.sgd(1.0))
    for teacher, moves in ((0, False), (1, True)):
        state = start(task).replace(teachers=(stacked(teacher),))
        after, _ = classify.train_step(task, state, BATCH, jax.random.key(4))
        kernels = [of.variables['params']['Dense_0']['kernel'] for of in (state, after)]
        assert (np.abs(kernels[1] - kernels[0]).max() > 1e-3) == moves
        if not moves:
            np.testing.assert_allclose(kernels[1], kernels[0], atol=1e-6)


@pytest.fixture
def teachers(make_run):
    """Two runs of one network and one of another."""
    return [
        make_run('first'),
        make_run('second', seed=1),
        make_run('third', model__dropout=0.1),
    ]


def trees(workdir):
    (member,) = choose_members(workdir, 1)
    model = experiment.make_model(member.run.config, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 12, 12, 1)))
    return Checkpoints(workdir).restore_model(member.step, shapes)


def test_a_run_is_taught_says_by_whom_and_keeps_them_out_of_its_checkpoints(make_run, teachers, dataset, make_config):
    taught = make_run('taught', train__teachers=','.join(teachers))
    told = json.loads(Path(taught, 'config.json').read_text())['teachers']
    assert [(entry['run'], entry['step']) for entry in told] == [(workdir, 8) for workdir in teachers]
    assert len({entry['sha256'] for entry in told}) == 3
    size = lambda workdir: sum(path.stat().st_size for path in Path(workdir).rglob('*') if '/checkpoints/' in str(path))
    assert size(taught) == pytest.approx(size(teachers[0]), rel=0.05)
    plain = make_run('plain')
    assert not np.allclose(*(jax.tree.leaves(trees(workdir))[1] for workdir in (taught, plain)))
    # What is loaded is what the runs hold, in groups of what stacks.
    how = experiment.make_preprocessing(make_config(), dataset)
    found = load_teachers(make_config(train__teachers=','.join(teachers)), dataset, how)
    assert [len(jax.tree.leaves(of_group)[0]) for of_group in found.variables] == [2, 1]
    second = jax.tree.map(lambda leaf: leaf[1], found.variables[0])
    jax.tree.map(np.testing.assert_array_equal, second, trees(teachers[1]))


def test_a_taught_run_goes_on_to_the_same_bits_and_refuses_other_teachers(make_run, teachers):
    names = ','.join(teachers[:2])
    whole = make_run('whole', train__teachers=names)
    part = shutil.copytree(whole, whole.replace('whole', 'part'))
    shutil.rmtree(os.path.join(part, 'checkpoints', '8'))
    again = make_run('part', train__teachers=names)
    jax.tree.map(np.testing.assert_array_equal, trees(again), trees(whole))
    shutil.rmtree(teachers[1])
    make_run('second', seed=2)
    with pytest.raises(
        UserError, match=r'was taught by .*second@8, in whose place is .*second@8, perhaps trained anew'
    ):
        make_run('part', train__teachers=names)


def test_a_teacher_that_is_missing_or_new_is_another(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'teachers': [told(0), told(1)]}))
    alike = Teachers((), (), (told(0), told(1)))
    refuse_other_teachers(alike, str(tmp_path))
    for now, words in (((0,), r'run1@8, in whose place is nobody'), ((0, 1, 2), r'nobody, in whose place is run2@8')):
        with pytest.raises(UserError, match=words):
            refuse_other_teachers(dataclasses.replace(alike, told=tuple(map(told, now))), str(tmp_path))


def told(number):
    return {'run': f'run{number}', 'step': 8, 'sha256': str(number)}


@pytest.mark.parametrize('how', ['turn', 'vmap'])
def test_members_are_taught_as_if_alone(make_run, teachers, tmp_path, make_config, how):
    alone = make_run('alone', train__teachers=teachers[0], seed=3, data__order_seed=2)
    changes = {'seed': 2, 'ensemble__members': 2, 'ensemble__how': how, 'train__teachers': teachers[0]}
    train_members(make_config(**changes), str(tmp_path / 'both'))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), trees(str(tmp_path / 'both' / 'seed3')), trees(alone)
    )


def test_a_packed_model_teaches(make_run, tmp_path):
    run = make_run('first', evaluation__splits='validation')
    packed = str(tmp_path / 'all.safetensors')
    assert pack.main([f'--evaluation={run}', f'--output={packed}']) == 0
    taught = make_run('taught', train__teachers=packed)
    (told,) = json.loads(Path(taught, 'config.json').read_text())['teachers']
    assert told['run'].startswith(packed)
    assert told['step'] == 8


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'data__crop': 8}, r'which sees 12 of 12 pixels.*this run sees 8 of 12 pixels'),
        ({'data__normalize': 'image'}, r'normalised by dataset; this run sees .* normalised by image'),
        ({'data__drop': 'happiness'}, r'which knows .*; this run has'),
        ({'data__folds': 3, 'data__fold_by': 'image'}, r'another cut of the same data'),
        ({'data__folds': 3, 'data__fold_by': 'image', 'data__fold_of': 'train'}, r'another cut of the same data'),
        ({'data__remove_twins': 'evaluation'}, r'twins of evaluation images, which config.data.remove_twins keeps out'),
        ({'train__teachers': 'nowhere'}, 'nowhere is no run'),
        ({'train__teacher_share': 1.5}, 'config.train.teacher_share is 1.5; a number from 0 to 1'),
    ],
)
def test_teachers_that_do_not_fit_are_refused_in_one_line(make_run, changes, words):
    changes = {'train__teachers': make_run('first')} | changes
    with pytest.raises(UserError, match=words) as caught:
        make_run('taught', **changes)
    assert '\n' not in str(caught.value)


def test_a_teacher_of_other_data_is_refused(make_run, make_dataset):
    first = make_run('first', data=make_dataset(seed=1))
    with pytest.raises(UserError, match=r'trained on other data .*may have learned what is validation or test here'):
        make_run('taught', train__teachers=first)


def test_a_pair_has_no_teachers(make_run):
    with pytest.raises(UserError, match=r'config.train.teachers is for classifiers'):
        make_run('pair', task='cyclegan', pair='a,b', train__teachers='x')


def test_a_cut_of_other_images_is_another_cut(make_run, make_config, tmp_path):
    """Folds of training are dealt after noise, audits and limits: with others of these, who is held out is another."""
    folds = {'data__folds': 2, 'data__fold_of': 'train', 'data__fold_by': 'image', 'data__fold_validation': False}
    teacher = make_run('first', **folds, evaluation__splits='test')
    make_run('same', **folds, evaluation__splits='test', train__teachers=teacher)
    with pytest.raises(UserError, match=r'another cut of the same data \(config.data.limit differs\)'):
        make_run('less', **folds, evaluation__splits='test', train__teachers=teacher, data__limit='fear=9')


def test_audits_and_cross_validations_have_no_teachers(make_config, tmp_path):
    with pytest.raises(UserError, match='have learned the labels that an audit judges'):
        evidence.audited_config(make_config(train__teachers='x'))
    with pytest.raises(UserError, match='have learned what other folds test'):
        crossvalidate.crossvalidate(make_config(train__teachers='x', data__folds=3), str(tmp_path / 'x'), [0])
