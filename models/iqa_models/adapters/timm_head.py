"""``timm:NAME@FILE``: a network of timm with one output, its weights from a plain file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from iqa_models.adapters.foreign import (
    ForeignModel,
    Known,
    load_weights,
    reported,
    require_file,
    require_options,
    seeded_apart,
)
from iqa_models.errors import BadCheckpoint, BadModelOption, UnknownModel
from iqa_models.registry import did_you_mean, register_model
from iqa_models.state_dicts import misfit, read_state_dict, tensors_of


@register_model("timm")
def timm_head(of: str, **options: Any) -> ForeignModel:
    """A network of timm with one output, as timm:NAME@FILE.

    The file holds the whole network, or its last layer alone; then ``backbone`` is a file of the rest, such
    as timm's own. Pixels are normalised as timm's configuration of the network says, and resized where it
    takes one size only.

    Args:
        of: NAME@FILE: a name of timm and a .safetensors or .pth file of tensors.
        **options: ``backbone``, ``strip``; `iqa_models.adapters.foreign.OPTIONS`.
    """
    way = f"timm:{of}"
    require_options(way, options, ("backbone", "strip"))
    name, at, file = of.partition("@")
    if not (name and at and file):
        raise BadModelOption(f"{way}: write timm:NAME@FILE, the file with the weights of the head or of all")
    if not timm.is_model(name.partition(".")[0]):
        raise UnknownModel(f"{way}: timm has no {name!r}{did_you_mean(name, timm.list_models())}")
    path = require_file(f"timm:{name}@", file)
    with reported(way), seeded_apart():
        network = timm.create_model(name, pretrained=False, num_classes=1).eval()
    _load(way, network, path, options)
    config = dict(network.pretrained_cfg)
    mean, std = (tuple(float(x) for x in config[key]) for key in ("mean", "std"))
    side = config.get("input_size", (3, 224, 224))[-1] if config.get("fixed_input_size") else None
    given = {"of": of, **options}
    if side is not None and "resize" not in options and "size" not in options:
        given["resize"] = int(side)
    known = Known(
        f"{name} of timm, head of {path.name}", f"timm {timm.__version__}", f"file:{path.name}",
        normalise=(mean, std),  # type: ignore[arg-type]  # three each
    )  # fmt: skip
    return ForeignModel("timm", given, known, network).eval()


def _load(way: str, network: nn.Module, path: Path, options: dict[str, Any]) -> None:
    """Load all weights, or those of the head and of the rest from two files."""
    strip = str(options.get("strip", ""))
    found = {n.removeprefix(strip) for n in tensors_of(read_state_dict(path))}
    if not found <= {"weight", "bias"} and "backbone" not in options:
        load_weights(network, str(path), strip)
        return
    if "backbone" not in options:
        raise BadModelOption(f"{way}: the file holds a head only; ?backbone=FILE says where the rest is")
    network.reset_classifier(0)  # type: ignore[operator]
    backbone = require_file(way, str(options["backbone"]))
    own = network.state_dict()
    rest = {k: v for k, v in tensors_of(read_state_dict(backbone)).items() if k in own}
    if wrong := misfit(own, rest):
        raise BadCheckpoint(f"{backbone}: does not fit the rest of {way}: {wrong}")
    network.load_state_dict(rest, strict=False)  # what may be missing are counters
    network.reset_classifier(1)  # type: ignore[operator]
    load_weights(network.get_classifier(), str(path), strip)  # type: ignore[operator]
