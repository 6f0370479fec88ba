"""The hyper-network: generates the target network's weights from a fused map."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from iqa_models.hyper.fusion import SIDE
from iqa_models.hyper.target_network import SIZES

CHANNELS = 112
"""Channels of the hyper map h."""


class Generated(NamedTuple):
    """What the hyper-network makes of one batch."""

    hyper: Tensor
    """The hyper map h (B, 112, 7, 7), after dropout."""
    weights: tuple[Tensor, ...]
    """Five matrices (B, out, in)."""
    biases: tuple[Tensor, ...]
    """Five vectors (B, out)."""


class HyperNetwork(nn.Module):
    """A map (B, C, 7, 7) to five weight matrices and bias vectors an image.

    Three 1x1 convolutions with ReLU squeeze the map to h (112 channels). A 3x3 convolution a layer makes
    (out * in / 49, 7, 7) numbers, read row by row as the (out, in) matrix; the last matrix and all biases
    are linear in the global mean of h. HyperIQA section 3.3; the code of both models (SMART-IQA's
    appendix says 1x1 generators).
    """

    def __init__(self, in_channels: int, hidden: tuple[int, int], dropout: float = 0.0) -> None:
        super().__init__()
        widths = (in_channels, *hidden, CHANNELS)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 1), nn.ReLU()]
        self.squeeze = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        matrices = [(out, given) for given, out in pairwise(SIZES)]
        self.weights = nn.ModuleList(
            nn.Conv2d(CHANNELS, out * given // SIDE**2, 3, padding=1) for out, given in matrices[:-1]
        )
        self.weights.append(nn.Linear(CHANNELS, SIZES[-2] * SIZES[-1]))
        self.biases = nn.ModuleList(nn.Linear(CHANNELS, out) for out, _ in matrices)

    def forward(self, fused: Tensor) -> Generated:
        """Return h and the generated weights and biases of a map (B, C, 7, 7)."""
        hyper = self.dropout(self.squeeze(fused))
        mean = hyper.mean(dim=(2, 3))
        sources = [hyper] * (len(self.weights) - 1) + [mean]
        weights = tuple(
            make(source).reshape(-1, out, given)
            for make, source, (given, out) in zip(self.weights, sources, pairwise(SIZES), strict=True)
        )
        return Generated(hyper, weights, tuple(make(mean) for make in self.biases))
