"""The model in the box: small enough, with a card that says what its header does, and used where no run is named."""

import os
from pathlib import Path

import jax.numpy as jnp
import pytest
import skimage.data

from fer_jax import Recognizer, zoo
from fer_jax.data.dataset import EMOTIONS
from fer_jax.members import choose_members, group_members, load_group
from fer_jax.packed import read_packed

CARD = Path(zoo.DEFAULT).with_suffix('.md')


@pytest.fixture(scope='module')
def packed():
    return read_packed(zoo.DEFAULT)


def test_it_is_small_knows_seven_emotions_and_aligned_faces(packed):
    assert os.path.getsize(zoo.DEFAULT) <= 12_000_000
    for run in packed.runs:
        assert run.class_names == tuple(name for name in EMOTIONS if name != 'contempt')
        assert run.align == packed.runs[0].align and run.align['detector'] == 'mtcnn'
        assert run.config.data.name == 'data/fer2013_aligned' and not run.config.data.drop


def test_a_cpu_reads_it_in_float32(packed):
    (group,) = group_members(choose_members(zoo.DEFAULT), ('class_names',), lambda run: '')
    assert packed.runs[0].config.model.dtype == 'bfloat16' and load_group(group)[0].dtype == jnp.float32


def test_its_header_tells_no_place_of_ours():
    with open(zoo.DEFAULT, 'rb') as file:
        header = file.read(int.from_bytes(file.read(8), 'little'))
    assert b'/home/' not in header and b'/tmp/' not in header and b'/work' not in header and b'/root' not in header


def test_the_card_has_the_headers_numbers_of_all_images(packed):
    card = CARD.read_text()
    assert packed.scores['test']['num_examples'] == packed.scores['validation']['num_examples'] == 3589
    for split, entry in packed.scores.items():
        assert f'| {split} | 3,589 | {100 * entry["accuracy"]:.2f} |' in card
    assert f'{packed.temperature:.3f}, fitted on validation' in card
    assert (Path(zoo.__file__).parent / 'limits.md').read_text().strip() in card
    assert packed.scores['validation']['ece'] < packed.scores['validation']['before_temperature']['ece']


def test_it_reads_where_no_run_is_named(packed):
    recognizer = Recognizer()
    assert len(recognizer.members) == len(packed.members)
    (face,) = recognizer(skimage.data.astronaut())
    assert face.emotion == 'happiness' and not face.unsure
    assert sum(face.probabilities.values()) == pytest.approx(1)
