"""Which of torchvision's names and layouts of parameters belong to which of our arrays."""

from __future__ import annotations

import numpy as np

from fer_jax.models.resnet import ResNet, ResNet18, ResNet34
from fer_jax.models.vgg import VGG, VGG19

# Ours to theirs, where theirs exists.
COUNTERPARTS: dict[str, tuple[type, str]] = {
    'resnet18': (ResNet18, 'resnet18'),
    'resnet34': (ResNet34, 'resnet34'),
    'vgg19': (VGG19, 'vgg19_bn'),
}


def torchvision_names(model: str) -> dict[str, str]:
    """Our arrays (`params/Conv_0/kernel`) to torchvision's names (`conv1.weight`), for a name of COUNTERPARTS."""
    network, _ = COUNTERPARTS[model]
    return _resnet(network) if issubclass(network, ResNet) else _vgg(network)


def to_our_layout(tensor: np.ndarray) -> np.ndarray:
    """float32; a convolution's [out, in, H, W] to [H, W, in, out], a dense layer's [out, in] to [in, out]."""
    tensor = np.asarray(tensor, np.float32)
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _resnet(network: type[ResNet]) -> dict[str, str]:
    names = _conv('Conv_0', 'conv1') | _norm('BatchNorm_0', 'bn1')
    block = 0
    for stage, count in enumerate(network.blocks):
        for index in range(count):
            ours, theirs = f'BasicBlock_{block}', f'layer{stage + 1}.{index}'
            for layer in (0, 1):
                names |= _conv(f'{ours}/Conv_{layer}', f'{theirs}.conv{layer + 1}')
                names |= _norm(f'{ours}/BatchNorm_{layer}', f'{theirs}.bn{layer + 1}')
            if stage and not index:
                names |= _conv(f'{ours}/Conv_2', f'{theirs}.downsample.0')
                names |= _norm(f'{ours}/BatchNorm_2', f'{theirs}.downsample.1')
            block += 1
    return names | _dense('head', 'fc')


def _vgg(network: type[VGG]) -> dict[str, str]:
    names, layer, place = {}, 0, 0
    for stage in network.stages:
        for _ in stage:
            names |= _conv(f'Conv_{layer}', f'features.{place}', bias=True)
            names |= _norm(f'BatchNorm_{layer}', f'features.{place + 1}')
            layer, place = layer + 1, place + 3  # convolution, norm, ReLU
        place += 1  # pool
    return names


def _conv(ours: str, theirs: str, bias: bool = False) -> dict[str, str]:
    names = {f'params/{ours}/kernel': f'{theirs}.weight'}
    return names | ({f'params/{ours}/bias': f'{theirs}.bias'} if bias else {})


def _dense(ours: str, theirs: str) -> dict[str, str]:
    return _conv(ours, theirs, bias=True)


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {
        f'params/{ours}/scale': f'{theirs}.weight',
        f'params/{ours}/bias': f'{theirs}.bias',
        f'batch_stats/{ours}/mean': f'{theirs}.running_mean',
        f'batch_stats/{ours}/var': f'{theirs}.running_var',
    }
