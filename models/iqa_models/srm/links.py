"""One cross-stage link: shallow tokens ask, deep tokens answer (paper 3.2 and 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iqa_models.srm.attention import LandmarkSystem, full_attention, nystroem_attention
from iqa_models.srm.config import SRMConfig
from iqa_models.srm.landmarks import choose_landmarks
from iqa_models.srm.rescaler import Rescaler, vector_rms
from iqa_models.srm.tokens import merge_heads, normalise_tokens, split_heads


class LinkTrace(NamedTuple):
    """What one link did in one forward pass; constants all."""

    link: str
    """``deep->shallow``."""
    system: LandmarkSystem | None
    """None for full attention."""
    rms: Tensor
    """Vector RMS a head before gamma (H,)."""
    gamma: Tensor
    """Scale a head (H,), ones without rescaler."""


class CrossLink(nn.Module):
    """Shallow tokens (B, Nq, C) and deep tokens (B, Nk, C) to an update (B, Nq, C)."""

    def __init__(self, link: str, config: SRMConfig) -> None:
        super().__init__()
        self.link = link
        self.config = config
        width = config.width

        def projection() -> nn.Module:
            return nn.Linear(width, width, bias=False) if config.projections else nn.Identity()

        self.queries, self.keys, self.values = projection(), projection(), projection()
        self.rescaler = Rescaler(config) if config.rescaler else None

    def forward(
        self, shallow: Tensor, deep: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, LinkTrace]:
        """Return the update (B, Nq, C) of shallow tokens by deep ones, and what happened.

        Args:
            shallow: tokens (B, Nq, C).
            deep: tokens (B, Nk, C).
            generator: of sampled landmarks in training, torch's global one if None.
        """
        heads = self.config.heads
        queries = split_heads(self.queries(shallow), heads)
        keys, values = split_heads(self.keys(deep), heads), split_heads(self.values(deep), heads)
        if self.config.normalise_tokens:
            queries, keys = normalise_tokens(queries), normalise_tokens(keys)
        output, system = self._attend(queries, keys, values, generator)
        if self.rescaler is None:
            rms = vector_rms(output.detach())
            gamma = torch.ones_like(rms)
        else:
            output, rms, gamma = self.rescaler(output)
        return merge_heads(output), LinkTrace(self.link, system, rms, gamma)

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, LandmarkSystem | None]:
        if self.config.attention == "full":
            return full_attention(queries, keys, values), None
        landmarks = choose_landmarks(keys, self.config, training=self.training, generator=generator)
        return nystroem_attention(queries, keys, values, landmarks, self.config)
