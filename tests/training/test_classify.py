import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from fer_jax import experiment
from fer_jax.data.augment import Augmentation
from fer_jax.data.preprocess import Preprocessing
from fer_jax.errors import UserError
from fer_jax.training import classify
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_optimizer, make_plateau


class Linear(nn.Module):
    """The smallest network: one dense layer on the pixels; `sqrt` gives nan gradients where a pixel is negative."""

    num_classes: int = 3
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        seen = self.variable('batch_stats', 'seen', lambda: jnp.zeros(()))
        if train and not self.is_initializing():
            seen.value = seen.value + 1
        return nn.Dense(self.num_classes)(x), {}


def make_task(optimizer=None, **options):
    how = Preprocessing(4, 1, mean=100.0, deviation=50.0)
    return classify.Task(model=Linear(), optimizer=optimizer or optax.sgd(0.1), preprocessing=how, **options)


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    return {
        'images': random.integers(0, 256, (6, 4, 4, 1)).astype(np.uint8),
        'labels': np.array([0, 1, 2, 2, 1, 2], np.int32),
    }


def start(task):
    return classify.init_state(task, jax.random.key(0))


def by_hand(state, batch, smoothing=0.0, weights=(1.0, 1.0, 1.0)):
    """Loss and correct ones in float64; `targets` of the batch stand in for its labels in the loss."""
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.variables['params']['Dense_0'])
    x = (batch['images'].reshape(6, -1) - 100.0) / 50.0
    logits = x @ dense['kernel'] + dense['bias']
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = batch.get('targets', np.eye(3)[batch['labels']])
    weighted = targets * np.array(weights) if smoothing == 0 else targets * (1 - smoothing) + smoothing / 3
    losses = -(weighted * log_p).sum(-1)
    return losses.mean(), (logits.argmax(-1) == batch['labels']).mean()


SOFT = np.array([[6, 3, 1], [0, 5, 5], [9, 1, 0], [0, 0, 1], [2, 2, 6], [4, 3, 3]], np.float32)


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('options', [{}, {'smoothing': 0.2}, {'weights': (3.0, 0.5, 1.0)}])
def test_loss_and_accuracy_are_those_worked_out_by_hand(batch, options, soft):
    batch |= {'targets': SOFT / SOFT.sum(1, keepdims=True)} if soft else {}
    names = {'smoothing': 'label_smoothing', 'weights': 'class_weights'}
    task = make_task(**{names[key]: value for key, value in options.items()})
    state = start(task)
    after, metrics = classify.train_step(task, state, batch, jax.random.key(1))
    loss, accuracy = by_hand(state, batch, **options)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    assert float(metrics['accuracy']) == pytest.approx(accuracy)
    assert int(after.step) == 1
    assert float(after.variables['batch_stats']['seen']) == 1


def test_one_step_equals_pytorchs_with_smoothing(batch):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    task = make_task(label_smoothing=0.1)
    state = start(task)
    dense = state.variables['params']['Dense_0']
    layer = torch.nn.Linear(16, 3)
    layer.weight.data = torch.tensor(np.array(dense['kernel'].T))
    layer.bias.data = torch.tensor(np.array(dense['bias']))
    x = torch.tensor((batch['images'].reshape(6, -1) - 100.0) / 50.0, dtype=torch.float32)
    loss = torch.nn.functional.cross_entropy(layer(x), torch.tensor(batch['labels']).long(), label_smoothing=0.1)
    loss.backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    after, metrics = classify.train_step(task, state, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics['loss'], loss.item(), rtol=1e-5)
    found = after.variables['params']['Dense_0']
    np.testing.assert_allclose(found['kernel'], layer.weight.detach().numpy().T, atol=1e-6)
    np.testing.assert_allclose(found['bias'], layer.bias.detach().numpy(), atol=1e-6)


def test_balanced_weights_are_scikit_learns(dataset, make_config):
    labels = dataset.splits['train'].labels
    found = experiment.class_weights(make_config(train__class_weights='balanced'), dataset)
    np.testing.assert_allclose(found, compute_class_weight('balanced', classes=np.arange(3), y=labels), rtol=1e-6)
    assert experiment.class_weights(make_config(), dataset) == ()
    with pytest.raises(UserError, match='none or balanced'):
        experiment.class_weights(make_config(train__class_weights='even'), dataset)


def test_the_same_key_gives_the_same_step_and_another_key_another(batch):
    task = make_task(augmentation=Augmentation(brightness=0.2))
    loss = lambda key: float(classify.train_step(task, start(task), batch, jax.random.key(key))[1]['loss'])
    assert loss(1) == loss(1) != loss(2)


def test_the_average_follows_the_published_formula(batch):
    task = make_task(ema=0.5)
    state = start(task)
    average = np.asarray(state.variables['params']['Dense_0']['kernel'], np.float64)
    for step in range(12):
        state, _ = classify.train_step(task, state, batch, jax.random.key(step))
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * np.asarray(state.variables['params']['Dense_0']['kernel'])
        np.testing.assert_allclose(state.average['params']['Dense_0']['kernel'], average, atol=1e-6)


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_what_evaluation_reads_and_the_rest_make_the_whole(batch, ema):
    task = make_task(optax.adam(0.1), ema=ema)
    state, _ = classify.train_step(task, start(task), batch, jax.random.key(0))
    model, rest = state.split()
    expected = state.average if ema else state.variables
    jax.tree.map(np.testing.assert_array_equal, model, expected)
    again = start(task).join(model, rest)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(batch):
    task = make_task(optax.adam(0.1), ema=0.9)
    state, _ = classify.train_step(task, start(task), batch, jax.random.key(0))
    broken = state.replace(
        variables=jax.tree.map(jnp.copy, state.variables)
        | {'params': jax.tree.map(lambda leaf: leaf.at[0].set(jnp.inf), state.variables['params'])}
    )
    after, metrics = classify.train_step(task, broken, batch, jax.random.key(1))
    assert not np.isfinite(metrics['loss'])
    jax.tree.map(np.testing.assert_array_equal, after.variables, broken.variables)
    jax.tree.map(np.testing.assert_array_equal, after.optimizer, state.optimizer)
    assert (int(after.step), int(after.bad_steps)) == (2, 1)
    after, _ = classify.train_step(task, after, batch, jax.random.key(2))
    assert int(after.bad_steps) == 2
    well, _ = classify.train_step(task, after.replace(variables=state.variables), batch, jax.random.key(3))
    assert int(well.bad_steps) == 0
    assert (
        np.abs(well.variables['params']['Dense_0']['kernel'] - state.variables['params']['Dense_0']['kernel']).max() > 0
    )


def test_a_step_that_is_not_finite_leaves_the_average_alone(batch):
    task = make_task(optax.sgd(0.1), ema=0.5)
    state = start(task)
    for step in range(3):
        state, _ = classify.train_step(task, state, batch, jax.random.key(step))
    bad = {**batch, 'images': batch['images'].astype(np.float32) * np.nan}
    after, _ = classify.train_step(task, state, bad, jax.random.key(9))
    assert int(after.bad_steps) == 1
    jax.tree.map(np.testing.assert_array_equal, after.average, state.average)


def test_an_infinite_gradient_under_a_finite_loss_counts_too():
    state = start(make_task())
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.variables['params'])
    after = classify._update(make_task(), state, gradients, {}, jnp.asarray(1.0))
    assert int(after.bad_steps) == 1


def test_weight_decay_spares_biases(batch):
    decayed = make_task(make_optimizer(OptimizerOptions('adamw', weight_decay=0.5), optax.constant_schedule(0.1)))
    plain = make_task(make_optimizer(OptimizerOptions('adamw'), optax.constant_schedule(0.1)))
    before = start(plain).variables['params']['Dense_0']
    one, other = (
        classify.train_step(task, start(task), batch, jax.random.key(0))[0].variables['params']['Dense_0']
        for task in (decayed, plain)
    )
    np.testing.assert_array_equal(one['bias'], other['bias'])
    np.testing.assert_allclose(other['kernel'] - one['kernel'], 0.1 * 0.5 * before['kernel'], atol=1e-6)


def test_the_plateaus_scale_multiplies_the_change(batch):
    task = make_task(plateau=make_plateau(ScheduleOptions()))
    state = start(task)
    lowered = state.replace(plateau=state.plateau._replace(scale=jnp.asarray(0.25)))
    change = lambda state: jax.tree.map(
        jnp.subtract,
        classify.train_step(task, state, batch, jax.random.key(0))[0].variables['params'],
        state.variables['params'],
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 4 * b, atol=1e-6), change(state), change(lowered))


# --- mixup and cutmix ---


def mix(key, mixup, cutmix, n=6, side=20):
    """Images that hold their own index, and one-hot targets, mixed."""
    images = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones((1, side, side, 1), np.float32)
    targets = np.eye(n, dtype=np.float32)
    return [np.asarray(part) for part in classify.mix(jax.random.key(key), images, targets, mixup, cutmix)]


def test_mixup_blends_pixels_and_targets_by_one_share():
    shares = []
    for key in range(40):
        images, targets = mix(key, 1.0, 0.0)
        share = targets[0, 0]
        shares.append(share)
        index = np.arange(6.0)
        np.testing.assert_allclose(images[:, 3, 4, 0], share * index + (1 - share) * index[::-1], atol=1e-5)
        np.testing.assert_allclose(images, np.broadcast_to(images[:, :1, :1], images.shape), atol=1e-6)
        np.testing.assert_allclose(targets, share * np.eye(6) + (1 - share) * np.eye(6)[::-1], atol=1e-6)
    assert 0.35 < np.mean(shares) < 0.65
    assert np.std(shares) > 0.2  # Beta(1, 1) is uniform: 0.289


def test_cutmix_targets_say_which_share_of_the_pixels_each_has():
    seen = []
    for key in range(40):
        images, targets = mix(key, 0.0, 1.0)
        own = (images[0, :, :, 0] == 0).mean()
        assert set(np.unique(images[0])) <= {0.0, 5.0}
        np.testing.assert_allclose(targets[0, [0, 5]], [own, 1 - own], atol=1e-6)
        other = images[0, :, :, 0] == 5
        if other.any():
            rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
            assert other.sum() == len(rows) * len(columns)  # one rectangle
        seen.append(own)
    assert min(seen) < 0.3
    assert max(seen) > 0.95


def test_with_both_a_coin_decides():
    cut = [len(np.unique(mix(key, 1.0, 1.0)[0][0])) for key in range(40)]
    blended = [len(np.setdiff1d(mix(key, 1.0, 1.0)[0][0], [0.0, 5.0])) > 0 for key in range(40)]
    assert 10 < sum(blended) < 30
    assert max(cut) == 2


def test_mixed_losses_keep_the_share_of_each_label(batch):
    """With a linear loss in the targets, the mixed batch's loss is the blend of both labels' losses."""
    weights = (5.0, 1.0, 0.5)
    task = make_task(mixup=1.0, class_weights=weights)
    state, key = start(task), jax.random.key(5)
    mix_key = jax.random.split(key, 3)[1]
    images = (batch['images'] - 100.0) / 50.0
    one_hot = np.eye(3, dtype=np.float32)[batch['labels']]
    mixed, targets = classify.mix(mix_key, images, one_hot, 1.0, 0.0)
    logits = task.model.apply(state.variables, mixed)[0]
    # Each image costs its two labels' weighted losses, by their shares.
    expected = -(targets * np.array(weights) * jax.nn.log_softmax(logits)).sum(-1).mean()
    _, metrics = classify.train_step(task, state, batch, key)
    np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)
    right = logits.argmax(-1) == targets.argmax(-1)
    assert float(metrics['accuracy']) == pytest.approx(float(right.mean()))


def test_soft_targets_mix_and_the_accuracy_stays_by_label(batch):
    """Each target lies on the class after its label: whoever confuses the two counts other ones as correct."""
    soft = np.eye(3, dtype=np.float32)[(batch['labels'] + 1) % 3] * 0.8 + 0.2 * np.eye(3, dtype=np.float32)[0]
    task = make_task(mixup=1.0)
    state, key = start(task), jax.random.key(5)
    images = (batch['images'] - 100.0) / 50.0
    one_hot = np.eye(3, dtype=np.float32)[batch['labels']]
    mixed, (labels, targets) = classify.mix(jax.random.split(key, 3)[1], images, (one_hot, soft), 1.0, 0.0)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    logits = task.model.apply(state.variables, mixed)[0]
    _, metrics = classify.train_step(task, state, batch | {'targets': soft}, key)
    expected = -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()
    np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)
    right = logits.argmax(-1) == labels.argmax(-1)
    assert float(metrics['accuracy']) == pytest.approx(float(right.mean()))
    assert int(right.sum()) != int((logits.argmax(-1) == targets.argmax(-1)).sum())
