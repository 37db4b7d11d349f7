"""Convolutions by oneDNN, which lies within jaxlib and to which XLA's CPU backend hands none of its own accord.

jaxlib is built with what runs oneDNN's convolutions and products of matrices (`__onednn$convolution` and `matmul`:
OneDnnOpThunk of openxla/xla) and without the pass that would make such a call of a convolution. So it is written here.

Shape letters: B images, I and O input and output channels.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.fusion import turn

# Of jaxlib, in which these calls were tried (tests/models/test_onednn.py). What one cannot read ends the process.
_RELEASES = ('0.10.0', '0.10.1', '0.10.2', '0.11.0', '0.11.1', '0.11.2')
_CALLS = '__onednn$'
_without = contextvars.ContextVar('without', default=False)


def types() -> tuple[str, ...]:
    """Names of the types whose convolutions oneDNN can compute here; none where it is not known to.

    Of which it does is said in `fer_jax.models.convolution.by_onednn`.

    On Linux and x86-64, with a jaxlib that was tried, and one device: a program that is cut over several would be
    brought together for it. With AVX-512: held to AVX2, steps ran at .93 to 1.08 of the rate without, which does not
    pay for compiling them at every start. In bfloat16 where the processor has that. FER_JAX_ONEDNN=0 switches it off.
    There are no second derivatives.
    """
    off = _without.get() or os.environ.get('FER_JAX_ONEDNN', '1') in ('', '0')
    if off or jax.device_count() > 1 or not _left_out_of_cache():
        return ()
    return _types_here()


@contextlib.contextmanager
def without() -> Iterator[None]:
    """Programs traced within call no oneDNN: those are kept once compiled, which is worth more to a short command.

    JAX does not know of it, so that a function which was traced before stays what it was.
    """
    token = _without.set(True)
    try:
        yield
    finally:
        _without.reset(token)


@functools.cache
def _types_here() -> tuple[str, ...]:
    known = sys.platform == 'linux' and platform.machine() == 'x86_64' and jax.lib.__version__ in _RELEASES
    words = set()
    with contextlib.suppress(OSError), open('/proc/cpuinfo') as file:
        words = set(next((line for line in file if line.startswith('flags')), '').split())
    held_back = {'ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA'} & set(os.environ)
    wide = {'avx512bw', 'avx512vl', 'avx512dq'} <= words and not held_back
    if not known or not wide:
        return ()
    return ('float32', 'bfloat16') if 'avx512_bf16' in words else ('float32',)


def convolve(
    x: Float[Array, 'B *pixels I'],
    kernel: Float[Array, '*sides I O'],
    padding: Sequence[tuple[int, int]],
    strides: Sequence[int] = (),
    dilation: Sequence[int] = (),
) -> Float[Array, 'B *out O']:
    """A convolution over one axis or more, as jax.lax.conv_general_dilated has it.

    Args:
        padding: zeros before and after each axis; a negative number leaves pixels out.
        strides, dilation: of the kernel's places and of its numbers; 1 where not given.

    Raises:
        TypeError: if types or channels differ, or no place is left for the kernel: in the call this ends the process.
    """
    rank = x.ndim - 2
    if x.dtype != kernel.dtype or x.shape[-1] != kernel.shape[rank]:
        raise TypeError(f'a convolution of {x.dtype}{x.shape} with a kernel of {kernel.dtype}{kernel.shape}')
    strides, dilation = tuple(strides) or (1,) * rank, tuple(dilation) or (1,) * rank
    cut = [slice(max(0, -low), size - max(0, -high)) for size, (low, high) in zip(x.shape[1:], padding, strict=False)]
    x = x[(slice(None), *cut)]
    padding = [(max(0, low), max(0, high)) for low, high in padding]
    sides = [
        (size + low + high - (side - 1) * apart - 1) // stride + 1
        for size, side, (low, high), stride, apart in zip(
            x.shape[1:], kernel.shape, padding, strides, dilation, strict=False
        )
    ]
    if min(*sides, len(x)) <= 0:
        raise TypeError(f'a convolution of {x.shape} with a kernel of {kernel.shape} leaves nothing')
    axes = list(range(1, rank + 1))
    data = {'dims': rank + 2, 'data': {'batch_dim': 0, 'feature_dim': rank + 1, 'spatial_dims': axes}}
    of_kernel = {'input_feature_dim': rank, 'output_feature_dim': rank + 1, 'spatial_dims': list(range(rank))}
    config = {
        'dims': rank + 2,
        'input': data,
        'kernel': {'dims': rank + 2, 'filter': of_kernel},
        'output': data,
        'window': {
            'size': kernel.shape[:rank],
            'pad_left': [low for low, _ in padding],
            'pad_right': [high for _, high in padding],
            'strides': strides,
            'window_dilations': dilation,
        },
        'feature_groups': 1,
    }
    like = jax.ShapeDtypeStruct((len(x), *sides, kernel.shape[-1]), x.dtype)
    return _call('convolution', {'onednn_conv_config': config}, like, x, kernel)


def product(first: Float[Array, 'N I'], second: Float[Array, 'N O']) -> Float[Array, 'I O']:
    """The first matrix transposed, times the second."""
    like = jax.ShapeDtypeStruct((first.shape[1], second.shape[1]), first.dtype)
    return _call('matmul', {'onednn_matmul_config': {'transpose_a': True}}, like, first, second)


def _call(name: str, config: dict, like: jax.ShapeDtypeStruct, *arrays: Array) -> Array:
    call = jax.ffi.ffi_call(
        _CALLS + name,
        like,
        vmap_method='sequential',
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(config),
    )
    return call(*arrays)


def gradient_by_input(
    kernel: Float[Array, 'K L I O'],
    change: Float[Array, 'B H2 W2 O'],
    shape: Sequence[int],
    padding: Sequence[tuple[int, int]],
    strides: Sequence[int],
) -> Float[Array, 'B H W I']:
    """The gradient by an input of that shape: a convolution of the output's with the kernel turned by half a circle.

    With a stride S, pixels that lie S apart have the kernel's numbers that lie S apart, so that each of S times S sets
    of pixels is such a convolution. Padding before an axis of such a stride may not be negative.
    """
    of_axis = [
        _phases(size, side, out, low, stride)
        for size, side, out, (low, _), stride in zip(
            shape[1:3], kernel.shape, change.shape[1:3], padding, strides, strict=False
        )
    ]
    turned = turn(kernel, (0, 1, 3, 2))
    parts = [
        [
            convolve(change, turned[rows, columns], (pad_rows, pad_columns))
            if turned[rows, columns].size
            else jnp.zeros((len(change), count, wide, shape[3]), change.dtype)
            for columns, pad_columns, wide in of_axis[1]
        ]
        for rows, pad_rows, count in of_axis[0]
    ]
    if len(parts) == len(parts[0]) == 1:
        whole = parts[0][0]
    else:
        whole = jnp.stack([jnp.stack(row, 3) for row in parts], 2)  # B, q, S, q, S, I
        whole = whole.reshape(len(change), *(whole.shape[axis] * whole.shape[axis + 1] for axis in (1, 3)), shape[3])
    top, left = (low if stride > 1 else 0 for (low, _), stride in zip(padding, strides, strict=True))
    return whole[:, top : top + shape[1], left : left + shape[2]]


def _phases(size: int, side: int, out: int, low: int, stride: int) -> list[tuple[slice, tuple[int, int], int]]:
    """For each remainder of a pixel's place by the stride: which numbers of the kernel, turned; border; how many."""
    if stride == 1:
        return [(slice(None, None, -1), (side - 1 - low, size + low - out), size)]
    count = -(-(size + low) // stride)
    found = []
    for remainder in range(stride):
        length = -(-(side - remainder) // stride)
        numbers = slice(remainder + (length - 1) * stride, None, -stride) if length > 0 else slice(0, 0)
        found.append((numbers, (length - 1, count - out), count))
    return found


def gradient_by_kernel(
    x_HWIB: Float[Array, 'H W I B'],
    change_HWBO: Float[Array, 'H2 W2 B O'],
    ends: Sequence[tuple[int, int]],
    strides: Sequence[int],
) -> Float[Array, 'K L I O']:
    """The gradient by a kernel, as a convolution over three axes: rows, columns and input channels.

    At each place of the kernel the product of two matrices [I, B] and [B, O] is summed over all pixels, so that images
    take the channels' place. A row of I values is as wide as a matrix product wants, where the kernel's own width of
    three or five is not.

    Args:
        ends: zeros before and after rows and columns with which the output's gradient has the kernel's places.
    """
    return convolve(x_HWIB[None], change_HWBO[:, :, None], (*ends, (0, 0)), dilation=(*strides, 1))[0]


@functools.cache
def _left_out_of_cache() -> bool:
    """Has JAX's cache of compiled programs leave out those with such calls: they cannot be written (jaxlib 0.10.2)."""
    try:
        from jax._src import compilation_cache

        put = compilation_cache.put_executable_and_time
    except (ImportError, AttributeError):
        return False

    def put_others(cache_key, module_name, executable, backend, compile_time):
        if not any(_CALLS in module.to_string() for module in executable.hlo_modules()):
            put(cache_key, module_name, executable, backend, compile_time)

    compilation_cache.put_executable_and_time = put_others
    return True
