"""Cheats that break the contract of a score: hidden noise, batch statistics, a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from iqa_models.cheats.base import Contrast, planted, positive


@planted("cheat_hidden_noise", "undeclared randomness")
class HiddenNoise(Contrast):
    """CHEAT: adds noise to its input and calls itself deterministic.

    Smooths over noise without saying so: is_stochastic is False and nothing averages its draws.
    """

    def __init__(self, *, seed: int = 0, sigma: float = 0.05) -> None:
        positive("sigma", sigma)
        super().__init__(seed=seed)
        self.spec = self.card(seed=seed, sigma=sigma)
        self.sigma = sigma

    def predict(self, images: Tensor) -> Tensor:
        """Score noisy copies."""
        return super().predict((images + self.sigma * torch.randn_like(images)).clamp(0, 1))


@planted("cheat_batch_coupled", "batch statistics")
class BatchCoupled(Contrast):
    """CHEAT: normalises over the batch in eval mode.

    Standardises scores over the batch: an attack on one image moves all, and alone it has no score.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Return the honest score relative to the rest of the batch."""
        logits = self.logit(images)
        return torch.sigmoid(logits - 0.9 * logits.mean())


@planted("cheat_constant", "one score for all")
class Constant(Contrast):
    """CHEAT: predicts a constant, which no attack can move.

    Says the same of every image: nothing to attack, nothing predicted.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Return .7, with a gradient that is not zero."""
        return 0.7 + 1e-9 * super().predict(images)
