"""Muon (Jordan 2024) with the matrices of a network orthogonalised together, those of one shape in one batch.

optax's own takes one kernel after the other: a chain of fifteen small products for each, which leaves a GPU idle. The
state is the one of `optax.contrib.muon`, and so are the numbers.

Shape letters: G kernels of one shape, R and C the shorter and the longer side of their matrices.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

_A, _B, _C = 3.4445, -4.775, 2.0315  # of the quintic iteration (Jordan 2024), whose slope at zero is the largest
_ITERATIONS = 5


def muon(
    rate: Callable[[Any], Any],
    adam_rate: Callable[[Any], Any],
    *,
    is_matrix: Callable[[tuple, Array], bool],
    beta: float,
    nesterov: bool,
    weight_decay: float,
    b1: float,
    b2: float,
) -> optax.GradientTransformation:
    """Muon for kernels, as matrices from all but the last axis to the last; Adam for the rest, which does not decay.

    Args:
        rate, adam_rate: learning rates as functions of the step.
        is_matrix: says of a parameter's path and array whether it is a kernel for Muon; the others go to Adam.
        beta: of the momentum; `nesterov` holds for both parts.
        weight_decay: decoupled, of the kernels.
        b1, b2: Adam's.
    """

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, array: 'muon' if is_matrix(path, array) else 'adam', params
        )

    def dimensions(params):
        return jax.tree.map(lambda array: optax.contrib.MuonDimensionNumbers((*range(array.ndim - 1),), -1), params)

    momentum = optax.contrib.scale_by_muon(
        ns_steps=0, beta=beta, nesterov=nesterov, weight_dimension_numbers=dimensions
    )
    kernels = optax.chain(
        momentum,
        optax.stateless(lambda updates, _: orthogonalize(updates)),
        # They are kernels all; optax's Muon has a mask here, and so has the state of earlier runs.
        optax.add_decayed_weights(weight_decay, lambda params: jax.tree.map(lambda array: array.ndim > 1, params)),
        optax.scale_by_learning_rate(rate),
    )
    rest = optax.adamw(adam_rate, b1, b2, weight_decay=0.0, nesterov=nesterov)
    return optax.partition({'muon': kernels, 'adam': rest}, labels)


def orthogonalize(kernels: Any) -> Any:
    """The nearest semi-orthogonal matrices, about, times sqrt(outputs / inputs) where there are more outputs.

    Args:
        kernels: tree of arrays [..., outputs] of two or more dimensions.
    """
    leaves, structure = jax.tree.flatten(kernels)
    groups = collections.defaultdict(list)
    for place, kernel in enumerate(leaves):
        rows, columns = int(np.prod(kernel.shape[:-1])), kernel.shape[-1]
        groups[min(rows, columns), max(rows, columns), kernel.dtype].append(place)
    for places in groups.values():
        wide = [_matrix(leaves[place]) for place in places]
        wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in wide]
        for place, matrix in zip(places, _newton_schulz(jnp.stack(wide)), strict=True):
            rows, columns = _matrix(leaves[place]).shape
            matrix = matrix.T if rows > columns else matrix
            leaves[place] = (matrix * max(1.0, columns / rows) ** 0.5).reshape(leaves[place].shape)
    return jax.tree.unflatten(structure, leaves)


def _matrix(kernel: Array) -> Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _newton_schulz(x_GRC: Float[Array, 'G R C']) -> Float[Array, 'G R C']:
    x_GRC = x_GRC / (jnp.sqrt(jnp.square(x_GRC).sum((1, 2), keepdims=True)) + 1e-8)
    for _ in range(_ITERATIONS):
        gram_GRR = x_GRC @ x_GRC.mT
        x_GRC = _A * x_GRC + (_B * gram_GRR + _C * gram_GRR @ gram_GRR) @ x_GRC
    return x_GRC
