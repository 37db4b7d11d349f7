"""MTCNN's three networks as ONNX models of what `fer_jax.faces.networks` computes, for any sides and batches.

Written layer by layer, not converted: so P-Net takes pictures of any size, and pools are pools.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import fer_jax
from fer_jax.faces.networks import Layers
from fer_jax.onnx_files import OPSET

_IR = 10  # onnx's own number for the files of that time
_SIDES = {'pnet': ('H', 'W'), 'rnet': (24, 24), 'onet': (48, 48)}
_POOLS = {'pnet': (2,), 'rnet': (3, 3), 'onet': (3, 3, 2)}  # windows after the first convolutions
_OUTPUTS = {
    'pnet': {'scores': ('N', 'y', 'x'), 'edges': ('N', 'y', 'x', 4)},
    'rnet': {'scores': ('N',), 'edges': ('N', 4)},
    'onet': {'scores': ('N',), 'edges': ('N', 4), 'points': ('N', 5, 2)},
}


def write_detector(weights: Mapping[str, Layers]) -> dict[str, bytes]:
    """The networks `pnet`, `rnet` and `onet`, checked.

    Each takes `pixels`, uint8 [N, H, W, 3] (H and W are even, from 12 on; 24 and 48), and gives `scores`, `edges` and,
    of O-Net, `points`, as the functions in `fer_jax.faces.networks` do.

    Args:
        weights: as `fer_jax.faces.weights.load_weights` gives them.
    """
    import onnx
    from onnx import TensorProto, helper

    models = {}
    for name, layers in weights.items():
        graph = _Graph(layers)
        graph.add_all(name)
        pixels = helper.make_tensor_value_info('pixels', TensorProto.UINT8, ['N', *_SIDES[name], 3])
        outputs = [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, shape) for output, shape in _OUTPUTS[name].items()
        ]
        made = helper.make_graph(graph.nodes, name, [pixels], outputs, graph.constants)
        opset = [helper.make_opsetid('', OPSET)]
        model = helper.make_model(made, opset_imports=opset, ir_version=_IR, producer_name='fer_jax')
        model.producer_version = fer_jax.__version__
        onnx.checker.check_model(model, full_check=True)
        models[name] = model.SerializeToString()
    return models


class _Graph:
    def __init__(self, layers: Layers):
        from onnx import helper, numpy_helper

        self._node, self._tensor = helper.make_node, numpy_helper.from_array
        self._layers, self.nodes, self.constants = layers, [], []

    def add_all(self, name: str) -> None:
        """From pixels to outputs."""
        x = self._add('Cast', 'pixels', to=1)
        x = self._add('Div', self._add('Sub', x, self._constant(127.5)), self._constant(128.0))
        x = self._add('Transpose', x, perm=[0, 3, 1, 2])
        convolutions = sorted(layer for layer in self._layers if layer.startswith('conv'))
        for layer, window in zip(convolutions, (*_POOLS[name], 0, 0), strict=False):
            x = self._layer('Conv', x, layer)
            if window:
                x = self._add('MaxPool', x, kernel_shape=[window] * 2, strides=[2, 2], ceil_mode=1)
        head = 'Conv'
        if name != 'pnet':
            head = 'Gemm'
            x = self._add('Flatten', self._add('Transpose', x, perm=[0, 3, 2, 1]))  # columns before rows
            x = self._layer('Gemm', x, 'dense')
        shares = self._add('Softmax', self._layer(head, x, 'face'), axis=1)
        self._add('Gather', shares, self._constant(1, np.int64), axis=1, output='scores')
        if name == 'pnet':
            self._add('Transpose', self._layer(head, x, 'box'), perm=[0, 2, 3, 1], output='edges')
        else:
            self._layer(head, x, 'box', output='edges')
        if name == 'onet':
            pairs = self._add('Reshape', self._layer(head, x, 'points'), self._constant([-1, 2, 5], np.int64))
            self._add('Transpose', pairs, perm=[0, 2, 1], output='points')

    def _layer(self, kind: str, x: str, layer: str, output: str = '') -> str:
        parts = {part: np.asarray(values) for part, values in self._layers[layer].items()}
        kernel = parts['kernel'].transpose(3, 2, 0, 1) if kind == 'Conv' else parts['kernel']
        slope = parts.get('slope')
        x = self._add(kind, x, self._constant(kernel), self._constant(parts['bias']), output=output)
        if slope is None:
            return x
        return self._add('PRelu', x, self._constant(slope[:, None, None] if kind == 'Conv' else slope))

    def _constant(self, values, dtype: type = np.float32) -> str:
        name = f'c{len(self.constants)}'
        self.constants.append(self._tensor(np.array(values, dtype, order='C'), name))
        return name

    def _add(self, kind: str, *inputs: str, output: str = '', **attributes) -> str:
        output = output or f'v{len(self.nodes)}'
        self.nodes.append(self._node(kind, inputs, [output], **attributes))
        return output
