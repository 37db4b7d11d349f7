import jax
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from fer_jax.faces import networks, pyramid
from fer_jax.faces.pyramid import GREY, Octaves, cut, pack, scales
from fer_jax.faces.weights import load_weights

SHAPES = [(128, 128), (300, 170), (129, 118), (11, 40), (2, 2), (12, 400), (247, 246)]


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def framed(octaves, scale, rim):
    """The whole picture at a scale with its rim, as `cut` should see it, and the rims (y, x)."""
    pixels = octaves.level(scale)
    rims = [max(rim, -(-(12 - side) // 4) * 2) for side in pixels.shape[:2]]
    ends = [(side, side) for side in rims]
    return np.pad(pixels, (*ends, (0, 0)), constant_values=GREY), rims


@pytest.mark.parametrize('tile', [32, 128])
def test_every_window_of_every_picture_is_in_the_tiles_once(tile):
    pictures = [Octaves(noise(shape, seed)) for seed, shape in enumerate(SHAPES)]
    pieces = [piece for image, octaves in enumerate(pictures) for piece in cut(octaves, image, 0, 1.0, 2, tile)]
    tiles, owners, corners = pack(pieces, tile)
    windows = {}
    for place, y, x in zip(*np.nonzero(owners >= 0), strict=True):
        piece = pieces[owners[place, y, x]]
        left, top = 2 * np.array([x, y]) - corners[owners[place, y, x]] + piece.origin
        key = (piece.image, int(top), int(left))
        windows.setdefault(key, []).append(tiles[place, 2 * y : 2 * y + 12, 2 * x : 2 * x + 12])
    expected = {}
    for image, octaves in enumerate(pictures):
        whole, (above, before) = framed(octaves, 1.0, 2)
        for top in range(0, whole.shape[0] - 11, 2):
            for left in range(0, whole.shape[1] - 11, 2):
                expected[image, top - above, left - before] = whole[top : top + 12, left : left + 12]
    assert windows.keys() == expected.keys()
    for key, found in windows.items():
        assert len(found) == 1
        np.testing.assert_array_equal(found[0], expected[key])


def test_pnet_over_tiles_gives_what_it_gives_over_the_whole(package, astronaut):
    layers, octaves = load_weights()['pnet'], Octaves(astronaut)
    pieces = cut(octaves, 0, 0, 0.5, 2, 128)
    tiles, owners, corners = pack(pieces, 128)
    program = jax.jit(networks.pnet)
    scores = np.asarray(program(layers, tiles)[0])
    whole = np.asarray(program(layers, framed(octaves, 0.5, 2)[0][None])[0])[0]
    seen = np.zeros(whole.shape, int)
    for place, y, x in zip(*np.nonzero(owners >= 0), strict=True):
        owner = owners[place, y, x]
        left, top = (2 * np.array([x, y]) - corners[owner] + pieces[owner].origin + 2) // 2
        seen[top, left] += 1
        assert scores[place, y, x] == pytest.approx(whole[top, left], abs=1e-5)
    assert (seen == 1).all() and whole.max() > 0.9


def test_tiles_are_well_filled():
    """48-pixel pictures share tiles: 100 at two sizes, 29 and 20 pixels with rims of 2, need no more than 14 of 128."""
    pieces = [
        piece for n in range(100) for s in (0.6, 0.42) for piece in cut(Octaves(noise((48, 48))), n, 0, s, 2, 128)
    ]
    tiles, owners, _ = pack(pieces, 128)
    assert sum(piece.pixels[..., 0].size for piece in pieces) / (len(tiles) * 128**2) > 0.75
    assert len(np.unique(owners)) == len(pieces) + 1


def test_crop_is_bilinear_and_grey_outside():
    image = noise((40, 50))
    left, top, side, size = 31.3, 12.6, 24.0, 24
    crop = Octaves(image).crop(np.array([left, top, left + side, top + side]), size)
    middles = np.arange(size) * side / size + side / size / 2 - 0.5
    ys, xs = np.meshgrid(top + middles, left + middles, indexing='ij')
    inside = xs < 48.5
    for channel in range(3):
        expected = map_coordinates(image[..., channel].astype(float), [ys, xs], order=1)
        assert np.abs(crop[..., channel] - expected)[inside].max() <= 1
    assert (crop[xs > 50] == GREY).all() and (xs > 50).any()


def test_small_comes_from_averages_not_from_single_pixels():
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    octaves = Octaves(checks.astype(np.uint8))
    assert np.abs(octaves.crop(np.array([0, 0, 512, 512.0]), 24).astype(int) - 128).max() <= 1
    assert np.abs(octaves.level(0.1).astype(int) - 128).max() <= 1


def test_scales_by_hand():
    found = scales((480, 640), smallest=24, largest=100, factor=0.5, most_pixels=1e9)
    np.testing.assert_allclose(found, [0.5, 0.25, 0.125])  # faces of 24, 48, 96 pixels
    (first, *_) = scales((6000, 8000), smallest=24, largest=6000, factor=0.5, most_pixels=1_000_000)
    assert first**2 * 6000 * 8000 == pytest.approx(1_000_000)
    assert scales((1, 1), smallest=20, largest=1.3, factor=0.7, most_pixels=1e6) == []


@pytest.mark.parametrize(
    'bad', [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match='a picture is uint8'):
        Octaves(bad)


def test_grey_is_grey_in_three_channels():
    grey = noise((20, 30))[..., 0]
    for image in (grey, grey[..., None], np.repeat(grey[..., None], 3, 2)):
        np.testing.assert_array_equal(Octaves(image).level(0.5), Octaves(grey).level(0.5))
    assert pyramid.Octaves(grey).shape == (20, 30)
