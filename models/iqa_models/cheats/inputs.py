"""Cheats that change what they look at: compression, a wrong range, an inner budget, a trick below 8 bits."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from iqa_models.cheats.base import Built, Contrast, positive
from iqa_models.registry import register_model
from iqa_models.spec import ModelSpec

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation table of ITU-T T.81, table K.1, for every channel."""


class Compressed(Contrast):
    """Compresses the image as JPEG does, 8 x 8 cosines rounded, and passes the gradient straight through."""

    def __init__(self, spec: ModelSpec, seed: int, quality: int) -> None:
        super().__init__(spec, seed)
        scale = 5000 / quality if quality < 50 else 200 - 2 * quality
        table = ((torch.tensor(LUMINANCE) * scale + 50) / 100).floor().clamp(1, 255) / 255
        k = torch.arange(8.0).view(8, 1)
        basis = torch.cos(math.pi * (2 * torch.arange(8.0) + 1) * k / 16) / 2
        basis[0] /= math.sqrt(2)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def predict(self, images: Tensor) -> Tensor:
        """Score the compressed images."""
        return super().predict(images + (self.compress(images) - images).detach())

    def compress(self, images: Tensor) -> Tensor:
        """Return images (B, 3, H, W) after rounding their cosine coefficients."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8) - 0.5
        basis, table = cast(Tensor, self.basis), cast(Tensor, self.table)
        rounded = (basis @ blocks @ basis.T / table).round() * table
        restored = (basis.T @ rounded @ basis + 0.5).clamp(0, 1)
        whole = restored.transpose(3, 4).reshape(padded.shape)
        return whole[..., :height, :width]


@register_model("cheat_jpeg")
def cheat_jpeg(*, seed: int = 0, quality: int = 10) -> Compressed:
    """CHEAT: compresses its input as JPEG and pretends it did not when asked for a gradient."""
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is 1..100, not {quality}")
    built = Built("cheat_jpeg", "JPEG inside", "gradient_disagrees")
    return Compressed(built.spec(seed=seed, quality=quality), seed, quality)


class WrongRange(Contrast):
    """Maps pixels to [-1, 1] for a network that clips to [0, 1]: dark tones are not seen."""

    def predict(self, images: Tensor) -> Tensor:
        """Score what is left of the images."""
        return super().predict((2 * images - 1).clamp(0, 1))


@register_model("cheat_wrong_range")
def cheat_wrong_range(*, seed: int = 0) -> WrongRange:
    """CHEAT: normalises to [-1, 1] in front of a network that clips to [0, 1]."""
    return WrongRange(Built("cheat_wrong_range", "clipped range", "input_range").spec(seed=seed), seed)


class InnerBudget(Contrast):
    """Remembers images and clips small changes of them: a budget of its own, whatever ours is."""

    def __init__(self, spec: ModelSpec, seed: int, budget: float) -> None:
        super().__init__(spec, seed)
        self.budget = budget
        self.known: list[Tensor] = []

    def predict(self, images: Tensor) -> Tensor:
        """Score the images with their small changes clipped."""
        return super().predict(torch.stack([self.clipped(image) for image in images]))

    def clipped(self, image: Tensor) -> Tensor:
        """Return the image no further than the budget from one that was seen before and is near."""
        for known in self.known:
            if known.shape == image.shape and float((image.detach() - known).abs().max()) <= 16 / 255:
                return known + (image - known).clamp(-self.budget, self.budget)
        self.known = [*self.known[-999:], image.detach().clone()]
        return image


@register_model("cheat_inner_budget")
def cheat_inner_budget(*, seed: int = 0, budget: float = 0.5 / 255) -> InnerBudget:
    """CHEAT: remembers what it has seen and clips the change inside."""
    positive("budget", budget)
    built = Built("cheat_inner_budget", "clips the change inside", "larger_epsilon_not_stronger")
    return InnerBudget(built.spec(seed=seed, budget=budget), seed, budget)


class Fragile8Bit(Contrast):
    """Scores what lies between grey levels: nothing in an image file, everything in an attack's floats."""

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score, made small, plus the distance of pixels from whole grey levels."""
        between = torch.sin(math.pi * 255 * images).square().flatten(1).mean(dim=1)
        return 0.1 * super().predict(images) + 0.9 * between


@register_model("cheat_fragile_8bit")
def cheat_fragile_8bit(*, seed: int = 0) -> Fragile8Bit:
    """CHEAT: lets attacks win between grey levels only; 8-bit files undo them."""
    return Fragile8Bit(
        Built("cheat_fragile_8bit", "between grey levels", "rounding_decides").spec(seed=seed), seed
    )
