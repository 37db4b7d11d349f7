"""The one real face that may be in tests, and detectors that several of them share."""

import importlib.util

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax.faces.mtcnn import Mtcnn
from fer_jax.faces.portraits import PortraitMtcnn

# Where the package mtcnn 1.0.0 finds the astronaut's face (run once under TensorFlow 2.21, points in pixels whose
# middles are whole numbers: half a pixel less than ours).
ASTRONAUT_BOX = np.array([181.598, 63.726, 264.553, 171.079])  # left, top, right, bottom
ASTRONAUT_POINTS = np.array(
    [(203.541, 100.104), (245.409, 102.238), (224.224, 126.420), (201.790, 138.587), (244.389, 140.377)]
)


@pytest.fixture(scope='session')
def package():
    if importlib.util.find_spec('mtcnn') is None or importlib.util.find_spec('lz4') is None:
        pytest.skip('the package mtcnn, which has the weights, is not installed')


@pytest.fixture(scope='session')
def mtcnn(package):
    return Mtcnn()


@pytest.fixture(scope='session')
def portraits(package):
    return PortraitMtcnn()


@pytest.fixture(scope='session')
def astronaut():
    """uint8 [512, 512, 3]; it comes with scikit-image and is in the public domain (NASA)."""
    image = skimage.data.astronaut()
    image.flags.writeable = False
    return image


@pytest.fixture(scope='session')
def resized():
    return lambda image, width, height: np.asarray(Image.fromarray(image).resize((width, height)))


@pytest.fixture(scope='session')
def known():
    """(box as left, top, right, bottom; points), in our pixels."""
    return ASTRONAUT_BOX + 0.5, ASTRONAUT_POINTS + 0.5
