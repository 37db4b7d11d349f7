"""The training step of a classifier: a pure function `(state, batch, key) -> (state, metrics)`.

Shape letters: B images of a batch, H and W pixels, C channels, K classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from fer_jax.data.augment import Augmentation, augment
from fer_jax.data.preprocess import Preprocessing, normalize
from fer_jax.models.fusion import for_each_member
from fer_jax.models.initial import init_variables
from fer_jax.training.state import TaskState, no_steps


@flax.struct.dataclass
class State(TaskState):
    """What a training step changes; counts and average are those of `TaskState`.

    Attributes:
        variables: the network's collections: `params`, and `batch_stats` where it has BatchNorm.
        optimizer: the optimiser's state.
        plateau: state of `optax.contrib.reduce_on_plateau`, whose `scale` multiplies the update, or None.
        teachers: variables of the task's teachers: of each group its members', with a leading axis.
    """

    trained = 'variables'
    fixed = ('teachers',)

    step: Array
    variables: Any
    optimizer: Any
    average: Any
    plateau: Any
    bad_steps: Array
    worst: Array
    teachers: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network, of one member or several, that reads the learner's images.

    Attributes:
        model: network that maps images to logits and intermediates.
        temperature: by which its logits are divided.
        scale, shift: what make its normalisation of the learner's, where both go by figures of training pixels.
    """

    model: nn.Module
    temperature: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclasses.dataclass(frozen=True)
class Task:
    """What stays the same over a run.

    Attributes:
        model: network that maps images to logits and intermediates.
        optimizer: optax transformation.
        plateau: `optax.contrib.reduce_on_plateau`, updated between steps with the validation loss, or None.
        preprocessing: window and normalisation.
        augmentation: ranges of the random changes.
        class_weights: K factors on each class's term of the loss, or () for none.
        label_smoothing, mixup, cutmix, ema, teacher_share: see `config.train`.
        teachers: one for each group of members that stack; their variables are the state's.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    preprocessing: Preprocessing
    plateau: optax.GradientTransformationExtraArgs | None = None
    augmentation: Augmentation = Augmentation()
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    teachers: tuple[Teacher, ...] = ()
    teacher_share: float = 1.0


@functools.partial(jax.jit, static_argnums=0)  # every array of it by itself takes two to four times as long to compile
def init_state(task: Task, key: Key[Array, '']) -> State:
    """Fresh parameters and optimiser state."""
    side, channels = task.preprocessing.input_side, task.preprocessing.channels
    variables = init_variables(task.model, (side, side, channels), key)
    return State(
        variables=variables,
        optimizer=task.optimizer.init(variables['params']),
        average=jax.tree.map(jnp.copy, variables) if task.ema else None,
        plateau=task.plateau.init(variables['params']) if task.plateau else None,
        **no_steps(),
    )


def train_step(
    task: Task, state: State, batch: dict[str, Array], key: Key[Array, '']
) -> tuple[State, dict[str, Array]]:
    """One update.

    Args:
        task: static.
        state: before the step.
        batch: `images` uint8 [B, H, W, C], `labels` int32 [B], and perhaps `targets` float32 [B, K], probabilities
            of the classes that the loss takes in place of the labels.
        key: the step's own.

    Returns:
        The state after it, and means over the batch: `loss`, and `accuracy` (how often the network had the label right
        under its augmented view; with mixup or cutmix, the label of the larger share).
    """
    augment_key, mix_key, dropout_key = jax.random.split(key, 3)
    num_classes = task.model.num_classes
    images = augment(augment_key, batch['images'], task.augmentation, task.preprocessing.crop)
    images_BHWC = normalize(images, task.preprocessing)
    labels_BK = jax.nn.one_hot(batch['labels'], num_classes)
    targets_BK = batch.get('targets', labels_BK)
    if task.mixup or task.cutmix:
        images_BHWC, (labels_BK, targets_BK) = mix(
            mix_key, images_BHWC, (labels_BK, targets_BK), task.mixup, task.cutmix
        )
    # A weight belongs to a class's term, so that a mixed image weighs its two labels each by their own.
    weighted_BK = optax.smooth_labels(targets_BK, task.label_smoothing) * jnp.asarray(task.class_weights or 1.0)
    if task.teachers:
        taught_BK = teach(task.teachers, state.teachers, images_BHWC)
        weighted_BK = task.teacher_share * taught_BK + (1 - task.teacher_share) * weighted_BK

    def loss_fn(params):
        (logits_BK, _), updates = task.model.apply(
            {**state.variables, 'params': params},
            images_BHWC,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': dropout_key},
        )
        loss = jnp.mean(optax.softmax_cross_entropy(logits_BK, weighted_BK))
        return loss, (logits_BK, updates)

    (loss, (logits_BK, updates)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.variables['params'])
    accuracy = jnp.mean(logits_BK.argmax(-1) == labels_BK.argmax(-1))
    return _update(task, state, gradients, updates, loss), {'loss': loss, 'accuracy': accuracy}


def teach(
    teachers: Sequence[Teacher], variables: Sequence[Any], images_BHWC: Float[Array, 'B H W C']
) -> Float[Array, 'B K']:
    """The mean of the members' probabilities for the learner's normalised images; every member counts once."""

    def read(teacher, of_member):
        # Images that were mixed after they were normalised are so still, since shares add up to one.
        logits_BK, _ = teacher.model.apply(of_member, images_BHWC * teacher.scale + teacher.shift)
        return jax.nn.softmax(logits_BK.astype(jnp.float32) / teacher.temperature)

    # One after the other: batched convolutions with different kernels are slower on a CPU.
    of_groups = [
        for_each_member(functools.partial(read, teacher), of_group)
        for teacher, of_group in zip(teachers, variables, strict=True)
    ]
    return jnp.concatenate(of_groups).mean(0)


def _update(task: Task, state: State, gradients, collections, loss) -> State:
    params = state.variables['params']
    changes, optimizer = task.optimizer.update(gradients, state.optimizer, params)
    if state.plateau is not None:
        changes = jax.tree.map(lambda change: state.plateau.scale * change, changes)
    variables = {**state.variables, **collections, 'params': optax.apply_updates(params, changes)}
    return state.advance(loss, gradients, task.ema, variables=variables, optimizer=optimizer)


def mix(
    key: Key[Array, ''],
    images_BHWC: Float[Array, 'B H W C'],
    targets_BK: Float[Array, 'B K'] | tuple[Float[Array, 'B K'], ...],
    mixup: float,
    cutmix: float,
) -> tuple[Array, Any]:
    """Mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019) of each image with one partner; a coin decides if both.

    The partner is the mirrored position in the batch, which is in random order already. Targets (one array, or
    several) mix by the share of the image that each label really has.
    """
    share_key, coin_key, box_key = jax.random.split(key, 3)
    use_cutmix = jax.random.bernoulli(coin_key) if mixup and cutmix else jnp.asarray(bool(cutmix))
    alpha = jnp.where(use_cutmix, cutmix or 1.0, mixup or 1.0)
    share = jax.random.beta(share_key, alpha, alpha)
    height, width = images_BHWC.shape[1:3]
    box_h, box_w = jnp.sqrt(1 - share) * height, jnp.sqrt(1 - share) * width
    centre_y, centre_x = jax.random.uniform(box_key, (2,)) * jnp.array([height, width])
    y, x = jnp.arange(height)[:, None, None] + 0.5, jnp.arange(width)[None, :, None] + 0.5
    inside = (jnp.abs(y - centre_y) < box_h / 2) & (jnp.abs(x - centre_x) < box_w / 2)
    share = jnp.where(use_cutmix, 1 - inside.mean(), share)
    pixel_share = jnp.where(use_cutmix, 1.0 - inside, share)
    blend = lambda values, share: share * values + (1 - share) * values[::-1]
    return blend(images_BHWC, pixel_share), jax.tree.map(lambda targets: blend(targets, share), targets_BK)
