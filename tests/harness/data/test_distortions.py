import io
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import lab2rgb, rgb2lab

from iqa_harness.data.embedded import distortions as d
from iqa_harness.data.embedded.pseudo_mos import haarpsi_to

Photos = list[NDArray[np.uint8]]
EVERY = pytest.mark.parametrize("kind", list(d.DISTORTIONS))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey(value: int = 128, size: int = 256) -> NDArray[np.uint8]:
    return np.full((size, size, 3), value, np.uint8)


def test_table() -> None:
    """Sixteen types have five values and five falling human means within KADID-10k's scale."""
    assert len(d.DISTORTIONS) == 16
    assert len({t.kadid_number for t in d.DISTORTIONS.values()}) == 16
    for name, kind in d.DISTORTIONS.items():
        assert kind.name == name == kind.apply.__name__
        assert len(kind.values) == len(kind.human_means) == 5
        assert all(np.diff(kind.human_means) < 0)
        assert 1 < min(kind.human_means) < max(kind.human_means) < 4.65


@EVERY
def test_severity_grows_with_the_level(kind: str, photos: Photos) -> None:
    """From level to level HaarPSI to the original falls on average, and level 5 is far from pristine."""
    means = [
        np.mean([haarpsi_to(p)(d.distort(p, kind, level, rng(i))) for i, p in enumerate(photos)])
        for level in d.LEVELS
    ]
    assert all(np.diff(means) < 0)
    assert means[-1] < 0.85


@EVERY
def test_shape_dtype_and_input_are_kept(kind: str) -> None:
    """A non-square image keeps its shape and dtype, and the input stays as it was."""
    pixels = rng().integers(0, 256, (48, 64, 3), dtype=np.uint8)
    before = pixels.copy()
    result = d.distort(pixels, kind, 5, rng())
    assert result.shape == (48, 64, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(pixels, before)


@EVERY
def test_only_the_generator_decides(kind: str, photos: Photos) -> None:
    """The same seed gives the same bytes whatever was drawn before, and the global state is not touched."""
    state = np.random.get_state()[1]
    first = d.distort(photos[0], kind, 3, d.generator_for(0, "a", kind, 3))
    d.distort(photos[1], kind, 5, d.generator_for(0, "b", kind, 5))
    assert np.array_equal(first, d.distort(photos[0], kind, 3, d.generator_for(0, "a", kind, 3)))
    assert np.array_equal(state, np.random.get_state()[1])


def test_generator_depends_on_every_part() -> None:
    """Seed, scene, type and level each change the draws."""
    keys = [
        (0, "a", "jpeg", 1),
        (1, "a", "jpeg", 1),
        (0, "b", "jpeg", 1),
        (0, "a", "jitter", 1),
        (0, "a", "jpeg", 2),
    ]
    assert len({d.generator_for(*key).random() for key in keys}) == 5
    assert d.generator_for(*keys[0]).random() == d.generator_for(*keys[0]).random()


@pytest.mark.parametrize(
    ("pixels", "kind", "level"),
    [
        (grey().astype(np.float64), "jpeg", 1),
        (grey()[..., 0], "jpeg", 1),
        (grey(), "jpg", 1),
        (grey(), "jpeg", 0),
        (grey(), "jpeg", 6),
    ],
)
def test_wrong_use_is_refused(pixels: NDArray[np.uint8], kind: str, level: int) -> None:
    """Other dtypes, shapes, types and levels raise ValueError."""
    with pytest.raises(ValueError, match=r"must be|unknown"):
        d.distort(pixels, kind, level, rng())


@pytest.mark.parametrize("kind", ["gaussian_blur", "motion_blur", "saturate_lab"])
def test_mildest_level_is_identity(kind: str, photos: Photos) -> None:
    """A blur of 0.1 or over 1 pixel and a chroma gain of 1 change nothing."""
    assert np.array_equal(d.distort(photos[0], kind, 1, rng()), photos[0])


def test_gaussian_blur_of_a_point() -> None:
    """A white point becomes SciPy's Gaussian cut at two sigma."""
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    plane = gaussian_filter(point[..., 0].astype(float), 2.0, truncate=2.0)
    assert np.array_equal(d.gaussian_blur(point, 2.0, rng())[..., 1], np.rint(plane).astype(np.uint8))


@pytest.mark.parametrize("radius", [1, 2, 4, 8])
def test_disk_kernel(radius: int) -> None:
    """Weights sum to one, are symmetric, and the centre weighs one over the disk's area."""
    kernel = d.disk_kernel(radius)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])
    assert kernel[radius, radius] == pytest.approx(1 / (math.pi * radius**2), rel=0.02)


def test_line_kernel() -> None:
    """Length 1 is the identity, a level line is a plain mean, a right angle turns it."""
    assert d.line_kernel(1, 0.7).tolist() == [[1.0]]
    row = np.zeros((3, 3))
    row[1] = 1 / 3
    assert np.allclose(d.line_kernel(3, 0.0), row)
    assert np.allclose(d.line_kernel(3, math.pi / 2), row.T)
    assert d.line_kernel(10, 1.0).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "kind", ["gaussian_blur", "lens_blur", "motion_blur", "jitter", "pixelate", "sharpen"]
)
def test_flat_image_has_nothing_to_lose(kind: str) -> None:
    """Spatial distortions leave a flat grey image as it is."""
    assert np.array_equal(d.distort(grey(size=64), kind, 5, rng()), grey(size=64))


@pytest.mark.parametrize("kind", ["color_diffusion", "saturate_lab"])
def test_grey_has_no_chroma(kind: str) -> None:
    """Chroma distortions leave grey values as they are."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.abs(d.distort(ramp, kind, 3, rng()).astype(int) - ramp).max() <= 1


@pytest.mark.parametrize("kind", ["color_diffusion", "saturate_lab"])
def test_chroma_beyond_the_gamut_is_clipped_without_a_warning(kind: str) -> None:
    """Nine times the chroma of blue, red and yellow gives what scikit-image gives, in silence."""
    colors = np.array([[0, 0, 255], [255, 0, 0], [255, 255, 0], [40, 30, 0]], np.uint8)
    pixels = np.repeat(np.repeat(colors.reshape(2, 2, 3), 16, axis=0), 16, axis=1)
    d.distort(pixels, kind, 5, rng())  # a warning is an error in these tests
    lab = rgb2lab(pixels / 255)
    lab[..., 1:] *= 9
    with pytest.warns(UserWarning, match="negative Z"):
        expected = np.rint(lab2rgb(lab) * 255)
    assert np.array_equal(d.saturate_lab(pixels, 9, rng()), expected)


def test_jpeg_is_pillows(photos: Photos) -> None:
    """Level 4 is Pillow's own JPEG at quality 7."""
    buffer = io.BytesIO()
    Image.fromarray(photos[0]).save(buffer, "JPEG", quality=7)
    assert np.array_equal(d.distort(photos[0], "jpeg", 4, rng()), np.array(Image.open(buffer)))


@pytest.mark.parametrize("level", d.LEVELS)
def test_white_noise_variance(level: int) -> None:
    """On mid-grey the measured variance is the parameter, in every channel, and the mean stays."""
    values = d.distort(grey(), "white_noise", level, rng()) / 255
    expected = d.DISTORTIONS["white_noise"].values[level - 1]
    assert np.allclose(values.var(axis=(0, 1)), expected, rtol=0.04)
    assert np.allclose(values.mean(axis=(0, 1)), 128 / 255, atol=0.002)


def test_multiplicative_noise_scales_with_the_signal() -> None:
    """Its variance is the parameter times the squared signal, and black stays black."""
    assert d.multiplicative_noise(grey(0), 0.05, rng()).max() == 0
    for value in (64, 128):
        noisy = d.multiplicative_noise(grey(value), 0.01, rng()) / 255
        assert noisy.var() == pytest.approx(0.01 * (value / 255) ** 2, rel=0.05)


def test_ycbcr_noise_is_correlated_between_channels() -> None:
    """Noise in luma reaches red, green and blue together."""
    noisy = d.distort(grey(), "white_noise_ycbcr", 5, rng()).reshape(-1, 3).astype(float)
    assert np.corrcoef(noisy[:, 0], noisy[:, 2])[0, 1] > 0.1


@pytest.mark.parametrize("level", d.LEVELS)
def test_impulse_density(level: int) -> None:
    """The share of changed values is the density, half of them black and half white."""
    density = d.DISTORTIONS["impulse_noise"].values[level - 1]
    noisy = d.distort(grey(), "impulse_noise", level, rng())
    tolerance = 5 * math.sqrt(density / noisy.size)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert (noisy == 0).mean() == pytest.approx(density / 2, abs=tolerance)
    assert (noisy == 255).mean() == pytest.approx(density / 2, abs=tolerance)


@pytest.mark.parametrize(("kind", "sign"), [("brighten", 1), ("darken", -1)])
def test_brightness_moves_with_the_level(kind: str, sign: int, photos: Photos) -> None:
    """Every level moves the mean further, and no pixel moves the other way by more than rounding."""
    images = [photos[0], *(d.distort(photos[0], kind, level, rng()) for level in d.LEVELS)]
    means = [sign * image.mean() for image in images]
    assert all(np.diff(means) > 0)
    assert (sign * (images[-1].astype(int) - images[0])).min() >= -1


@pytest.mark.parametrize("amount", [-0.8, -0.4, 0.1, 0.7, 1.1])
def test_tone_curve(amount: float) -> None:
    """The curve keeps the ends, moves the middle by half the amount and never falls."""
    x = np.linspace(0, 1, 1001)
    y = d.tone_curve(x, amount)
    assert y[0] == 0
    assert y[-1] == 1
    assert y[500] == pytest.approx(min(1, 0.5 + amount / 2))
    assert (np.diff(y) >= 0).all()


def test_pixelate_repeats_source_pixels() -> None:
    """Strength 0.5 keeps 74 of 256 rows and columns and shows only values of the source."""
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[..., 0] = np.arange(256)[:, None]
    ramp[..., 1] = np.arange(256)[None, :]
    result = d.distort(ramp, "pixelate", 5, rng())
    assert (
        len(np.unique(result[..., 0])) == len(np.unique(result[..., 1])) == int(256 * (0.95 - 0.5**0.6)) == 74
    )
    assert np.abs(result.astype(int) - ramp).max() <= 3


def test_sharpen_overshoots_an_edge() -> None:
    """Beside an edge the dark side gets darker and the bright side brighter; gain 0 is the identity."""
    edge = grey(80, 64)
    edge[:, 32:] = 170
    result = d.sharpen(edge, 1.0, rng())
    assert result[32, 31, 0] < 80
    assert result[32, 32, 0] > 170
    assert np.array_equal(d.sharpen(edge, 0.0, rng()), edge)


def test_jpeg2000_spends_its_budget() -> None:
    """At compression ratio 16 and 170 noise loses most of its detail, more at the higher ratio."""
    noise = rng().integers(0, 256, (128, 128, 3), dtype=np.uint8)
    errors = [np.square(d.jpeg2000(noise, rate, rng()) - noise.astype(float)).mean() for rate in (16, 170)]
    assert 0 < errors[0] < errors[1]
