"""Anchored pseudo-MOS: HaarPSI orders the images of one type, people's means set the scale across types.

For each type, HaarPSI is mapped piecewise linearly and monotonically through (1, 4.65) and, level by
level, (mean HaarPSI of the level over the training scenes, human mean of the level in KADID-10k).
Below the last point the last slope goes on, not under 1. The label is (MOS - 1) / 4.

The correlation of these labels with the human means is by construction, not a validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

PRISTINE_MOS: Final = 4.65
"""Opinion score given to an original, on KADID-10k's scale of 1..5."""
PRISTINE_LABEL: Final = (PRISTINE_MOS - 1.0) / 4.0
"""The same in [0, 1]."""
_TIE = 1e-4  # a level this close to the one before looks the same: it cannot carry a slope


def haarpsi(distorted: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the Haar wavelet-based perceptual similarity of two images, in [0, 1], 1 for identical ones.

    Source: R. Reisenhofer, S. Bosse, G. Kutyniok, T. Wiegand, Signal Processing: Image Communication
    61, 2018; computed by piq in float64, so that a CPU's order of summation stays far below the
    precision of a stored label.

    Args:
        distorted: uint8 RGB pixels (H, W, 3), both sides at least 16.
        reference: Pixels of the same shape.
    """
    import piq
    import torch

    x, y = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255 for pixels in (distorted, reference)
    )
    return min(1.0, float(piq.haarpsi(x, y)))  # a pair without any detail divides by 0 and gives infinity


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
