"""The fake that is part of the product: a model whose gradient and worst case are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqa_models.quality_model import QualityModel
from iqa_models.registry import register_model
from iqa_models.spec import ModelSpec


class LinearQuality(QualityModel):
    """f(x) = b + mean(w * x): linear in every pixel, so every attack's optimum is known.

    The weight pattern w (3, s, s) has entries of both signs and a few zeros and is tiled over the image.
    Within ||d||_inf <= eps and the box, the maximum is reached at clip(x + eps sign(w), 0, 1), the
    minimum at clip(x - eps sign(w), 0, 1). Within ||d||_2 <= eps and no active box it is
    f(x) +- eps ||w||_2 / n for n pixels values.
    """

    def __init__(self, spec: ModelSpec, pattern: Tensor, bias: float) -> None:
        super().__init__(spec)
        self.pattern = nn.Parameter(pattern)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=pattern.dtype))

    def weight(self, height: int, width: int) -> Tensor:
        """Return w (3, height, width), the gradient of sum(w * x)."""
        side = self.pattern.shape[-1]
        rows, columns = -(-height // side), -(-width // side)
        return self.pattern.repeat(1, rows, columns)[:, :height, :width]

    def predict(self, images: Tensor) -> Tensor:
        """Return b + mean(w * x) for each image."""
        weight = self.weight(*images.shape[-2:])
        # A sum an image, not a matrix product: bit-equal whatever the batch size.
        return self.bias + torch.stack([(weight * image).sum() for image in images]) / weight.numel()


@register_model("linear")
def linear(*, seed: int = 0, side: int = 8, scale: float = 4.0, dtype: str = "float32") -> LinearQuality:
    """LinearQuality: closed-form gradient and known optimum, for tests and for checking an attack."""
    if side < 1 or not 0 < scale < float("inf") or dtype not in ("float32", "float64"):
        raise ValueError("side is at least 1, scale positive and finite, dtype float32 or float64")
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randn(3, side, side, generator=generator, dtype=torch.float64)
    pattern = pattern * scale
    pattern.view(-1)[:: max(7, side)] = 0.0
    spec = ModelSpec(
        name="linear",
        options={"seed": seed, "side": side, "scale": scale, "dtype": dtype},
        summary="closed-form linear score; a yardstick, not an image quality model",
        score_range=(0.0, 1.0),
        input_protocol="whole image",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        source="closed form",
    )
    return LinearQuality(spec, pattern.to(getattr(torch, dtype)), 0.5)
