"""How much work a function is, counted without running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fer_jax.models.convolution import as_written


def count_operations(function: Callable, *arguments: Any) -> float:
    """Floating-point operations as XLA counts them in the program it is given, before it makes it faster.

    By its CPU backend, whatever runs the function: that of GPUs counts nothing before it compiles (jax 0.11). Layers
    are counted as they are written, not by what a CPU does in their place.

    Args:
        arguments: arrays, or what has their shapes.
    """
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arguments)
    try:
        cpu = jax.local_devices(backend='cpu')[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return jax.jit(function).lower(*shapes).compile().cost_analysis()['flops']
    with jax.default_device(cpu), as_written():
        return jax.jit(function).lower(*shapes).cost_analysis()['flops']
