"""The Spectral Robustness Mixer as a neck, and the plain neck of its baseline (paper 3.2, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqa_models.srm.config import STAGES, SRMConfig
from iqa_models.srm.gate_fuse import DyT, Fused, GateFuse
from iqa_models.srm.links import CrossLink, LinkTrace
from iqa_models.srm.rescaler import Rescaler
from iqa_models.srm.tokens import to_maps, to_tokens


class NeckTrace(NamedTuple):
    """One forward pass of a neck."""

    output: Tensor
    """The map the head reads: (B, C, P, P), of a plain neck (B, C, H_4, W_4)."""
    links: tuple[LinkTrace, ...]
    """One a link, empty for a plain neck."""
    gate: Fused | None
    """None for a plain neck."""
    losses: dict[str, Tensor]
    """Weighted auxiliary losses by name (``rescaler``, ``entropy``, ``balance``), to be added to the loss."""


class SRMNeck(nn.Module):
    """Four stage maps (B, C_s, H_s, W_s), shallow to deep, to one map (B, C, P, P).

    Align, mix deep stages into shallow ones by the links, fuse the three shallow stages.
    """

    def __init__(self, channels: Sequence[int], config: SRMConfig) -> None:
        super().__init__()
        self.config = config
        self.align = nn.ModuleList(aligners(channels, config))
        self.dyt = nn.ModuleList(DyT(config) for _ in channels) if config.dyt else None
        self.links = nn.ModuleList(CrossLink(link, config) for link in config.links)
        self.targets = tuple(sorted({shallow for _, shallow in config.parsed_links}))
        self.alpha = nn.Parameter(torch.full((len(self.targets),), config.residual_init))
        self.gate = GateFuse(STAGES - 1, config)

    def forward(
        self,
        maps: Sequence[Tensor],
        generator: torch.Generator | None = None,
        pools: bool | None = None,
    ) -> NeckTrace:
        """Mix and fuse four stage maps (B, C_s, H_s, W_s).

        Args:
            maps: shallow to deep.
            generator: of everything drawn at random, torch's global one if None.
            pools: whether keys and values are pooled, drawn (`draws_pooling`) if None.
        """
        aligned = [align(stage) for align, stage in zip(self.align, maps, strict=True)]
        mixed, traces = self.mix(aligned, generator, pools)
        fused = self.gate(mixed[: STAGES - 1])
        return NeckTrace(fused.output, traces, fused, {**self._scale_loss(), **self.gate.losses(fused)})

    def mix(
        self, maps: Sequence[Tensor], generator: torch.Generator | None = None, pools: bool | None = None
    ) -> tuple[list[Tensor], tuple[LinkTrace, ...]]:
        """Run the links on aligned maps (B, C, H_s, W_s): updated maps, and what happened.

        Every link reads the maps as they came in; updates that meet at a stage are summed.
        """
        queries = [self._bounded(stage, to_tokens(maps[stage])) for stage in range(STAGES)]
        deep = queries
        if self.draws_pooling(generator) if pools is None else pools:
            deep = [self._bounded(stage, to_tokens(halved(maps[stage]))) for stage in range(STAGES)]
        updates: dict[int, Tensor] = {}
        traces = []
        for link, (source, target) in zip(self.links, self.config.parsed_links, strict=True):
            update, trace = link(queries[target - 1], deep[source - 1], generator)
            updates[target] = updates[target] + update if target in updates else update
            traces.append(trace)
        mixed = list(maps)
        for alpha, target in zip(self.alpha, self.targets, strict=True):
            stage = mixed[target - 1]
            mixed[target - 1] = stage + (alpha * to_maps(updates[target], *stage.shape[-2:])).to(stage.dtype)
        return mixed, tuple(traces)

    def _bounded(self, stage: int, tokens: Tensor) -> Tensor:
        bounded: Tensor = tokens if self.dyt is None else self.dyt[stage](tokens)
        return bounded

    def draws_pooling(self, generator: torch.Generator | None) -> bool:
        """Draw whether keys and values are pooled, by torch's global CPU generator if None."""
        when = self.config.kv_pooling
        if when == "off" or (when == "training" and not self.training):
            return False
        # Drawn on the CPU: one number, and no wait for a device.
        draw = torch.rand((), generator=generator, device=generator.device if generator else "cpu")
        return float(draw) < self.config.kv_pooling_probability

    def _scale_loss(self) -> dict[str, Tensor]:
        if not self.config.rescaler:
            return {}
        # Every link has the same number of heads: the mean of means is the mean over links and heads.
        rescalers = [module for module in self.links.modules() if isinstance(module, Rescaler)]
        losses = [rescaler.loss() for rescaler in rescalers]
        return {"rescaler": self.config.rescaler_weight * torch.stack(losses).mean()}


class PlainNeck(nn.Module):
    """The baseline: the deepest stage, aligned, and nothing else.

    Its one convolution has the name and the first weights that `SRMNeck` of the same seed gives it.
    """

    def __init__(self, channels: Sequence[int], config: SRMConfig) -> None:
        super().__init__()
        last = str(len(channels) - 1)
        self.align = nn.ModuleDict({last: nn.Conv2d(channels[-1], config.width, 1)})
        self.last = last

    def forward(self, maps: Sequence[Tensor], generator: torch.Generator | None = None) -> NeckTrace:
        """Align the deepest of the stage maps (B, C_s, H_s, W_s); nothing is drawn at random."""
        return NeckTrace(self.align[self.last](maps[-1]), (), None, {})


def aligners(channels: Sequence[int], config: SRMConfig) -> list[nn.Conv2d]:
    """Return a 1x1 convolution to the common width for each stage, the deepest drawn first."""
    drawn = [nn.Conv2d(count, config.width, 1) for count in reversed(channels)]
    return drawn[::-1]


def halved(maps: Tensor) -> Tensor:
    """Average maps (B, C, H, W) over 2x2 pixels; of an odd side the bins overlap."""
    height, width = maps.shape[-2:]
    return functional.adaptive_avg_pool2d(maps, ((height + 1) // 2, (width + 1) // 2))
