"""The classifier that scores a pair's translations, loaded from its run.

Shape letters: N images, K classes, D features of each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.preprocess import views
from fer_jax.data.stored import fit_images
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import map_batches
from fer_jax.evaluation.translations import ImagesNHWC, Judge
from fer_jax.members import choose_members, load_group
from fer_jax.training.mesh import Placement


def load_judge(workdir: str, pair: Sequence[str], batch_size: int, placement: Placement) -> Judge:
    """The best checkpoint of a classifier's run by its own validation, to read images of a pair.

    Images are brought to the classifier's size and channels first. Its features are the intermediates that every
    network of `fer_jax.models` calls `features`: what its last, linear layer sees.

    Raises:
        UserError: if it is no classifier's run, has no checkpoint, or does not know both emotions.
    """
    member = choose_members(workdir)[-1]
    run = member.run
    for emotion in pair:
        if emotion not in run.class_names:
            raise UserError(
                f'config.cyclegan.judge={workdir} does not know {emotion}; its classes: {", ".join(run.class_names)}'
            )
    model, variables_M = load_group([member], placement.replicated)
    variables = jax.tree.map(lambda array: array[0], variables_M)
    num_classes = len(run.class_names)

    @jax.jit
    def look(variables, images_NHWC):
        logits_NK, found = model.apply(variables, views(images_NHWC, 'none', run.preprocessing)[0])
        features_ND = found['features'].reshape(len(logits_NK), -1).astype(jnp.float32)
        return jax.lax.with_sharding_constraint(jnp.concatenate([logits_NK, features_ND], -1), placement.replicated)

    def read(images_NHWC: ImagesNHWC) -> tuple[np.ndarray, np.ndarray]:
        images_NHWC = fit_images(images_NHWC, run.preprocessing.size, run.preprocessing.channels)
        both = map_batches(lambda batch: look(variables, batch), images_NHWC, batch_size, placement=placement)
        return both[:, :num_classes].argmax(-1), both[:, num_classes:]

    return Judge(
        member.name, {name: run.class_names.index(emotion) for name, emotion in zip('ab', pair, strict=True)}, read
    )
