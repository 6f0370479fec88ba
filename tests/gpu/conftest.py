"""What only a CUDA device can show: skipped where there is none."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from iqa_models import ModelSpec, QualityModel


@pytest.fixture(scope="session")
def card():
    """The first card."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda:0"


class Convolutional(QualityModel):
    """Convolutions with seeded weights: cheap, not linear, and its score moves with every pixel."""

    def __init__(self, seed: int = 0, width: int = 16, depth: int = 3) -> None:
        super().__init__(
            ModelSpec(
                name="convolutional", summary="random convolutions", score_range=(0, 1),
                input_protocol="whole image", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
                source="this test", options={"seed": seed, "width": width, "depth": depth},
            )
        )  # fmt: skip
        sizes = [3, *[width] * depth]
        pairs = pairwise(sizes)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs)
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / (
                layer.weight[0].numel() ** 0.5
            )
        self.head = nn.Parameter(torch.randn(width, generator=generator))

    def predict(self, images):
        maps = self.normalise(images)
        for layer in self.layers:
            maps = nn.functional.gelu(layer(maps))
        return torch.sigmoid(maps.mean(dim=(2, 3)) @ self.head)


@pytest.fixture
def convolutional():
    """The class, for models of any width and depth."""
    return Convolutional
