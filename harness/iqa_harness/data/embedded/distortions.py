"""Sixteen of the twenty-five distortions of KADID-10k, at its five published levels.

Source: H. Lin, V. Hosu, D. Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database",
QoMEX 2019. The parameters are those of the authors' generator; `human_means` are the mean opinion
scores (1..5, higher is better, 81 references each) of the published label file. The code is our own
and leaves out the generator's stretch of every image to the full range, before and after.

Each function takes uint8 RGB pixels (H, W, 3), one parameter value and a generator, and returns new
uint8 pixels of the same shape. Where the result is not 8-bit by itself it is clipped and rounded.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]

PRISTINE: Final = "pristine"
LEVELS: Final = (1, 2, 3, 4, 5)


class Distortion(NamedTuple):
    """One type of distortion: what it is called, how strong it gets and how people liked it."""

    name: str
    kadid_number: int
    """Number of the type in KADID-10k's file names."""
    parameter: str
    """Meaning and unit of `values`."""
    values: tuple[float, ...]
    """Parameter at levels 1..5, mild to severe."""
    human_means: tuple[float, ...]
    """Mean opinion score at levels 1..5 in KADID-10k, on its scale of 1..5."""
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]
    """Pixels, parameter value and generator to distorted pixels."""


def distort(pixels: Pixels, kind: str, level: int, generator: np.random.Generator) -> Pixels:
    """Return `pixels` (uint8, (H, W, 3)) distorted by type `kind` at `level` 1..5.

    Random types draw from `generator` only; the input is not changed.

    Raises:
        ValueError: for an unknown type, a level outside 1..5 or pixels of another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
    if kind not in DISTORTIONS:
        raise ValueError(f"unknown distortion {kind!r}; known: {', '.join(DISTORTIONS)}")
    if level not in LEVELS:
        raise ValueError(f"level must be one of {LEVELS}, got {level}")
    distortion = DISTORTIONS[kind]
    return distortion.apply(pixels, distortion.values[level - 1], generator)


def generator_for(seed: int, scene: str, kind: str, level: int) -> np.random.Generator:
    """Return the generator of one image: its draws depend on these four and on nothing built before."""
    digest = hashlib.sha256(json.dumps([seed, scene, kind, level]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def gaussian_blur(pixels: Pixels, sigma: float, _: np.random.Generator) -> Pixels:
    """Blur by a Gaussian of `sigma` pixels, cut at 2 sigma as in KADID-10k (type 1)."""
    return _to_uint8(_gaussian(_to_float(pixels), sigma))


def lens_blur(pixels: Pixels, radius: float, _: np.random.Generator) -> Pixels:
    """Average over a disk of `radius` pixels, as a lens out of focus (KADID-10k type 2)."""
    return _to_uint8(_filter(_to_float(pixels), disk_kernel(radius)))


def motion_blur(pixels: Pixels, length: float, generator: np.random.Generator) -> Pixels:
    """Average along a line of `length` pixels at an angle drawn from [0, 180) degrees (KADID-10k type 3)."""
    return _to_uint8(_filter(_to_float(pixels), line_kernel(length, generator.uniform(0.0, math.pi))))


def color_diffusion(pixels: Pixels, amount: float, _: np.random.Generator) -> Pixels:
    """Spread chroma (KADID-10k type 4): blur a*, b* by 1.5 `amount` + 2 pixels, then times `amount`."""
    lab = _lab(_to_float(pixels))
    lab[..., 1:] = _gaussian(lab[..., 1:], 1.5 * amount + 2.0) * amount
    return _to_uint8(_rgb(lab))


def saturate_lab(pixels: Pixels, gain: float, _: np.random.Generator) -> Pixels:
    """Multiply the chroma a*, b* by `gain` (KADID-10k type 8)."""
    lab = _lab(_to_float(pixels))
    lab[..., 1:] *= gain
    return _to_uint8(_rgb(lab))


def jpeg2000(pixels: Pixels, rate: float, _: np.random.Generator) -> Pixels:
    """Encode as lossy JPEG 2000 at a compression ratio of `rate` and decode (KADID-10k type 9)."""
    return _recode(pixels, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True)


def jpeg(pixels: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    """Encode as baseline JPEG, 4:2:0, at libjpeg `quality` 1..100 and decode (KADID-10k type 10)."""
    return _recode(pixels, "JPEG", quality=int(quality), subsampling="4:2:0")


def white_noise(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Add Gaussian noise of `variance`, for values in [0, 1], to each channel (KADID-10k type 11)."""
    values = _to_float(pixels)
    return _to_uint8(values + math.sqrt(variance) * generator.standard_normal(values.shape))


def white_noise_ycbcr(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Add Gaussian noise of `variance`, for values in [0, 1], to Y', Cb and Cr (KADID-10k type 12)."""
    from skimage.color import rgb2ycbcr, ycbcr2rgb

    values = rgb2ycbcr(_to_float(pixels))
    noise = 255.0 * math.sqrt(variance) * generator.standard_normal(values.shape)
    return _to_uint8(ycbcr2rgb(values + noise))


def impulse_noise(pixels: Pixels, density: float, generator: np.random.Generator) -> Pixels:
    """Set a share `density` of the channel values to 0 or 255, evenly (KADID-10k type 13)."""
    draw = generator.random(pixels.shape)
    noisy = pixels.copy()
    noisy[draw < density] = 255
    noisy[draw < density / 2] = 0
    return noisy


def multiplicative_noise(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Multiply each channel value by 1 + Gaussian noise of `variance` (KADID-10k type 14)."""
    values = _to_float(pixels)
    return _to_uint8(values * (1.0 + math.sqrt(variance) * generator.standard_normal(values.shape)))


def brighten(pixels: Pixels, amount: float, _: np.random.Generator) -> Pixels:
    """Lift the mid-tones by `amount`/2 (KADID-10k type 16): two parts tone curve on RGB, one part on L*."""
    values = _to_float(pixels)
    lab = _lab(values)
    lab[..., 0] = 100.0 * tone_curve(lab[..., 0] / 100.0, amount)
    return _to_uint8((2.0 * tone_curve(values, amount) + _rgb(lab)) / 3.0)


def darken(pixels: Pixels, amount: float, _: np.random.Generator) -> Pixels:
    """Lower the mid-tones of each channel by `amount`/2 (KADID-10k type 17)."""
    return _to_uint8(tone_curve(_to_float(pixels), -amount))


def jitter(pixels: Pixels, displacement: float, generator: np.random.Generator) -> Pixels:
    """Move every pixel by Gaussian steps of sd `displacement` pixels, five times over (KADID-10k type 19)."""
    from scipy.ndimage import map_coordinates

    values = _to_float(pixels)
    grid = np.indices(values.shape[:2], dtype=np.float64)
    for _ in range(5):
        where = grid + displacement * generator.standard_normal(grid.shape)
        values = np.stack(
            [map_coordinates(values[..., c], where, order=1, mode="reflect") for c in range(3)], axis=-1
        )
    return _to_uint8(values)


def pixelate(pixels: Pixels, strength: float, _: np.random.Generator) -> Pixels:
    """Shrink each side to 0.95 - `strength`^0.6 of itself and enlarge, both nearest (KADID-10k type 21)."""
    scale = 0.95 - strength**0.6
    rows, columns = (_nearest(size, max(1, int(size * scale))) for size in pixels.shape[:2])
    return pixels[np.ix_(rows, columns)]


def sharpen(pixels: Pixels, gain: float, _: np.random.Generator) -> Pixels:
    """Add `gain` times the detail of L* above a Gaussian of 3 pixels: overshoot (KADID-10k type 24)."""
    lab = _lab(_to_float(pixels))
    lightness = lab[..., :1]
    lab[..., :1] = np.clip(lightness + gain * (lightness - _gaussian(lightness, 3.0)), 0.0, 100.0)
    return _to_uint8(_rgb(lab))


def tone_curve(values: Values, amount: float) -> Values:
    """Return the parabola through (0, 0), (1/2, 1/2 + amount/2) and (1, 1), clipped to [0, 1], at `values`.

    Monotone for every `amount`: where the parabola would turn, it is already clipped.
    """
    return np.clip(values + 2.0 * amount * values * (1.0 - values), 0.0, 1.0)


def disk_kernel(radius: float) -> Values:
    """Return weights (2r+1, 2r+1), sum 1: each pixel's share of a disk, on 16 x 16 points a pixel."""
    half = math.ceil(radius)
    points = np.arange(-half - 0.5 + 1 / 32, half + 0.5, 1 / 16)
    inside = (points[:, None] ** 2 + points[None, :] ** 2 <= radius**2).astype(np.float64)
    side = 2 * half + 1
    kernel: Values = inside.reshape(side, 16, side, 16).sum(axis=(1, 3))
    kernel /= kernel.sum()
    return kernel


def line_kernel(length: float, angle: float) -> Values:
    """Return weights (n, n), sum 1, of a line segment of `length` pixels at `angle` radians.

    A pixel weighs 1 less its distance to the segment between the two end pixels' centres; length 1
    is the identity.
    """
    reach = (length - 1.0) / 2.0
    half = math.ceil(reach)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    kernel: Values = np.maximum(0.0, 1.0 - np.hypot(np.maximum(np.abs(along) - reach, 0.0), across))
    kernel /= kernel.sum()
    return kernel


def _to_float(pixels: Pixels) -> Values:
    return pixels.astype(np.float64) / 255.0


def _to_uint8(values: Values) -> Pixels:
    return np.clip(np.rint(values * 255.0), 0, 255).astype(np.uint8)


def _lab(rgb: Values) -> Values:
    """Return CIE L*a*b* (D65, 2 degrees) of sRGB values in [0, 1], both (H, W, 3)."""
    from skimage.color import rgb2lab

    lab: Values = rgb2lab(rgb)
    return lab


def _rgb(lab: Values) -> Values:
    """Return sRGB in [0, 1], clipped into the gamut channel by channel, of L*a*b* values (H, W, 3).

    scikit-image sets a negative Z to 0 and warns of it. Strong chroma is meant to leave the gamut here, and
    no warning filter is safe among threads; so b* stops just short of where Z turns negative.
    """
    from skimage.color import lab2rgb

    zero = 200.0 / 116.0 * (lab[..., 0] + 16.0)
    b = np.minimum(lab[..., 2], (1.0 - 1e-12) * zero)
    rgb: Values = lab2rgb(np.stack([lab[..., 0], lab[..., 1], b], axis=-1))
    return rgb


def _gaussian(values: Values, sigma: float) -> Values:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, sigma, radius=math.ceil(2 * sigma), mode="nearest", axes=(0, 1))


def _filter(values: Values, kernel: Values) -> Values:
    from scipy.ndimage import convolve

    return convolve(values, kernel[..., None], mode="nearest")


def _recode(pixels: Pixels, file_format: str, **options: object) -> Pixels:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    with Image.open(buffer, formats=[file_format]) as image:
        return np.array(image.convert("RGB"))


def _nearest(size: int, small: int) -> NDArray[np.intp]:
    """Return for each of `size` positions the source position after a trip through `small` of them."""
    down = np.floor((np.arange(small) + 0.5) * size / small).astype(np.intp)
    up = np.floor((np.arange(size) + 0.5) * small / size).astype(np.intp)
    return down[up]


# fmt: off
_TABLE = (
    Distortion("gaussian_blur", 1, "sigma, pixels", (0.1, 0.5, 1, 2, 5),
               (4.61, 4.38, 2.91, 1.87, 1.30), gaussian_blur),
    Distortion("lens_blur", 2, "disk radius, pixels", (1, 2, 4, 6, 8),
               (3.86, 2.65, 1.76, 1.44, 1.30), lens_blur),
    Distortion("motion_blur", 3, "length, pixels", (1, 2, 4, 6, 10),
               (4.60, 4.10, 2.85, 2.18, 1.67), motion_blur),
    Distortion("color_diffusion", 4, "amount", (1, 3, 6, 8, 12),
               (4.50, 2.60, 1.76, 1.61, 1.39), color_diffusion),
    Distortion("saturate_lab", 8, "chroma gain", (1, 2, 3, 6, 9),
               (4.58, 3.33, 2.65, 1.82, 1.52), saturate_lab),
    Distortion("jpeg2000", 9, "compression ratio", (16, 32, 45, 120, 170),
               (4.55, 4.20, 3.87, 2.44, 1.39), jpeg2000),
    Distortion("jpeg", 10, "quality", (43, 36, 24, 7, 4),
               (4.34, 4.25, 3.87, 1.95, 1.35), jpeg),
    Distortion("white_noise", 11, "variance", (0.001, 0.002, 0.003, 0.005, 0.01),
               (3.89, 3.39, 3.05, 2.71, 2.30), white_noise),
    Distortion("white_noise_ycbcr", 12, "variance", (0.0001, 0.0005, 0.001, 0.002, 0.003),
               (4.47, 3.68, 3.17, 2.69, 2.38), white_noise_ycbcr),
    Distortion("impulse_noise", 13, "density", (0.001, 0.005, 0.01, 0.02, 0.03),
               (3.58, 2.93, 2.61, 2.31, 2.13), impulse_noise),
    Distortion("multiplicative_noise", 14, "variance", (0.001, 0.005, 0.01, 0.02, 0.05),
               (4.40, 3.58, 3.08, 2.64, 2.12), multiplicative_noise),
    Distortion("brighten", 16, "amount", (0.1, 0.2, 0.4, 0.7, 1.1),
               (4.51, 4.29, 3.63, 2.70, 1.81), brighten),
    Distortion("darken", 17, "amount", (0.05, 0.1, 0.2, 0.4, 0.8),
               (4.60, 4.53, 4.23, 3.53, 2.22), darken),
    Distortion("jitter", 19, "displacement sd, pixels", (0.05, 0.1, 0.2, 0.5, 1),
               (4.42, 4.09, 3.24, 1.85, 1.34), jitter),
    Distortion("pixelate", 21, "strength", (0.01, 0.05, 0.1, 0.2, 0.5),
               (3.89, 3.10, 2.90, 2.79, 1.50), pixelate),
    Distortion("sharpen", 24, "gain", (1, 2, 3, 6, 12),
               (3.58, 2.64, 2.14, 1.61, 1.34), sharpen),
)
# fmt: on
DISTORTIONS: Final = MappingProxyType({distortion.name: distortion for distortion in _TABLE})
"""Type to `Distortion`, in KADID-10k's order."""
