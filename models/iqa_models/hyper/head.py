"""The head both families share: LDA vector, hyper-network and target network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from iqa_models.errors import BadModelOption
from iqa_models.hyper.fusion import Fused, Fusion
from iqa_models.hyper.hyper_network import Generated, HyperNetwork
from iqa_models.hyper.lda import LocalDistortionAware
from iqa_models.hyper.target_network import target_network


class HeadTrace(NamedTuple):
    """A score and everything it was made of."""

    score: Tensor
    """(B,)."""
    lda: Tensor
    """The target network's input v (B, 224)."""
    fused: Fused
    """The hyper-network's input, and the weight of each stage in it."""
    made: Generated
    """The hyper map, and the target network's weights and biases."""


class HyperHead(nn.Module):
    """Four stage maps (B, C_s, H_s, W_s) to scores (B,).

    Args:
        channels: C_1..C_4.
        hidden: widths of the first two 1x1 convolutions: (1024, 512) in HyperIQA, (512, 256) in SMART-IQA.
        dropout: on the hyper map and after the target network's first three layers, in training.
        **fusion: options of `Fusion`.
    """

    def __init__(
        self, channels: Sequence[int], hidden: tuple[int, int], *, dropout: float = 0.0, **fusion: Any
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise BadModelOption(f"dropout must lie in [0, 1), not {dropout!r}")
        self.lda = LocalDistortionAware(channels)
        self.fusion = Fusion(channels, **fusion)
        self.hyper = HyperNetwork(self.fusion.out_channels, hidden, dropout)
        self.dropout = dropout
        self._initialise()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the scores (B,) of four stage maps."""
        return self.trace(maps).score

    def trace(self, maps: Sequence[Tensor]) -> HeadTrace:
        """Return the scores of four stage maps with every intermediate value."""
        vector = self.lda(maps)
        fused = self.fusion(maps)
        made = self.hyper(fused.maps)
        score = target_network(
            vector, made.weights, made.biases, dropout=self.dropout if self.training else 0.0
        )
        return HeadTrace(score, vector, fused, made)

    def _initialise(self) -> None:
        # As the authors' code: He et al. for the LDA and the generators, N(0, 0.01) for the attention,
        # torch's default for the 1x1 convolutions and every other bias.
        for part in (self.lda, self.hyper.weights, self.hyper.biases):
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight)
        if self.fusion.attention is not None:
            for module in self.fusion.attention.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.01)
                    nn.init.zeros_(module.bias)
