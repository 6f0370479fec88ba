"""Images that an 8-bit file holds exactly: rounding a change without making it longer."""

from __future__ import annotations

import torch
from torch import Tensor

from iqa_attacks.errors import AttackError

_NEAR = 1e-3  # of a grey level: what float32 makes of a whole one


def nearest_levels(images: Tensor) -> Tensor:
    """Return images in [0, 1] rounded to the nearest of 256 levels, in their own precision.

    What a file would make of them; a change from a clean image may get longer (`to_8_bits` keeps it short).
    """
    return (images * 255).round() / 255


def on_levels(images: Tensor) -> bool:
    """Whether every pixel is one of the 256 levels, to the last bit."""
    return torch.equal(images, nearest_levels(images))


def round_inf(images: Tensor, clean: Tensor, reach: int | Tensor, *, checked: bool = False) -> Tensor:
    """Round images (B, C, H, W) to 8 bits, no pixel further than `reach` levels from the clean image.

    The reach is one for all images, or (B, 1, 1, 1). Clean images that are `checked` already are not looked
    at again.

    Raises:
        AttackError: the clean image is none of 8 bits.
    """
    at = _levels(clean, checked)
    change = (images.double() * 255 - at).round()
    change = change.clamp(-reach, reach)  # type: ignore[arg-type]  # both numbers, or both tensors
    return _pixels(at + change, images)


def round_2(images: Tensor, clean: Tensor, *, checked: bool = False) -> Tensor:
    """Round images (B, C, H, W) to 8 bits so that no change gets longer in norm 2.

    Changes are cut to whole levels; then those with the largest remainder get one level more, as many as
    keep the length. Rounding to the nearest level would lose a change that is everywhere below one half.
    Clean images that are `checked` already are not looked at again.

    Raises:
        AttackError: the clean image is none of 8 bits.
    """
    at = _levels(clean, checked)
    change = images.double() * 255 - at
    whole = change.round()
    size = torch.where((change - whole).abs() < _NEAR, whole, change).abs().flatten(1)
    base = size.floor()
    rest, order = (size - base).sort(dim=1, descending=True, stable=True)
    # One level more lengthens the squared change by (b + 1)^2 - b^2.
    price = (2 * base + 1).gather(1, order).cumsum(dim=1)
    room = (size.square() - base.square()).sum(dim=1, keepdim=True) + 1e-9
    more = torch.zeros_like(base).scatter(1, order, ((rest > 0) & (price <= room)).double())
    return _pixels(at + ((base + more).view_as(change) * change.sign()), images)


def check_levels(clean: Tensor) -> None:
    """Refuse an image that lies between grey levels.

    Raises:
        AttackError: it is none of 8 bits.
    """
    _levels(clean)


def _levels(clean: Tensor, checked: bool = False) -> Tensor:
    scaled = clean.double() * 255
    levels = scaled.round()
    if not checked and bool(((scaled - levels).abs() > _NEAR).any()):
        raise AttackError(
            "8-bit pixels: a clean image is none of 8 bits itself; round it to multiples of 1/255 first"
        )
    return levels


def _pixels(levels: Tensor, like: Tensor) -> Tensor:
    pixels: Tensor = levels.clamp(0, 255).to(like.dtype) / 255
    return pixels
