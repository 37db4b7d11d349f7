"""Networks by name. Each maps images [B, H, W, C] to logits [B, K] and a dict of intermediates."""

from __future__ import annotations

import difflib

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.errors import UserError
from fer_jax.models.affectnet import AffectNetCNN, BaselineCNN
from fer_jax.models.cnn import ShallowCNN, WiderCNN
from fer_jax.models.resnet import ResNet10, ResNet18, ResNet34
from fer_jax.models.vgg import VGG19, VGGPairs

MODELS: dict[str, type[nn.Module]] = {
    'shallow_cnn': ShallowCNN,
    'wider_cnn': WiderCNN,
    'resnet10': ResNet10,
    'resnet18': ResNet18,
    'resnet34': ResNet34,
    'vgg19': VGG19,
    'vgg_pairs': VGGPairs,
    'affectnet_cnn': AffectNetCNN,
    'baseline_cnn': BaselineCNN,
}
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def create_model(
    name: str, num_classes: int, dtype: str = 'float32', dropout: float = -1.0, norm_groups: int = 1
) -> nn.Module:
    """A network for `num_classes`; `dropout` of -1 keeps the network's own.

    Raises:
        UserError: if there is no network or no number format of that name, or it has no BatchNorm to group.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, 1)
        hint = f'did you mean {close[0]}?' if close else f'there are {", ".join(MODELS)}'
        raise UserError(f'there is no network {name!r}; {hint}')
    if dtype not in DTYPES:
        raise UserError(f'config.model.dtype is {dtype!r}; it can be {" or ".join(DTYPES)}')
    options = {} if dropout < 0 else {'dropout': dropout}
    if norm_groups > 1:
        if not hasattr(MODELS[name], 'norm_groups'):
            raise UserError(f'config.model.norm_groups is {norm_groups}, and {name} has no BatchNorm; leave it at 1')
        options['norm_groups'] = norm_groups
    return MODELS[name](num_classes=num_classes, dtype=DTYPES[dtype], **options)
