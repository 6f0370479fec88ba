"""What the hyper-network looks at: the last stage, or a fusion of all four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqa_models.errors import BadModelOption
from iqa_models.hyper.lda import pool_to

FUSIONS = ("last", "afa", "attention")
"""Stage 4 alone; all stages pooled and concatenated; the same, weighted per image."""

AFAS = ("concat", "project512")
"""Pool and concatenate (the code that gave the published numbers), or a 1x1 convolution first (the text)."""

ACTIVATIONS = ("softmax", "sigmoid")
"""Of the attention weights: softmax in the code, sigmoid in the paper."""

SIDE = 7
"""Side of the fused map, the trunk's last stage at 224 pixels."""

PROJECTED = 512
"""Channels a stage under ``project512``."""

ATTENTION_HIDDEN = 256
"""Hidden width of the attention in the code; the paper's appendix says 128."""

ATTENTION_DROPOUT = 0.5
"""Fixed in the code, not mentioned in the paper."""


class Fused(NamedTuple):
    """The hyper-network's input and how it came about."""

    maps: Tensor
    """(B, C, 7, 7)."""
    attention: Tensor | None
    """(B, 4), the weight of each stage, or None without attention."""


class StageAttention(nn.Module):
    """Stage 4 (B, C, H, W) to one weight a stage (B, 4).

    Global mean, linear, ReLU, dropout, linear, softmax or sigmoid. SMART-IQA's code: softmax, hidden 256.
    """

    def __init__(self, channels: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.net = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(ATTENTION_DROPOUT), nn.Linear(hidden, 4)
        )

    def forward(self, last: Tensor) -> Tensor:
        """Return the weights (B, 4) of the last stage's map."""
        logits: Tensor = self.net(last.mean(dim=(2, 3)))
        return logits.softmax(dim=1) if self.activation == "softmax" else logits.sigmoid()


class Fusion(nn.Module):
    """Stage maps (B, C_s, H_s, W_s) to the hyper-network's input (B, `out_channels`, 7, 7).

    The rows of SMART-IQA's ablation: ``last`` is "backbone only", ``afa`` is "+ AFA" and ``attention``
    is the full model. Pooling is parameter-free; order is stage 1 to 4.
    """

    def __init__(
        self,
        channels: Sequence[int],
        fusion: str = "last",
        *,
        afa: str = "concat",
        attention_activation: str = "softmax",
        attention_hidden: int = ATTENTION_HIDDEN,
    ) -> None:
        super().__init__()
        _check(fusion, afa, attention_activation, attention_hidden)
        self.fusion = fusion
        projected = afa == "project512"
        self.project = nn.ModuleList(nn.Conv2d(c, PROJECTED, 1) for c in channels) if projected else None
        self.attention = (
            StageAttention(channels[3], attention_hidden, attention_activation)
            if fusion == "attention"
            else None
        )
        if fusion == "last":
            self.out_channels = channels[3]
        else:
            self.out_channels = 4 * PROJECTED if projected else sum(channels)

    def forward(self, maps: Sequence[Tensor]) -> Fused:
        """Return the fused map and the attention weights of four stage maps."""
        if self.fusion == "last":
            return Fused(pool_to(maps[3], SIDE), None)
        pooled = [pool_to(stage, SIDE) for stage in maps]
        if self.project is not None:
            pooled = [functional.relu(conv(stage)) for conv, stage in zip(self.project, pooled, strict=True)]
        if self.attention is None:
            return Fused(torch.cat(pooled, dim=1), None)
        weights = self.attention(maps[3])
        weighted = [stage * weights[:, s, None, None, None] for s, stage in enumerate(pooled)]
        return Fused(torch.cat(weighted, dim=1), weights)


def _check(fusion: str, afa: str, activation: str, attention_hidden: int) -> None:
    for name, value, known in (
        ("fusion", fusion, FUSIONS),
        ("afa", afa, AFAS),
        ("attention_activation", activation, ACTIVATIONS),
    ):
        if value not in known:
            raise BadModelOption(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if isinstance(attention_hidden, bool) or not isinstance(attention_hidden, int) or attention_hidden < 1:
        raise BadModelOption(f"attention_hidden must be a whole number from 1, not {attention_hidden!r}")
    # An option without effect would make two names for one model.
    if fusion == "last" and afa != "concat":
        raise BadModelOption(
            f"afa={afa!r} has no effect with fusion='last'; take fusion='afa' or 'attention'"
        )
    if fusion != "attention" and (activation, attention_hidden) != ("softmax", ATTENTION_HIDDEN):
        raise BadModelOption(
            f"attention_activation and attention_hidden have no effect with fusion={fusion!r}; "
            "take fusion='attention'"
        )
