"""Cheats that change what they look at: compression, a wrong range, an inner budget, a trick below 8 bits."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from iqa_models.cheats.base import Contrast, planted, positive

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


@planted("cheat_jpeg", "JPEG inside")
class Compressed(Contrast):
    """CHEAT: compresses its input as JPEG and pretends it did not when asked for a gradient.

    8 x 8 cosines are rounded, and the gradient passes straight through.
    """

    def __init__(self, *, seed: int = 0, quality: int = 10) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"quality is 1..100, not {quality}")
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, quality=quality)
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


@planted("cheat_wrong_range", "clipped range")
class WrongRange(Contrast):
    """CHEAT: normalises to [-1, 1] in front of a network that clips to [0, 1].

    Dark tones are not seen.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Score what is left of the images."""
        return super().predict((2 * images - 1).clamp(0, 1))


@planted("cheat_inner_budget", "clips the change inside")
class InnerBudget(Contrast):
    """CHEAT: remembers what it has seen and clips the change inside.

    It has a budget of its own, whatever ours is.
    """

    def __init__(self, *, seed: int = 0, budget: float = 0.5 / 255) -> None:
        positive("budget", budget)
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, budget=budget)
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


@planted("cheat_fragile_8bit", "between grey levels")
class Fragile8Bit(Contrast):
    """CHEAT: lets attacks win between grey levels only; 8-bit files undo them.

    Its score is of what lies there: nothing in an image file, everything in an attack's floats.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score, made small, plus the distance of pixels from whole grey levels."""
        between = torch.sin(math.pi * 255 * images).square().flatten(1).mean(dim=1)
        return 0.1 * super().predict(images) + 0.9 * between
