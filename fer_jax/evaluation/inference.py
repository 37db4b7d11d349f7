"""Logits of many members for many images, in one compiled program per architecture.

Shape letters: M members, N images, K classes, V views of test-time augmentation, H, W, C as stored, S side of a window.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from fer_jax.data.preprocess import Preprocessing, views
from fer_jax.models.fusion import for_each_member
from fer_jax.training.mesh import Placement

_BUSY = 64  # inputs of a device; argued, not measured: a batch of convolutions with different kernels is a grouped one


def stack_members(members: Sequence[Any]) -> Any:
    """The members' variables as one tree with a leading axis M."""
    return _stack(*members)


@jax.jit  # one program, not one for every shape
def _stack(*members: Any) -> Any:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *members)


def make_predict(
    model: nn.Module,
    preprocessing: Preprocessing,
    tta: str = 'none',
    temperature: float = 1.0,
    map_members: bool | None = None,
    placement: Placement | None = None,
) -> Callable[[Any, UInt8[Array, 'N H W C']], Float[Array, 'M N K']]:
    """A compiled function from stacked variables and stored images to logits.

    With several views, the logits returned are the logarithm of the views' mean probability, so that a softmax
    gives that mean. Then they are divided by the temperature (Guo et al. 2017).

    Args:
        temperature: above 1 it makes probabilities less sure.
        map_members: run the members one after the other inside the program instead of as one batch. None: where a
            batch of convolutions with different kernels is slower, on a CPU and with as many inputs as keep an
            accelerator busy with one member.
        placement: of the devices that work on a batch together; each gets all of its logits. None: one device.
    """

    @functools.partial(jax.jit, out_shardings=placement and placement.replicated)
    def predict(variables_M, images_NHWC):
        # The views of an image in a row, so that they stay on its device.
        inputs_NVSSC = views(images_NHWC, tta, preprocessing).swapaxes(0, 1)
        logits_of = functools.partial(logits_of_views, model, inputs_NVSSC=inputs_NVSSC, temperature=temperature)
        one_by_one = map_members
        if one_by_one is None:
            alone = len(jax.tree.leaves(variables_M)[0]) == 1
            n, v = inputs_NVSSC.shape[:2]
            devices = placement.num_devices if placement else 1
            one_by_one = alone or jax.default_backend() == 'cpu' or n * v >= _BUSY * devices
        return for_each_member(logits_of, variables_M) if one_by_one else jax.vmap(logits_of)(variables_M)

    return predict


def logits_of_views(
    model: nn.Module, variables: Any, inputs_NVSSC: Float[Array, 'N V S S C'], temperature: float = 1.0
) -> Float[Array, 'N K']:
    """One member's logits, as `make_predict` gives them."""
    _, v, *shape = inputs_NVSSC.shape
    logits, _ = model.apply(variables, inputs_NVSSC.reshape(-1, *shape))
    if v == 1:
        return logits / temperature
    log_probabilities_NVK = jax.nn.log_softmax(logits).reshape(-1, v, logits.shape[-1])
    return (jax.nn.logsumexp(log_probabilities_NVK, 1) - jnp.log(v)) / temperature


def predict_split(
    predict: Callable,
    variables_M: Any,
    images_NHWC: np.ndarray,
    batch_size: int,
    progress: str | None = None,
    placement: Placement | None = None,
) -> Float[np.ndarray, 'M N K']:
    """Runs `make_predict`'s function over a split; see `map_batches`.

    Args:
        variables_M: on one device, or on all of the placement.
        placement: the one that `make_predict` was given.

    Returns:
        Every image's logits, in every process.
    """
    logits = map_batches(functools.partial(predict, variables_M), images_NHWC, batch_size, 1, progress, placement)
    return logits.astype(np.float32, copy=False)


def map_batches(
    function: Callable[[UInt8[Array, 'B H W C']], Array],
    images_NHWC: np.ndarray,
    batch_size: int,
    axis: int = 0,
    progress: str | None = None,
    placement: Placement | None = None,
) -> np.ndarray:
    """Runs a compiled function over images; the last batch is padded to the full size and cut again.

    Args:
        function: gives an array with the images along `axis`; of several processes, all of it to each.
        images_NHWC: an array, or what reads when it is indexed: the next batch is read while the device works. Of
            several processes each reads its share of every batch.
        batch_size: over all devices; what they do not share evenly is padded.
        progress: words for a progress bar; None shows none.
        placement: of the devices that work together; None: one device.

    Returns:
        The results for all images, in every process.
    """
    n = len(images_NHWC)
    devices = placement.num_devices if placement else 1
    batch_size = -(-min(batch_size, n) // devices) * devices
    share = batch_size // jax.process_count() if placement else batch_size
    results = []

    def read(start):
        start = start + jax.process_index() * share if placement else start
        part = images_NHWC[start : start + share] if start < n else np.zeros((0, *images_NHWC.shape[1:]), np.uint8)
        return np.concatenate([part, np.zeros((share - len(part), *part.shape[1:]), part.dtype)])

    def put(part):
        if placement is None:
            return part
        return jax.make_array_from_process_local_data(placement.split(0), part, (batch_size, *part.shape[1:]))

    bar = tqdm(total=n, desc=progress, unit='image', disable=progress is None, dynamic_ncols=True)
    with bar, concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for start in range(0, n, batch_size):
            batch = coming.result()
            if start + batch_size < n:
                coming = reader.submit(read, start + batch_size)
            # Kept on the device until the end, so that a GPU is sent the next batch while this one runs; but no more
            # than that, or it would fill with batches.
            jax.block_until_ready(results[-2:-1])
            results.append(function(put(batch)))
            bar.update(min(batch_size, n - start))
        whole = np.concatenate([np.asarray(part) for part in results], axis)
    return whole[(slice(None),) * axis + (slice(n),)]
