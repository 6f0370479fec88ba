"""The honest network that every cheat is built on, and the card they share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqa_models.quality_model import QualityModel
from iqa_models.registry import register_model
from iqa_models.spec import ModelSpec

CHANNELS = 12


class Contrast(QualityModel):
    """Smooth random filters, their local energy, a logistic head: no training, no trick.

    Scores lie in (0, 1). Every operation is smooth, so the gradient is the slope at any scale.
    """

    def __init__(self, spec: ModelSpec, seed: int) -> None:
        super().__init__(spec)
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(CHANNELS, 3, 5, 5, generator=generator)
        filters = filters - filters.mean(dim=(1, 2, 3), keepdim=True)  # blind to plain brightness
        self.filters = nn.Parameter(filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        self.weights = nn.Parameter(torch.rand(CHANNELS, generator=generator) + 0.2)
        self.tint = nn.Parameter(torch.randn(3, generator=generator))

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


class Built:
    """Makes the card of a cheat."""

    def __init__(self, name: str, summary: str, flag: str | None) -> None:
        self.name, self.summary, self.flag = name, summary, flag

    def spec(self, **options: float) -> ModelSpec:
        """Return the card; its notes say what the model is and which flag is meant for it."""
        notes = (
            ("the honest network under the cheats: no flag is meant for it",)
            if self.flag is None
            else ("A planted cheat: its robustness is not real.", f"The flag meant for it: {self.flag}.")
        )
        return ModelSpec(
            name=self.name,
            options=options,
            summary=self.summary,
            score_range=(0.0, 1.0),
            input_protocol="whole image",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            min_size=16,
            source="made to be caught",
            notes=notes,
        )


def positive(name: str, value: float) -> None:
    """Refuse an option that is not positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, not {value}")


@register_model("cheat_none")
def cheat_none(*, seed: int = 0) -> Contrast:
    """The honest network that the planted cheats are built on; it raises no flag."""
    return Contrast(Built("cheat_none", "honest random filters under the cheats", None).spec(seed=seed), seed)
