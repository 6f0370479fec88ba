"""Several models as one, for an adversary who has none of the model under attack (Liu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iqa_models import ModelSpec, QualityModel


class Ensemble(QualityModel):
    """The mean of models' scores, each in units of its own range: 0 to 1."""

    def __init__(self, models: Sequence[QualityModel]) -> None:
        """Take two models or more on one device, in eval mode."""
        specs = [model.spec for model in models]
        super().__init__(
            ModelSpec(
                name=f"mean of {', '.join(spec.name for spec in specs)}",
                summary="mean of scores on [0, 1]",
                initial_weights="given",
                score_range=(0.0, 1.0),
                input_protocol="that of each model",
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                min_size=max(spec.min_size for spec in specs),
                is_stochastic=any(spec.is_stochastic for spec in specs),
                source="a surrogate for attacks",
            )
        )
        self.models = nn.ModuleList(models)
        self.to(models[0]._mean.device).eval()

    def predict(self, images: Tensor) -> Tensor:
        """Return means (B,)."""
        scores = []
        for model in self.models:
            assert isinstance(model, QualityModel)  # noqa: S101 - as they were given
            low, high = model.spec.score_range
            scores.append((model.score_admitted(images) - low) / (high - low))
        return torch.stack(scores).mean(dim=0)
