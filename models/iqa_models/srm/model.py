"""A trunk, a neck and a head as a model under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iqa_models.protocols import InputProtocol, crop_scores
from iqa_models.quality_model import QualityModel
from iqa_models.spec import ModelSpec
from iqa_models.srm.config import SRMConfig
from iqa_models.srm.diagnostics import DiagnosticRow, Diagnostics
from iqa_models.srm.neck import NeckTrace, PlainNeck, SRMNeck
from iqa_models.trunks import FeatureTrunk

CROP_BATCH = 8
"""Crops of one image scored at once by a protocol of several; bounds memory."""


class PatchTrace(NamedTuple):
    """One forward pass of trunk, neck and head."""

    scores: Tensor
    """(P,)."""
    neck: NeckTrace
    """Fused map, what each link and the gate did, and the auxiliary losses."""


class ScoresAndLosses(NamedTuple):
    """What a training step needs of one forward pass."""

    scores: Tensor
    """(B,), as the model returns them."""
    losses: dict[str, Tensor]
    """Weighted auxiliary losses by name; add their sum to the loss. Empty for a plain neck."""


class QualityHead(nn.Module):
    """A map (B, C, H, W) to scores (B,): average, linear, GELU, dropout, linear."""

    def __init__(self, config: SRMConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.last = nn.Linear(config.width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return scores (B,) of maps (B, C, H, W), whatever their precision."""
        pooled = maps.mean(dim=(2, 3)).to(self.hidden.weight.dtype)
        hidden = self.dropout(nn.functional.gelu(self.hidden(pooled)))
        scores: Tensor = self.last(hidden)
        return scores.squeeze(1)


class SRMQuality(QualityModel):
    """An NR-IQA model with the Spectral Robustness Mixer, or the plain neck, between trunk and head."""

    crops_ahead = False
    """Whether crops take their gradients in the forward pass, as in a copy for attacks."""

    def __init__(
        self,
        spec: ModelSpec,
        trunk: FeatureTrunk,
        neck: SRMNeck | PlainNeck,
        head: QualityHead,
        config: SRMConfig,
        protocol: InputProtocol,
    ) -> None:
        super().__init__(spec)
        self.trunk = trunk
        self.neck = neck
        self.head = head
        self.config = config
        self.protocol = protocol

    def predict(self, images: Tensor) -> Tensor:
        """Return the mean score of each image's crops, (B,)."""
        return self._crop_means(lambda patches: self.trace_patches(patches).scores, images)

    @property
    def draws_by_image(self) -> bool:
        """Of a stochastic model: all that it draws in eval mode is whether a pass pools its keys."""
        return self.is_stochastic and isinstance(self.neck, SRMNeck)

    def predict_drawn(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the mean score of each image's crops, with the pooling that its own seed draws.

        Of one crop an image all go through the trunk together and then, pooled or not, through the neck; of
        several, an image is a batch by itself, as in `predict`.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        if self.protocol.count == 1:
            return self._crop_means(lambda patches: self._drawn(patches, generators), images)
        means = [
            self._crop_means(lambda patches, g=each: self.trace_patches(patches, g).scores, image)  # type: ignore[misc]
            for image, each in zip(torch.split(images, 1), generators, strict=True)
        ]
        return torch.cat(means)

    def _drawn(self, patches: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the scores (P,) of patches, each pooled or not as its generator draws."""
        assert isinstance(self.neck, SRMNeck)  # noqa: S101 - no other neck draws
        maps = self.trunk(self.normalise(patches))
        pooled = [self.neck.draws_pooling(generator) for generator in generators]
        scores: list[Tensor] = [patches] * len(pooled)
        for pools in sorted({*pooled}):
            rows = [row for row, each in enumerate(pooled) if each == pools]
            alike = [torch.stack([stage[row] for row in rows]) for stage in maps]
            found = self.head(self.neck(alike, None, pools).output)
            for row, score in zip(rows, found, strict=True):
                scores[row] = score
        return torch.stack(scores)

    def _crop_means(self, score_patches: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return crop_scores(
            score_patches,
            images,
            self.protocol,
            crop_batch=CROP_BATCH,
            # A second forward pass in training would move running statistics twice, and in a
            # stochastic model it would draw anew.
            checkpointed=not (self.training or self.is_stochastic),
            ahead=self.crops_ahead and not self.is_stochastic,
        ).mean(dim=1)

    def trace_patches(self, patches: Tensor, generator: torch.Generator | None = None) -> PatchTrace:
        """Score patches (P, 3, h, w) in [0, 1] without the input protocol, with everything in between.

        Args:
            patches: what a training loop crops itself.
            generator: of stochastic pooling and sampled landmarks, torch's global one if None.
        """
        return self.trace_maps(self.trunk(self.normalise(patches)), generator)

    def trace_maps(self, maps: Sequence[Tensor], generator: torch.Generator | None = None) -> PatchTrace:
        """Score the trunk's four stages (P, C_s, H_s, W_s) of patches; see `trace_patches`."""
        trace: NeckTrace = self.neck(maps, generator)
        return PatchTrace(self.head(trace.output), trace)

    def forward_with_losses(self, images: Tensor) -> ScoresAndLosses:
        """Score images (B, 3, H, W) in [0, 1] and return the auxiliary losses of the same pass.

        Nothing is stored: the losses are those of this call. In training: ``mse + sum(losses.values())``.

        Raises:
            BadInput: as when the images are scored.
        """
        self._check_images(images)
        trace = self.trace_patches(self.protocol.crops(images))
        scores = trace.scores.reshape(len(images), -1).mean(dim=1)
        return ScoresAndLosses(scores if self.spec.higher_is_better else -scores, trace.neck.losses)

    @torch.no_grad()
    def diagnostics(self, loader: Iterable[Tensor]) -> list[DiagnosticRow]:
        """Measure conditioning, scale and routing over batches of images, in evaluation mode.

        Args:
            loader: batches (B, 3, H, W) in [0, 1].

        Returns:
            One row a statistic; none for a plain neck, of full attention none on conditioning.

        Raises:
            BadInput: as when the images are scored.
            ValueError: the loader is empty.
        """
        was_training = self.training
        self.eval()
        try:
            seen = Diagnostics(self.config)
            for images in loader:
                self._check_images(images)
                seen.add(self.trace_patches(self.protocol.crops(images)).neck)
            return seen.rows()
        finally:
            self.train(was_training)
