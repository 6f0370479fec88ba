"""Dynamic Tanh: a bounded, smooth stand-in for normalisation, without statistics (paper 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqa_models.srm.config import SRMConfig


class DyT(nn.Module):
    """Tokens (..., C) to w * tanh(a x) + b; a is a scalar, w and b have a value a channel.

    After Zhu et al. 2025, "Transformers without Normalization".
    """

    def __init__(self, config: SRMConfig) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(config.dyt_alpha))
        self.weight = nn.Parameter(torch.full((config.width,), config.dyt_weight))
        self.bias = nn.Parameter(torch.full((config.width,), config.dyt_bias))

    def forward(self, tokens: Tensor) -> Tensor:
        """Bound tokens (..., C) channel by channel."""
        return self.weight * torch.tanh(self.alpha * tokens) + self.bias
