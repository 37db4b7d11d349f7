"""Runs made ready for browsers: what `serve --in-browser` serves in place of reading pictures itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fer_jax import exported, onnx_files
from fer_jax.apps.web.in_browser import InBrowser
from fer_jax.apps.web.onnxruntime_web import load_runtime
from fer_jax.errors import UserError
from fer_jax.exported import Classifier
from fer_jax.faces.face import TEMPLATE
from fer_jax.faces.mtcnn import Settings
from fer_jax.faces.weights import load_weights
from fer_jax.onnx_detector import write_detector

_FRAME = ('kind', 'size', 'share')


def make_in_browser(classifiers: Sequence[Classifier], min_face: float) -> InBrowser:
    """Writes detector and classifiers as ONNX, tries the latter, and fetches the runtime if it is not there.

    Args:
        classifiers: as `fer_jax.exported.load_classifiers` gives them.
        min_face: side in pixels of the smallest face that is looked for.

    Raises:
        UserError: if a run's faces were aligned by dlib, onnxruntime-web cannot be had, or a network is not the same
            as ONNX.
    """
    for classifier in classifiers:
        if classifier.description['outside']['frame'].get('detector', 'mtcnn') != 'mtcnn':
            run = classifier.description['members'][0]['run']
            raise UserError(f'the faces of {run} were aligned by dlib, which no browser has; leave --in-browser out')
    runtime = load_runtime()
    models, networks = write_detector(load_weights()), {}
    for number, classifier in enumerate(classifiers):
        content = onnx_files.to_onnx(classifier.read, ('N', *classifier.shape), (exported.INPUT, exported.OUTPUTS))
        difference = exported.largest_difference(classifier, onnx_files.open_onnx(content))
        if not difference <= exported.CLOSE:
            raise UserError(
                f'as ONNX the networks differ from the JAX ones by {difference:.1e}; leave --in-browser out'
            )
        name, frame = f'classifier_{number}', classifier.description['outside']['frame']
        models[name] = content
        networks[name] = {
            'frame': {key: frame[key] for key in _FRAME if key in frame} | {'template': TEMPLATE.tolist()},
            'size': classifier.shape[0],
            'channels': classifier.shape[2],
            'members': len(classifier.description['members']),
        }
    look = dataclasses.asdict(Settings(min_face=min_face))
    return InBrowser(models, networks, look, TEMPLATE.tolist(), classifiers[0].description['emoji'], runtime)
