"""GateFuse: three pooled stages become one map, by weights kept apart and a gain kept small (paper 3.6)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqa_models.srm.config import SRMConfig
from iqa_models.srm.tokens import critical_dtype, without_autocast

CAP_EPSILON = 1e-6
"""Added to the RMS a gain cap divides by."""


class DyT(nn.Module):
    """Dynamic Tanh (paper 3.5): tokens (..., C) to w * tanh(a x) + b, bounded, without statistics.

    a is a scalar, w and b have a value a channel. Zhu et al. 2025, "Transformers without Normalization".
    """

    def __init__(self, config: SRMConfig) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(config.dyt_alpha))
        self.weight = nn.Parameter(torch.full((config.width,), config.dyt_weight))
        self.bias = nn.Parameter(torch.full((config.width,), config.dyt_bias))

    def forward(self, tokens: Tensor) -> Tensor:
        """Bound tokens (..., C) channel by channel."""
        return self.weight * torch.tanh(self.alpha * tokens) + self.bias


class Fused(NamedTuple):
    """The fused map and the gate's state."""

    output: Tensor
    """(B, C, P, P), at least float32."""
    weights: Tensor
    """Routing weights pi (B, S)."""
    entropy: Tensor
    """Of the weights (B,), natural logarithm."""
    rms: Tensor
    """Of the fused map before the cap (B,)."""
    factor: Tensor
    """What the cap multiplied by (B,), at most 1."""


def entropy_loss(entropy: Tensor, floor: float) -> Tensor:
    """Return mean_b max(0, floor - H_b) of entropies (B,)."""
    return (floor - entropy).clamp_min(0).mean()


def balance_loss(weights: Tensor) -> Tensor:
    """Return sum_s (mean_b pi_bs - 1/S)^2 of routing weights (B, S)."""
    spread: Tensor = weights.mean(dim=0) - 1 / weights.shape[1]
    return spread.square().sum()


def map_rms(maps: Tensor) -> Tensor:
    """Return the RMS of every map (B, C, H, W): (B,), without overflow and with a slope of 0 at 0."""
    flat = maps.flatten(1)
    # Divided by the largest value and multiplied again: squares of large values would be infinite.
    peak = flat.detach().abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    length: Tensor = torch.linalg.vector_norm(flat / peak, dim=1)
    return length / math.sqrt(flat.shape[1]) * peak.squeeze(1)


def cap_gain(maps: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Shrink maps (B, C, H, W) to an RMS of at most beta: maps, RMS before (B,), factor (B,)."""
    rms = map_rms(maps)
    factor = (beta / (rms + CAP_EPSILON)).clamp_max(1)
    return maps * factor[:, None, None, None], rms, factor


class StageGate(nn.Module):
    """A pooled stage (B, C, P, P) to features (B, C / gate_divisor): conv3x3, GELU, conv1x1, average."""

    def __init__(self, config: SRMConfig) -> None:
        super().__init__()
        hidden = config.width // config.gate_divisor
        self.dyt = DyT(config) if config.gate_dyt else None
        self.block = nn.Sequential(
            nn.Conv2d(config.width, hidden, 3, padding=1), nn.GELU(), nn.Conv2d(hidden, hidden, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return features (B, hidden) of a pooled stage (B, C, P, P)."""
        if self.dyt is not None:
            maps = self.dyt(maps.movedim(1, -1)).movedim(-1, 1)
        features: Tensor = self.block(maps).mean(dim=(2, 3))
        return features


class GateFuse(nn.Module):
    """Stage maps (B, C, H_s, W_s) to one fused map (B, C, P, P)."""

    def __init__(self, stages: int, config: SRMConfig) -> None:
        super().__init__()
        self.config = config
        self.gates = nn.ModuleList(StageGate(config) for _ in range(stages))
        # One read-out for all stages: w and b carry no index s in the gate's logit.
        self.readout = nn.Linear(config.width // config.gate_divisor, 1)

    def forward(self, maps: list[Tensor]) -> Fused:
        """Pool, weigh, sum and cap stage maps (B, C, H_s, W_s)."""
        pooled = [functional.adaptive_avg_pool2d(stage, self.config.pool) for stage in maps]
        logits = [self.readout(gate(stage)) for gate, stage in zip(self.gates, pooled, strict=True)]
        return self.fuse(pooled, torch.cat(logits, dim=1))

    def fuse(self, pooled: list[Tensor], logits: Tensor) -> Fused:
        """Fuse pooled stages (B, C, P, P) by logits (B, S), at least in float32."""
        with without_autocast(logits):
            exact = logits.to(critical_dtype(logits)) / self.config.temperature
            weights, log_weights = exact.softmax(dim=1), exact.log_softmax(dim=1)
            entropy = -(weights * log_weights).sum(dim=1)
            stages = torch.stack([stage.to(exact.dtype) for stage in pooled], dim=1)
            fused = (weights[:, :, None, None, None] * stages).sum(dim=1)
            if self.config.gain_cap:
                fused, rms, factor = cap_gain(fused, self.config.beta)
            else:
                rms = map_rms(fused)
                factor = torch.ones_like(rms)
        return Fused(fused, weights, entropy, rms, factor)

    def losses(self, fused: Fused) -> dict[str, Tensor]:
        """Return the weighted losses ``entropy`` and ``balance`` of one forward pass."""
        return {
            "entropy": self.config.entropy_weight * entropy_loss(fused.entropy, self.config.entropy_floor),
            "balance": self.config.balance_weight * balance_loss(fused.weights),
        }
