"""Anchored pseudo-MOS: HaarPSI orders the images of one type, people's means set the scale across types.

For each type, HaarPSI is mapped piecewise linearly and monotonically through (1, 4.65) and, level by
level, (mean HaarPSI of the level over the training scenes, human mean of the level in KADID-10k).
Below the last point the last slope goes on, not under 1. The label is (MOS - 1) / 4.

The correlation of these labels with the human means is by construction, not a validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

PRISTINE_MOS: Final = 4.65
"""Opinion score given to an original, on KADID-10k's scale of 1..5."""
PRISTINE_LABEL: Final = (PRISTINE_MOS - 1.0) / 4.0
"""The same in [0, 1]."""
_YIQ: Final = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""Rows of the matrix from RGB to YIQ."""
_CONSTANT: Final = 30.0
"""C of the paper: damps differences of small coefficients."""
_ALPHA: Final = 4.2
"""alpha of the paper: slope of the logistic function."""
_TIE = 1e-4  # a level this close to the one before looks the same: it cannot carry a slope


def haarpsi_to(reference: NDArray[np.uint8]) -> Callable[[NDArray[np.uint8]], float]:
    """Return the Haar wavelet-based perceptual similarity to an image, in [0, 1], 1 for identical ones.

    Source: R. Reisenhofer, S. Bosse, G. Kutyniok, T. Wiegand, Signal Processing: Image Communication
    61, 2018. The value is piq's, which the tests compare, in a fraction of its time: Haar filters are sums
    over boxes, and the reference's coefficients are computed once for many images. All in float64: an order
    of summation stays far below the precision of a stored label.

    Args:
        reference: uint8 RGB pixels (H, W, 3), both sides at least 16. What is returned takes pixels of the
            same shape.
    """
    y = _haar(reference)
    return lambda distorted: _similar(_haar(distorted), y)


def _similar(x: _Haar, y: _Haar) -> float:
    # Two directions of brightness, of which the coarsest scale weighs, and colour.
    weights = np.maximum(x.brightness[2], y.brightness[2])
    similarity = [_similarity(x.brightness[:2, i], y.brightness[:2, i]).mean(axis=0) for i in (0, 1)]
    similarity.append(_similarity(x.colour, y.colour).mean(axis=0))
    weights = np.concatenate([weights, weights.mean(axis=0, keepdims=True)])
    total = float(weights.sum())
    if total == 0:
        return 1.0  # a pair without any detail
    share = float((weights / (1 + np.exp(-_ALPHA * np.stack(similarity)))).sum()) / total
    return min(1.0, (math.log(share / (1 - share)) / _ALPHA) ** 2)


class _Haar(NamedTuple):
    """Absolute coefficients of an image at half its size, (h, w) each."""

    brightness: NDArray[np.float64]
    """(3 scales, fine to coarse; 2 directions; h, w)."""
    colour: NDArray[np.float64]
    """(2, h, w), I and Q, each the mean of four neighbours."""


def _haar(pixels: NDArray[np.uint8]) -> _Haar:
    height, width = pixels.shape[:2]
    odd = max(height % 2, width % 2)
    even = np.pad(pixels, ((0, odd), (0, odd), (0, 0)))[: (height + odd) // 2 * 2, : (width + odd) // 2 * 2]
    fours = [even[i::2, j::2].astype(np.float64) for i in (0, 1) for j in (0, 1)]
    y, i, q = np.moveaxis(sum(fours[1:], fours[0]) / 4 @ np.array(_YIQ).T, -1, 0)
    brightness = np.stack([[_edges(y, size), _edges(y.T, size).T] for size in (2, 4, 8)])
    padded = np.pad(np.stack([i, q]), ((0, 0), (0, 1), (0, 1)))
    colour = padded[:, :-1, :-1] + padded[:, 1:, :-1] + padded[:, :-1, 1:] + padded[:, 1:, 1:]
    return _Haar(brightness, np.abs(colour) / 4)


def _edges(plane: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return |upper half - lower half| / `size` over the box of a side around every pixel, zeros outside."""
    half = size // 2
    rows = _sums(np.pad(plane, (half, half)), size, axis=1)  # the box begins half - 1 before its pixel
    strips = _sums(rows, half, axis=0)
    edges: NDArray[np.float64] = np.abs(strips[: len(plane)] - strips[half : half + len(plane)]) / size
    return edges


def _sums(plane: NDArray[np.float64], length: int, axis: int) -> NDArray[np.float64]:
    """Return the sums over `length` (1, 2, 4...) neighbours along an axis, from the second place on."""
    sums = np.moveaxis(plane, axis, 0)
    reach = 1
    while reach < length:
        sums = sums[:-reach] + sums[reach:]
        reach *= 2
    return np.moveaxis(sums[1:], 0, axis)


def _similarity(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return (2 * x * y + _CONSTANT) / (x**2 + y**2 + _CONSTANT)


class Anchors(NamedTuple):
    """Points of one type's map, HaarPSI strictly falling, MOS falling."""

    haarpsi: tuple[float, ...]
    mos: tuple[float, ...]
    """On KADID-10k's scale of 1..5."""


def fit_anchors(level_means: Sequence[float], human_means: Sequence[float]) -> Anchors:
    """Return the anchors of one type.

    A level whose mean HaarPSI does not fall below the point before it is left out: its images are
    labelled by the points around. The mildest blurs change no pixel, so they get the pristine label.

    Args:
        level_means: Mean HaarPSI of each level over the training scenes, mild to severe.
        human_means: Mean opinion score of the same levels, falling, in 1..4.65.

    Raises:
        ValueError: if the lengths differ, the human means do not fall, or no level can be told from pristine.
    """
    mos = np.array([PRISTINE_MOS, *human_means])
    if len(level_means) != len(human_means) or (np.diff(mos) >= 0).any():
        raise ValueError("need one falling human mean below 4.65 for each level mean")
    kept = [(1.0, PRISTINE_MOS)]
    for x, y in zip(level_means, human_means, strict=True):
        if x < kept[-1][0] - _TIE:
            kept.append((x, y))
    if len(kept) == 1:
        raise ValueError("no level can be told from the pristine image")
    return Anchors(*zip(*kept, strict=True))


def pseudo_mos(haarpsi: float, anchors: Anchors) -> float:
    """Return the label in [0, 1] of an image whose HaarPSI to its original is `haarpsi` (0..1)."""
    xs, ys = anchors.haarpsi, anchors.mos
    if haarpsi >= xs[-1]:
        mos = float(np.interp(haarpsi, xs[::-1], ys[::-1]))
    else:
        slope = (ys[-2] - ys[-1]) / (xs[-2] - xs[-1])
        mos = max(1.0, ys[-1] - slope * (xs[-1] - haarpsi))
    return (mos - 1.0) / 4.0
