"""What the tests of attacks share: a smooth model, small images, bitwise comparison of what was found."""

import torch
from torch import Tensor

from iqa_models import ModelSpec, QualityModel, create_model

ALL = ("mse", "drift", "pairwise_inversion", "raise", "lower")
SIZES = [(8, 8)] * 11


class Wavy(QualityModel):
    """A smooth non-linear model in float64, one image after another: bit-equal for every batch size."""

    def __init__(self, **card: object) -> None:
        linear = create_model("linear", dtype="float64")
        super().__init__(
            ModelSpec(**{**linear.spec.model_dump(), "name": "wavy", "score_range": (0, 1), **card})
        )
        self.linear = linear

    def predict(self, images: Tensor) -> Tensor:
        waves = [torch.sin(9 * image).mul(image.roll(1, -1)).mean() for image in images]
        return 0.3 * self.linear(images) + torch.stack(waves)


def targets(sizes=SIZES, seed=0, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    images = [low + (high - low) * torch.rand(3, *s, generator=generator, dtype=torch.float64) for s in sizes]
    return (
        images,
        [f"image-{i}" for i in range(len(sizes))],
        torch.rand(len(sizes), generator=generator).double(),
    )


def by_key(result):
    return {(f.image, f.objective, f.steps): f for f in result.found}


def same(a, b):
    """Whether two found entries are the same, bit for bit."""
    return (
        a.loss == b.loss
        and a.example.score == b.example.score
        and (a.example.restart, a.example.step) == (b.example.restart, b.example.step)
        and torch.equal(a.example.pixels, b.example.pixels)
    )
