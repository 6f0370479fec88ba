"""Local distortion aware features (LDA): every stage of the trunk, summarised in one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 16
"""Numbers the first three stages contribute each; the fourth fills up to `LENGTH`."""

LENGTH = 224
"""Length of the vector: the target network's input."""

GRIDS = (8, 4, 2, 1)
"""Side to which each stage is pooled; 7x7 means with stride 7 at 224 pixels."""


class LocalDistortionAware(nn.Module):
    """Stage maps (B, C_s, H_s, W_s) to a vector v (B, 224).

    Stages 1..3: 1x1 convolution to 16, 32, 64 channels, mean over a grid of 8x8, 4x4, 2x2, and a linear
    layer to 16 numbers. Stage 4: global mean and a linear layer to 176. No activation anywhere.
    HyperIQA section 3.2; SMART-IQA's code, whose paper does not mention it.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        widths = [WIDTH, 2 * WIDTH, 4 * WIDTH]
        self.reduce = nn.ModuleList(
            nn.Conv2d(c, width, 1, bias=False) for c, width in zip(channels[:3], widths, strict=True)
        )
        sizes = [width * grid**2 for width, grid in zip(widths, GRIDS[:3], strict=True)]
        self.project = nn.ModuleList(nn.Linear(size, WIDTH) for size in sizes)
        self.project.append(nn.Linear(channels[3], LENGTH - 3 * WIDTH))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return v (B, 224) of four stage maps."""
        reduced = [conv(stage) for conv, stage in zip(self.reduce, maps[:3], strict=True)]
        pooled = [pool_to(stage, grid) for stage, grid in zip([*reduced, maps[3]], GRIDS, strict=True)]
        parts = [linear(stage.flatten(1)) for linear, stage in zip(self.project, pooled, strict=True)]
        return torch.cat(parts, dim=1)


def pool_to(maps: Tensor, side: int) -> Tensor:
    """Average maps (B, C, H, W) over a grid: (B, C, side, side).

    Where the grid divides the map, plain average pooling: the same numbers as adaptive pooling, which
    has no deterministic gradient on CUDA. Other sizes take adaptive pooling.
    """
    height, width = maps.shape[-2:]
    if (height, width) == (side, side):
        return maps
    if height % side == 0 and width % side == 0:
        return functional.avg_pool2d(maps, (height // side, width // side))
    return functional.adaptive_avg_pool2d(maps, side)
