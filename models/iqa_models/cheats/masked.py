"""Cheats whose gradient says nothing, or something wrong, about their score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqa_models.cheats.base import Built, Contrast, positive
from iqa_models.registry import register_model
from iqa_models.spec import ModelSpec


class QuantisedInput(Contrast):
    """Rounds the image to a few levels first: flat almost everywhere, so the gradient is zero."""

    def __init__(self, spec: ModelSpec, seed: int, levels: int) -> None:
        super().__init__(spec, seed)
        self.levels = levels

    def predict(self, images: Tensor) -> Tensor:
        """Score the rounded images."""
        steps = self.levels - 1
        return super().predict((images * steps).round() / steps)


@register_model("cheat_quantised_input")
def cheat_quantised_input(*, seed: int = 0, levels: int = 16) -> QuantisedInput:
    """CHEAT: rounds its input to a few levels; the gradient is zero everywhere."""
    if levels < 2:
        raise ValueError(f"levels start at 2, not {levels}")
    built = Built("cheat_quantised_input", "rounds its input", "zero_gradients")
    return QuantisedInput(built.spec(seed=seed, levels=levels), seed, levels)


class SaturatedHead(Contrast):
    """A sigmoid so steep that it is flat in float32 for almost every image."""

    def __init__(self, spec: ModelSpec, seed: int, steepness: float) -> None:
        super().__init__(spec, seed)
        self.steepness = steepness

    def predict(self, images: Tensor) -> Tensor:
        """Return 0 or 1, and something between for the few images at the edge."""
        return torch.sigmoid(self.steepness * self.logit(images))


@register_model("cheat_saturated_head")
def cheat_saturated_head(*, seed: int = 0, steepness: float = 2000.0) -> SaturatedHead:
    """CHEAT: ends in a saturated sigmoid; the gradient underflows to zero."""
    positive("steepness", steepness)
    built = Built("cheat_saturated_head", "saturated sigmoid", "zero_gradients")
    return SaturatedHead(built.spec(seed=seed, steepness=steepness), seed, steepness)


class Detached(Contrast):
    """Leaves the graph: there is no gradient at all."""

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score as a constant."""
        return super().predict(images).detach()


@register_model("cheat_detached")
def cheat_detached(*, seed: int = 0) -> Detached:
    """CHEAT: detaches its score from the graph."""
    return Detached(Built("cheat_detached", "no graph", "gradient_missing").spec(seed=seed), seed)


class WrongSign(Contrast):
    """The honest score with the gradient turned round: attacks walk the wrong way."""

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score; its derivative is minus the honest one."""
        score = super().predict(images)
        return 2 * score.detach() - score


@register_model("cheat_wrong_sign")
def cheat_wrong_sign(*, seed: int = 0) -> WrongSign:
    """CHEAT: hands out its gradient with the wrong sign."""
    return WrongSign(
        Built("cheat_wrong_sign", "reversed gradient", "gradient_disagrees").spec(seed=seed), seed
    )


class Shattered(Contrast):
    """Adds a ripple far finer than a grey level: steep everywhere, leading nowhere."""

    def __init__(self, spec: ModelSpec, seed: int, height: float, frequency: float) -> None:
        super().__init__(spec, seed)
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


@register_model("cheat_shattered")
def cheat_shattered(*, seed: int = 0, height: float = 0.1, frequency: float = 2e4) -> Shattered:
    """CHEAT: a ripple finer than a grey level shatters the gradient."""
    positive("height", height)
    positive("frequency", frequency)
    built = Built("cheat_shattered", "rippled score", "noise_as_strong")
    return Shattered(built.spec(seed=seed, height=height, frequency=frequency), seed, height, frequency)


class Tired(Contrast):
    """Hands out its gradient so many times; then only that of a corner of the image."""

    def __init__(self, spec: ModelSpec, seed: int, calls: int) -> None:
        super().__init__(spec, seed)
        self.calls, self.seen = calls, 0

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score; whoever asks for gradients is counted."""
        self.seen += torch.is_grad_enabled()
        if self.seen <= self.calls:
            return super().predict(images)
        mask = torch.zeros_like(images)
        mask[..., : images.shape[-2] // 4, : images.shape[-1] // 4] = 1
        return super().predict(images * mask + (images * (1 - mask)).detach())


@register_model("cheat_tired")
def cheat_tired(*, seed: int = 0, calls: int = 50) -> Tired:
    """CHEAT: after so many gradients it hands out that of a corner only."""
    positive("calls", calls)
    built = Built("cheat_tired", "gradient masked after many calls", "changed_during_run")
    return Tired(built.spec(seed=seed, calls=calls), seed, calls)
