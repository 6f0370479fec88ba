"""Cheats that break the contract of a score: hidden noise, batch statistics, a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from iqa_models.cheats.base import Built, Contrast, positive
from iqa_models.registry import register_model
from iqa_models.spec import ModelSpec


class HiddenNoise(Contrast):
    """Smooths over noise without saying so: is_stochastic is False and nothing averages its draws."""

    def __init__(self, spec: ModelSpec, seed: int, sigma: float) -> None:
        super().__init__(spec, seed)
        self.sigma = sigma

    def predict(self, images: Tensor) -> Tensor:
        """Score noisy copies."""
        return super().predict((images + self.sigma * torch.randn_like(images)).clamp(0, 1))


@register_model("cheat_hidden_noise")
def cheat_hidden_noise(*, seed: int = 0, sigma: float = 0.05) -> HiddenNoise:
    """CHEAT: adds noise to its input and calls itself deterministic."""
    positive("sigma", sigma)
    built = Built("cheat_hidden_noise", "undeclared randomness", "scores_vary")
    return HiddenNoise(built.spec(seed=seed, sigma=sigma), seed, sigma)


class BatchCoupled(Contrast):
    """Standardises scores over the batch: an attack on one image moves all, and alone it has no score."""

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score relative to the rest of the batch."""
        logits = self.logit(images)
        return torch.sigmoid(logits - 0.9 * logits.mean())


@register_model("cheat_batch_coupled")
def cheat_batch_coupled(*, seed: int = 0) -> BatchCoupled:
    """CHEAT: normalises over the batch in eval mode."""
    built = Built("cheat_batch_coupled", "batch statistics", "batch_dependence")
    return BatchCoupled(built.spec(seed=seed), seed)


class Constant(Contrast):
    """Says the same of every image: nothing to attack, nothing predicted."""

    def predict(self, images: Tensor) -> Tensor:
        """Return .7, with a gradient that is not zero."""
        return 0.7 + 1e-9 * super().predict(images)


@register_model("cheat_constant")
def cheat_constant(*, seed: int = 0) -> Constant:
    """CHEAT: predicts a constant, which no attack can move."""
    return Constant(Built("cheat_constant", "one score for all", "constant_predictor").spec(seed=seed), seed)
