"""The honest network that every cheat is built on, the card they share, and the flag meant for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqa_models.quality_model import QualityModel
from iqa_models.registry import register_model
from iqa_models.spec import ModelSpec

CHANNELS = 12

CHEATS: dict[str, str] = {
    "cheat_quantised_input": "zero_gradients",
    "cheat_saturated_head": "zero_gradients",
    "cheat_detached": "gradient_missing",
    "cheat_wrong_sign": "gradient_disagrees",
    "cheat_tired": "changed_during_run",
    "cheat_jpeg": "gradient_disagrees",
    "cheat_shattered": "noise_as_strong",
    "cheat_hidden_noise": "scores_vary",
    "cheat_batch_coupled": "batch_dependence",
    "cheat_wrong_range": "input_range",
    "cheat_inner_budget": "larger_epsilon_not_stronger",
    "cheat_fragile_8bit": "rounding_decides",
    "cheat_constant": "constant_predictor",
}
"""Every cheat and the flag meant for it."""

C = TypeVar("C", bound="type[Contrast]")


def planted(name: str, summary: str) -> Callable[[C], C]:
    """Register a class as a model of that name, with a few words for its card."""

    def plant(kind: C) -> C:
        kind.name, kind.summary = name, summary
        return register_model(name)(kind)

    return plant


@planted("cheat_none", "honest random filters under the cheats")
class Contrast(QualityModel):
    """The honest network that the planted cheats are built on; it raises no flag.

    Smooth random filters, their local energy, a logistic head: no training, no trick. Scores lie in (0, 1).
    Every operation is smooth, so the gradient is the slope at any scale.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    """Of its card."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(self.card(seed=seed))
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(CHANNELS, 3, 5, 5, generator=generator)
        filters = filters - filters.mean(dim=(1, 2, 3), keepdim=True)  # blind to plain brightness
        self.filters = nn.Parameter(filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        self.weights = nn.Parameter(torch.rand(CHANNELS, generator=generator) + 0.2)
        self.tint = nn.Parameter(torch.randn(3, generator=generator))

    @classmethod
    def card(cls, **options: float) -> ModelSpec:
        """Return the card; its notes say what the model is and which flag is meant for it."""
        flag = CHEATS.get(cls.name)
        return ModelSpec(
            name=cls.name,
            options=options,
            summary=cls.summary,
            score_range=(0.0, 1.0),
            input_protocol="whole image",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            min_size=16,
            source="made to be caught",
            notes=("the honest network under the cheats: no flag is meant for it",)
            if flag is None
            else ("A planted cheat: its robustness is not real.", f"The flag meant for it: {flag}."),
        )

    def logit(self, images: Tensor) -> Tensor:
        """Return the head's input (B,), about in -3 .. 3 for photographs."""
        response = torch.tanh(2 * functional.conv2d(images, self.filters, stride=2))
        energy = response.square().flatten(2).mean(dim=2)
        loudness = (torch.log(energy + 1e-3) * self.weights).sum(dim=1) / self.weights.sum()
        colour: Tensor = (images.flatten(2).mean(dim=2) - 0.5) @ self.tint
        return 0.8 * (loudness + 4) + colour

    def predict(self, images: Tensor) -> Tensor:
        """Return the score of each image."""
        return torch.sigmoid(self.logit(images))


def positive(name: str, value: float) -> None:
    """Refuse an option that is not positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, not {value}")
