"""Cheats whose gradient says nothing, or something wrong, about their score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqa_models.cheats.base import Contrast, planted, positive


@planted("cheat_quantised_input", "rounds its input")
class QuantisedInput(Contrast):
    """CHEAT: rounds its input to a few levels; the gradient is zero everywhere."""

    def __init__(self, *, seed: int = 0, levels: int = 16) -> None:
        if levels < 2:
            raise ValueError(f"levels start at 2, not {levels}")
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, levels=levels)
        self.levels = levels

    def predict(self, images: Tensor) -> Tensor:
        """Score the rounded images."""
        steps = self.levels - 1
        return super().predict((images * steps).round() / steps)


@planted("cheat_saturated_head", "saturated sigmoid")
class SaturatedHead(Contrast):
    """CHEAT: ends in a saturated sigmoid; the gradient underflows to zero.

    It is so steep that it is flat in float32 for almost every image.
    """

    def __init__(self, *, seed: int = 0, steepness: float = 2000.0) -> None:
        positive("steepness", steepness)
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, steepness=steepness)
        self.steepness = steepness

    def predict(self, images: Tensor) -> Tensor:
        """Return 0 or 1, and something between for the few images at the edge."""
        return torch.sigmoid(self.steepness * self.logit(images))


@planted("cheat_detached", "no graph")
class Detached(Contrast):
    """CHEAT: detaches its score from the graph.

    There is no gradient at all.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score as a constant."""
        return super().predict(images).detach()


@planted("cheat_wrong_sign", "reversed gradient")
class WrongSign(Contrast):
    """CHEAT: hands out its gradient with the wrong sign.

    The score is the honest one; attacks walk the wrong way.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score; its derivative is minus the honest one."""
        score = super().predict(images)
        return 2 * score.detach() - score


@planted("cheat_shattered", "rippled score")
class Shattered(Contrast):
    """CHEAT: a ripple finer than a grey level shatters the gradient.

    The score is steep everywhere, and leads nowhere.
    """

    def __init__(self, *, seed: int = 0, height: float = 0.1, frequency: float = 2e4) -> None:
        positive("height", height)
        positive("frequency", frequency)
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, height=height, frequency=frequency)
        self.height, self.frequency, self.seed = height, frequency, seed

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score plus the ripple."""
        # In double: a float32 sum is rounded with the batch, and the ripple would magnify that.
        generator = torch.Generator().manual_seed(self.seed + 1)
        pattern = torch.randn(images.shape[1:], generator=generator, dtype=torch.float64)
        pattern = pattern.to(images.device)
        projections = [(image.double() * pattern).sum() for image in images]
        phase = torch.stack(projections) / math.sqrt(pattern.numel()) * self.frequency
        return super().predict(images) + self.height * torch.sin(phase).to(images.dtype)


@planted("cheat_tired", "gradient masked after many calls")
class Tired(Contrast):
    """CHEAT: after so many gradients it hands out that of a corner only."""

    def __init__(self, *, seed: int = 0, calls: int = 50) -> None:
        positive("calls", calls)
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, calls=calls)
        self.calls, self.seen = calls, 0

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score; whoever asks for gradients is counted."""
        self.seen += torch.is_grad_enabled()
        if self.seen <= self.calls:
            return super().predict(images)
        mask = torch.zeros_like(images)
        mask[..., : images.shape[-2] // 4, : images.shape[-1] // 4] = 1
        return super().predict(images * mask + (images * (1 - mask)).detach())
