"""ONNX: JAX functions written as it by the package jax2onnx, checked by onnx, run by onnxruntime.

The packages are imported when they are needed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import fer_jax
from fer_jax.errors import UserError

_PACKAGES = ('jax2onnx', 'onnx', 'onnxruntime')
OPSET = 21  # of 2024: onnxruntime from 1.20 on
_MOST_BYTES = 2**31 - 1  # of a protobuf message
METADATA = 'fer_jax'
# Plug-ins of jax2onnx for libraries that are not used here, and its examples: on import they make and compile layers to
# try themselves with, which took 13 of 15 seconds of a processor's time.
_LEFT_OUT = ('equinox', 'dm_pix', 'jax2onnx.plugins.examples')


def check_packages() -> None:
    """Refuses where the extra is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}; install it with: pip install 'fer_jax[export]'")


def to_onnx(
    function: Callable,
    shape: Sequence[str | int],
    names: tuple[str, Sequence[str]],
    description: Mapping[str, Any] | None = None,
) -> bytes:
    """The function of one uint8 array as an ONNX model, checked.

    Args:
        shape: of the array; letters stand for sizes that are free.
        names: of the input and the outputs.
        description: what the model's metadata says, as JSON under the key METADATA.

    Raises:
        UserError: if it would have more than two gigabytes, which no ONNX file can.
    """
    import onnx

    with _quietly(), jax.disable_jit():  # a jitted part that comes twice is more than jax2onnx 0.13 takes of jax 0.11
        from jax2onnx import to_onnx as convert

        sizes = jax.export.symbolic_shape(', '.join(map(str, shape)))
        spec = jax.ShapeDtypeStruct(sizes, np.uint8)
        try:
            model = convert(function, [spec], opset=OPSET, input_names=[names[0]], output_names=list(names[1]))
        except ValueError as error:
            if 'protobuf' in str(error).lower():
                raise _too_large() from None
            raise
    # Its shapes of values in between are wrong where layouts are changed; onnxruntime-web refuses to load them.
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = 'fer_jax', fer_jax.__version__
    model.graph.name = names[0]
    if description is not None:
        onnx.helper.set_model_props(model, {METADATA: json.dumps(description, ensure_ascii=False)})
    if model.ByteSize() > _MOST_BYTES:
        raise _too_large()
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def open_onnx(path: str | bytes) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The model in a file, or of these bytes, as a function of its one input, run by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (given,) = session.get_inputs()
    return lambda array: session.run(None, {given.name: array})


def _too_large() -> UserError:
    return UserError('the networks have more than two gigabytes, which no ONNX file can; take fewer members')


@contextlib.contextmanager
def _quietly():
    """Without the plug-ins that are left out, and without what jax2onnx prints, logs and warns of them."""
    level, before = logging.root.manager.disable, {name: sys.modules.get(name) for name in _LEFT_OUT}
    logging.disable(logging.ERROR)
    sys.modules.update(dict.fromkeys(_LEFT_OUT))  # None: an import of it fails
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
