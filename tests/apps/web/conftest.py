"""What the tests of the web page share."""

import io

import pytest
import skimage.data
from PIL import Image


@pytest.fixture(scope='session')
def astronaut():
    """A photograph of one face as JPEG, 512 pixels a side."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, 'JPEG', quality=90)
    return file.getvalue()
