"""HyperIQA: ResNet-50, and a target network generated from its last stage."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_models.hyper.fusion import ATTENTION_HIDDEN
from iqa_models.hyper.head import HyperHead
from iqa_models.hyper.model import (
    CROP_BATCH,
    HyperQuality,
    card,
    check_numbers,
    origin_of_trunk,
    read_pretrained,
    read_range,
)
from iqa_models.protocols import parse_protocol
from iqa_models.registry import register_model
from iqa_models.trunks import create_trunk, seeded

TAG = "resnet50.tv_in1k"
"""torchvision's first ImageNet weights, as in the authors' code; timm's default tag is another."""

HIDDEN = (1024, 512)
"""Widths of the first two 1x1 convolutions of the hyper-network."""

SOURCE = (
    "Su et al., Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network, CVPR 2020"
)


@register_model("hyperiqa", random_head=True)
def hyperiqa(
    *,
    fusion: str = "last",
    afa: str = "concat",
    attention_activation: str = "softmax",
    attention_hidden: int = ATTENTION_HIDDEN,
    protocol: str = "random_crops:25:0",
    resize: str | None = None,
    crop_batch: int = CROP_BATCH,
    score_range: Sequence[float] = (0.0, 100.0),
    pretrained: bool | str = False,
    backbone_weights: str | None = None,
    seed: int = 0,
) -> HyperQuality:
    """HyperIQA (CVPR 2020): ResNet-50 and a hyper-network.

    Args:
        fusion: the hyper-network's input. ``last`` is HyperIQA; ``afa`` and ``attention`` put SMART-IQA's
            fusion on it and are no published rows.
        afa: ``concat`` or ``project512``.
        attention_activation: ``softmax`` or ``sigmoid``.
        attention_hidden: hidden width of the attention.
        protocol: ``native``, ``centre``, ``random_crops:COUNT[:SEED]`` or ``grid:ROWSxCOLUMNS``; native
            takes whole images with sides that are multiples of 32.
        resize: ``HEIGHTxWIDTH``, ``keep_aspect`` or ``none``; by default ``512x384``, none for native.
        crop_batch: crops of one image scored at once; bounds memory.
        score_range: ends of the labels the weights are trained on.
        pretrained: True for timm's ImageNet weights of the trunk, False for random ones.
        backbone_weights: a file of such weights, used instead.
        seed: of every random weight; torch's global generator is neither read nor moved.

    Raises:
        BadModelOption: an option's value is refused.
        MissingWeights: pretrained weights are neither cached nor reachable.
        BadCheckpoint: a file of backbone weights does not fit.
    """
    from_hub = read_pretrained("hyperiqa", pretrained)
    check_numbers("hyperiqa", seed, crop_batch)
    parsed = parse_protocol(protocol, resize, multiple=32)
    with seeded(seed):
        # As the authors' random trunk: no branch of ResNet starts switched off.
        trunk = create_trunk(
            TAG, pretrained=from_hub, backbone_weights=backbone_weights, zero_init_last=False
        )
        head = HyperHead(
            trunk.channels,
            HIDDEN,
            fusion=fusion,
            afa=afa,
            attention_activation=attention_activation,
            attention_hidden=attention_hidden,
        )
        spec = card(
            "hyperiqa",
            {
                "fusion": fusion,
                "afa": afa,
                "attention_activation": attention_activation,
                "attention_hidden": attention_hidden,
                "crop_batch": crop_batch,
                "pretrained": "hub" if from_hub and backbone_weights is None else "none",
                "seed": seed,
            },
            parsed,
            tag=TAG,
            origin=origin_of_trunk(TAG, from_hub, backbone_weights),
            score_range=read_range("hyperiqa", score_range),
            summary="ResNet-50 with a hyper-network that writes the regressor of each image",
            source=SOURCE,
            notes=(
                "re-implemented from a description; the authors' code is MIT, the trunk's weights BSD-3",
                "the resize to 512 high x 384 wide, as in the authors' code, makes landscape images portrait",
                *(() if fusion == "last" else (f"fusion {fusion!r} on HyperIQA is no published variant",)),
            ),
        )
        return HyperQuality(spec, trunk, head, parsed, crop_batch)
