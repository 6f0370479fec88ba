"""Structural similarity (Wang et al. 2004) of an image and its attacked version, differentiable.

Windows are Gaussian, 11 x 11 with sigma 1.5; only windows that lie whole inside the image count. Means,
variances and covariance are taken of the clean image and of the CHANGE, so that a change of a hundredth
of a grey level loses no digits, and so that the similarity along the line from the clean image to the
attacked one is known from one pass of windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.errors import AttackError

WINDOW, SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # of the paper, for pixels on [0, 1]
_STEPS = 8
_AIM = 0.999  # of the loss of similarity that the floor allows: the search must end inside
_NEAR = 0.997  # of it that is enough
_MARGIN = 1e-4  # of that loss: more than float32 pixels can add to it


class Moments(NamedTuple):
    """Windowed moments of clean images and of changes to them, (B, C, H - 10, W - 10) float64 each."""

    clean_mean: Tensor
    change_mean: Tensor
    clean_variance: Tensor
    covariance: Tensor
    """Of clean image and change."""
    change_variance: Tensor


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Return the mean SSIM over channels and windows of images (B, C, H, W) in [0, 1]: (B,) float64.

    Raises:
        AttackError: an image is smaller than the window.
    """
    clean = clean.expand_as(images)
    return similarity_along(moments(clean, images.double() - clean.double()), torch.ones(len(images)))


def moments(clean: Tensor, change: Tensor) -> Moments:
    """Return the windowed moments of clean images and changes (B, C, H, W).

    Raises:
        AttackError: an image is smaller than the window.
    """
    height, width = clean.shape[-2:]
    if min(height, width) < WINDOW:
        raise AttackError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, not {height} x {width}: its windows "
            "must fit in"
        )
    x, d = clean.double(), change.double()
    at, moved, square, product, moved_square = _blur(torch.stack([x, d, x * x, x * d, d * d]))
    return Moments(at, moved, square - at * at, product - at * moved, moved_square - moved * moved)


def similarity_along(of: Moments, scale: Tensor) -> Tensor:
    """Return the SSIM (B,) of ``clean + scale * change`` and the clean image, for a scale (B,) an image."""
    s = scale.to(of.clean_mean).view(-1, 1, 1, 1)
    mean = of.clean_mean + s * of.change_mean
    variance = of.clean_variance + 2 * s * of.covariance + s * s * of.change_variance
    covariance = of.clean_variance + s * of.covariance
    light = (2 * mean * of.clean_mean + _C1) / (mean.square() + of.clean_mean.square() + _C1)
    structure = (2 * covariance + _C2) / (variance + of.clean_variance + _C2)
    return (light * structure).flatten(1).mean(dim=1)


def pull_to_floor(images: Tensor, clean: Tensor, floor: float) -> Tensor:
    """Shorten changes towards the clean images until the SSIM is at least `floor`.

    Images that reach the floor are returned as they are. For the others the scale is enclosed, and the end
    of the enclosure that reaches the floor is taken: 0, the clean image itself, always does. A shorter
    change stays in any convex set that holds the clean image, so ball and box are kept.

    Args:
        images: (B, C, H, W) in [0, 1].
        clean: (B, C, H, W).
        floor: SSIM below 1.
    """
    change = images.double() - clean.double()
    of = moments(clean, change)
    enough = similarity_along(of, torch.ones(len(images))) >= floor
    if bool(enough.all()):
        return images
    # Nearly linear in the scale, so that false position, aimed a little inside, is there in a few steps.
    wanted = math.sqrt(1 - floor)
    inside = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    outside = torch.ones_like(inside)
    at_inside, at_outside = inside, _loss(of, outside)
    for _ in range(_STEPS):
        share = (_AIM * wanted - at_inside) / (at_outside - at_inside)
        unsettled = at_inside < _NEAR * wanted  # who is there stays as it is, whatever the others need
        if not bool(unsettled.any()):
            break
        middle = inside + (outside - inside) * share.clamp(0, 1)
        at = _loss(of, middle)
        good = at * (1 + _MARGIN) <= wanted
        up, down = unsettled & good, unsettled & ~good
        inside, at_inside = torch.where(up, middle, inside), torch.where(up, at, at_inside)
        outside, at_outside = torch.where(down, middle, outside), torch.where(down, at, at_outside)
    shorter = (clean.double() + inside.view(-1, 1, 1, 1) * change).to(images.dtype)
    return torch.where(enough.view(-1, 1, 1, 1), images, shorter)


def _loss(of: Moments, scale: Tensor) -> Tensor:
    """Return sqrt(1 - SSIM) (B,), 0 at the clean image."""
    return (1 - similarity_along(of, scale)).clamp_min(0).sqrt()


def _blur(maps: Tensor) -> Tensor:
    """Return Gaussian-weighted means (..., H - 10, W - 10) of maps (..., H, W)."""
    places = torch.arange(WINDOW, dtype=maps.dtype) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    # Sums of shifted maps: several times as fast as a convolution in float64.
    return _weighted(_weighted(maps, weights.tolist(), -2), weights.tolist(), -1)


def _weighted(maps: Tensor, weights: Sequence[float], dim: int) -> Tensor:
    size = maps.shape[dim] - len(weights) + 1
    total = maps.narrow(dim, 0, size) * weights[0]
    for place, weight in enumerate(weights[1:], start=1):
        total = total.add(maps.narrow(dim, place, size), alpha=weight)
    return total
