"""The learned scale of a link's heads, and the loss that drives it (paper 3.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iqa_models.srm.config import SRMConfig
from iqa_models.srm.tokens import critical_dtype

LOG_EPSILON = 1e-6
"""Inside the logarithm of the rescaler's loss."""


def vector_rms(heads: Tensor) -> Tensor:
    """Return sqrt(mean ||O - mu||^2) a head (H,) of heads (B, H, N, d); mu is the mean token of a head."""
    exact = heads.to(critical_dtype(heads))
    centred = exact - exact.mean(dim=(0, 2), keepdim=True)
    return centred.square().sum(-1).mean(dim=(0, 2)).sqrt()


def scale_loss(gamma: Tensor, ema: Tensor, width: int) -> Tensor:
    """Return mean_h (log((gamma s_bar + 1e-6) / sqrt d))^2 of gamma (H,), running scale (H,) and d."""
    return torch.log((gamma * ema + LOG_EPSILON) / math.sqrt(width)).square().mean()


class Rescaler(nn.Module):
    """Multiplies heads (B, H, N, d) by gamma = exp(theta), one a head.

    ``ema`` is the running vector RMS, sqrt(d) before the first training step; it moves in training only.
    """

    def __init__(self, config: SRMConfig) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.momentum = config.ema_momentum
        self.bounds = (math.log(config.gamma_low), math.log(config.gamma_high))
        self.theta = nn.Parameter(torch.zeros(config.heads))
        self.register_buffer("ema", torch.full((config.heads,), math.sqrt(config.head_width)))
        self.ema: Tensor

    @property
    def gamma(self) -> Tensor:
        """Scale a head (H,), at least float32."""
        return self.theta.to(critical_dtype(self.theta)).exp()

    def forward(self, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale heads (B, H, N, d); in training also bound gamma and move the running scale.

        Returns:
            What came out, and constants a head (H,): its vector RMS before, and its scale gamma.
        """
        with torch.no_grad():
            rms = vector_rms(heads)
            if self.training:
                # The parameter is clamped, not its use: a gamma at its bound keeps a gradient.
                self.theta.clamp_(*self.bounds)
                self.ema.mul_(self.momentum).add_((1 - self.momentum) * rms.to(self.ema.dtype))
        gamma = self.gamma
        output = (heads * gamma[:, None, None]).to(heads.dtype)
        return output, rms, gamma.detach()

    def loss(self) -> Tensor:
        """Return the unweighted loss of gamma against the running scale, which is a constant."""
        return scale_loss(self.gamma, self.ema.detach().clone().to(self.gamma.dtype), self.head_width)
