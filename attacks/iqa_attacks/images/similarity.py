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


def check_window(images: Tensor) -> None:
    """Refuse images (..., H, W) that no window fits in.

    Raises:
        AttackError: they are smaller than the window.
    """
    height, width = images.shape[-2:]
    if min(height, width) < WINDOW:
        raise AttackError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, not {height} x {width}: its windows "
            "must fit in"
        )


class Moments(NamedTuple):
    """Windowed moments of clean images and of changes to them, (B, C, H - 10, W - 10) float64 each."""

    clean_mean: Tensor
    change_mean: Tensor
    clean_variance: Tensor
    covariance: Tensor
    """Of clean image and change."""
    change_variance: Tensor


class Reference:
    """A clean image, whose own moments are taken once for all its versions."""

    def __init__(self, clean: Tensor) -> None:
        """Take a clean image (1, C, H, W) in [0, 1].

        Raises:
            AttackError: it is smaller than the window.
        """
        check_window(clean)
        self.clean = clean.double()
        self._mean, square = _blur(torch.stack([self.clean, self.clean * self.clean]))
        self._variance = square - self._mean * self._mean

    def moments(self, change: Tensor) -> Moments:
        """Return the windowed moments of the image and of changes to it (B, C, H, W)."""
        x, d = self.clean, change.double()
        moved, product, moved_square = _blur(torch.stack([d, x * d, d * d]))
        covariance = product - self._mean * moved
        return Moments(self._mean, moved, self._variance, covariance, moved_square - moved * moved)

    def ssim(self, images: Tensor) -> Tensor:
        """Return the mean SSIM over channels and windows of versions (B, C, H, W): (B,) float64.

        One version after another: all at once take a dozen times their size, and longer, too.
        """
        whole = torch.ones(1)
        found = [
            similarity_along(self.moments(image - self.clean), whole) for image in _each(images.double())
        ]
        return torch.cat(found)


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Return the mean SSIM over channels and windows of images (B, C, H, W) in [0, 1]: (B,) float64.

    Args:
        images: what is compared.
        clean: (B, C, H, W), or (1, C, H, W) for all of them.

    Raises:
        AttackError: an image is smaller than the window.
    """
    if images.is_cuda:  # where the stack is bounded by the caller and every operation waits to be started
        change = images.double() - clean.double()
        return similarity_along(Reference(clean).moments(change), torch.ones(1))
    if len(clean) == 1:
        return Reference(clean).ssim(images)
    pairs = zip(_each(images), _each(clean), strict=True)
    return torch.cat([Reference(x).ssim(image) for image, x in pairs])


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
    change stays in any convex set that holds the clean image, so ball and box are kept. One image after
    another, as memory is.

    Args:
        images: (B, C, H, W) in [0, 1].
        clean: (B, C, H, W).
        floor: SSIM below 1.
    """
    pairs = zip(_each(images), _each(clean), strict=True)
    return torch.cat([_pulled(image, Reference(x), floor) for image, x in pairs])


def _pulled(image: Tensor, reference: Reference, floor: float) -> Tensor:
    """Return one image (1, C, H, W), pulled to the floor.

    On the CPU the search ends when it is near enough. A device is not asked, and takes all its steps, of
    which those beyond that change nothing.
    """
    asks = image.device.type == "cpu"
    change = image.double() - reference.clean
    of = reference.moments(change)
    wanted = math.sqrt(1 - floor)
    outside = change.new_ones(1)
    whole = similarity_along(of, outside)
    if asks and float(whole) >= floor:
        return image
    # Nearly linear in the scale, so that false position, aimed a little inside, is there in a few steps.
    at_outside = _loss(whole)
    inside = at_inside = change.new_zeros(1)
    for _ in range(_STEPS):
        near = at_inside >= _NEAR * wanted
        if asks and bool(near):
            break
        share = (_AIM * wanted - at_inside) / (at_outside - at_inside)
        middle = inside + (outside - inside) * share.clamp(0, 1)
        at = _loss(similarity_along(of, middle))
        fits = at * (1 + _MARGIN) <= wanted
        inside, at_inside = (
            torch.where(fits & ~near, new, old) for new, old in ((middle, inside), (at, at_inside))
        )
        outside, at_outside = (
            torch.where(fits | near, old, new) for new, old in ((middle, outside), (at, at_outside))
        )
    pulled = (reference.clean + inside * change).to(image.dtype)
    return torch.where(whole >= floor, image, pulled)


def _loss(similarity: Tensor) -> Tensor:
    """Return sqrt(1 - SSIM), 0 at the clean image."""
    loss: Tensor = (1 - similarity).clamp_min(0).sqrt()
    return loss


def _each(images: Tensor) -> list[Tensor]:
    return [images[i : i + 1] for i in range(len(images))]


def _blur(maps: Tensor) -> Tensor:
    """Return Gaussian-weighted means (..., H - 10, W - 10) of maps (..., H, W)."""
    places = torch.arange(WINDOW, dtype=maps.dtype) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    if maps.is_cuda:  # where products of matrices are the fastest thing in float64
        return _by_matrices(maps, weights)
    # Sums of shifted maps: several times as fast as a convolution in float64.
    return _weighted(_weighted(maps, weights.tolist(), -2), weights.tolist(), -1)


def _by_matrices(maps: Tensor, weights: Tensor) -> Tensor:
    down, right = (_band(maps, weights, size) for size in maps.shape[-2:])
    return down @ maps @ right.T


def _band(like: Tensor, weights: Tensor, size: int) -> Tensor:
    """Return the matrix (size - 10, size) that takes the means along one side."""
    first = torch.arange(size - WINDOW + 1, device=like.device).view(-1, 1)
    places = torch.arange(size, device=like.device) - first
    inside = (places >= 0) & (places < WINDOW)
    return torch.where(inside, weights.to(like.device)[places.clamp(0, WINDOW - 1)], 0.0)


def _weighted(maps: Tensor, weights: Sequence[float], dim: int) -> Tensor:
    size = maps.shape[dim] - len(weights) + 1
    total = maps.narrow(dim, 0, size) * weights[0]
    for place, weight in enumerate(weights[1:], start=1):
        total = total.add(maps.narrow(dim, place, size), alpha=weight)
    return total
