"""Average pooling to a fixed grid."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


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
