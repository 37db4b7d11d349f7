"""Logits of many members for many images, in one compiled program per architecture.

Shape letters: M members, N images, K classes, V views of test-time augmentation, H, W, C as stored.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from fer_jax.data.preprocess import Preprocessing, views


def stack_members(members: Sequence[Any]) -> Any:
    """The members' variables as one tree with a leading axis M."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *members)


def make_predict(
    model: nn.Module, preprocessing: Preprocessing, tta: str = 'none', map_members: bool | None = None
) -> Callable[[Any, UInt8[Array, 'N H W C']], Float[Array, 'M N K']]:
    """A compiled function from stacked variables and stored images to logits.

    With several views, the logits returned are the logarithm of the views' mean probability, so that a softmax
    gives that mean.

    Args:
        map_members: run the members one after the other inside the program instead of as one batch. None: on a
            CPU, where a batch of convolutions with different kernels is slower.
    """
    one_by_one = jax.default_backend() == 'cpu' if map_members is None else map_members

    @jax.jit
    def predict(variables_M, images_NHWC):
        inputs_VNSSC = views(images_NHWC, tta, preprocessing)
        v, n, *shape = inputs_VNSSC.shape

        def logits_of(variables):
            logits, _ = model.apply(variables, inputs_VNSSC.reshape(v * n, *shape))
            if v == 1:
                return logits
            log_probabilities_VNK = jax.nn.log_softmax(logits).reshape(v, n, -1)
            return jax.nn.logsumexp(log_probabilities_VNK, 0) - jnp.log(v)

        return jax.lax.map(logits_of, variables_M) if one_by_one else jax.vmap(logits_of)(variables_M)

    return predict


def predict_split(
    predict: Callable, variables_M: Any, images_NHWC: np.ndarray, batch_size: int, progress: str | None = None
) -> Float[np.ndarray, 'M N K']:
    """Runs `make_predict`'s function over a split; the last batch is padded to the full size and cut again.

    Args:
        images_NHWC: an array, or what reads when it is indexed: the next batch is read while the device works.
        progress: words for a progress bar; None shows none.
    """
    n = len(images_NHWC)
    batch_size = min(batch_size, n)
    logits = []

    def read(start):
        batch = images_NHWC[start : start + batch_size]
        padding = batch_size - len(batch)
        return np.concatenate([batch, np.repeat(batch[-1:], padding, 0)]) if padding else batch

    bar = tqdm(total=n, desc=progress, unit='image', disable=progress is None, dynamic_ncols=True)
    with bar, concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for start in range(0, n, batch_size):
            batch = coming.result()
            if start + batch_size < n:
                coming = reader.submit(read, start + batch_size)
            # Kept on the device until the end, so that the next batch is sent while this one runs; but no more than
            # that, or the device would fill with batches.
            jax.block_until_ready(logits[-2:-1])
            logits.append(predict(variables_M, batch))
            bar.update(min(batch_size, n - start))
        return np.concatenate([np.asarray(part, np.float32) for part in logits], 1)[:, :n]
