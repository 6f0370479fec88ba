"""Checkpoints of other code as our models: the two authors' layouts and pyiqa's.

Nothing in a file is run: it is read as tensors only, and one that needs pickled code is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from iqa_models.errors import BadCheckpoint
from iqa_models.hyper.fusion import ATTENTION_HIDDEN
from iqa_models.hyper.model import HyperQuality
from iqa_models.registry import create_model
from iqa_models.state_dicts import listed, misfit, read_state_dict, tensors_of

Rule = tuple[str, str]

_AUTHOR_HEAD: tuple[Rule, ...] = (
    (r"{trunk}\.lda([1-3])_pool\.0\.weight", r"head.lda.reduce.{}.weight"),
    (r"{trunk}\.lda([1-4])_fc\.(weight|bias)", r"head.lda.project.{}.\2"),
    (r"conv1\.([024])\.(weight|bias)", r"head.hyper.squeeze.\1.\2"),
    (r"fc([1-4])w_conv\.(weight|bias)", r"head.hyper.weights.{}.\2"),
    (r"fc(5)w_fc\.(weight|bias)", r"head.hyper.weights.{}.\2"),
    (r"fc([1-5])b_fc\.(weight|bias)", r"head.hyper.biases.{}.\2"),
)

_RULES: dict[str, tuple[Rule, ...]] = {
    "HyperIQA author": (
        *((pattern.replace("{trunk}", "res"), ours) for pattern, ours in _AUTHOR_HEAD),
        (r"res\.(conv1|bn1|layer[1-4])\.(.+)", r"trunk.net.\1.\2"),
    ),
    "SMART-IQA author": (
        *((pattern.replace("{trunk}", "swin"), ours) for pattern, ours in _AUTHOR_HEAD),
        (r"swin\.backbone\.(.+)", r"trunk.net.\1"),
        (r"multiscale_attention\.attention_net\.([03])\.(weight|bias)", r"head.fusion.attention.net.\1.\2"),
    ),
    "pyiqa": (
        (r"base_model\.(.+)", r"trunk.net.\1"),
        (r"lda_modules\.([0-2])\.0\.weight", r"head.lda.reduce.\1.weight"),
        (r"lda_modules\.([0-2])\.3\.(weight|bias)", r"head.lda.project.\1.\2"),
        (r"lda_modules\.(3)\.2\.(weight|bias)", r"head.lda.project.\1.\2"),
        (r"conv1\.([024])\.(weight|bias)", r"head.hyper.squeeze.\1.\2"),
        (r"fc_w_modules\.([0-3])\.(weight|bias)", r"head.hyper.weights.\1.\2"),
        (r"fc_w_modules\.(4)\.2\.(weight|bias)", r"head.hyper.weights.\1.\2"),
        (r"fc_b_modules\.([0-4])\.2\.(weight|bias)", r"head.hyper.biases.\1.\2"),
    ),
}
"""Layout to (their name, our name); ``{}`` counts from 0 what they count from 1."""

_PYIQA: dict[str, Any] = {"protocol": "uniform:5x5", "resize": "none", "score_range": (0.0, 1.0)}
"""pyiqa trains on MOS / 100 and scores 25 crops at uniform steps; only images too small are enlarged."""

_SWIN_STAGE_3 = r"swin\.backbone\.layers_2\.blocks\.(\d+)\."


class ImportReport(NamedTuple):
    """What was found in a foreign checkpoint."""

    layout: str
    """Whose layout it is: ``HyperIQA author``, ``SMART-IQA author`` or ``pyiqa``."""
    model: str
    """Registered name of the model it became."""
    options: dict[str, Any]
    """Options read off the file, before the caller's."""
    converted: int
    """Tensors taken over."""
    filled: tuple[str, ...]
    """Counters that old torch did not save and no score depends on; set to 0."""


def import_checkpoint(path: Path | str, **options: Any) -> tuple[HyperQuality, ImportReport]:
    """Read a checkpoint of HyperIQA's or SMART-IQA's authors, or of pyiqa, as one of our models.

    Family, size and fusion are read off the names and shapes. What leaves no trace in them, such as
    sigmoid attention or the input protocol, is the layout's default and can be given as an option.

    Args:
        path: .pkl, .pth, .pt or .safetensors.
        **options: further options of the model, which take precedence.

    Returns:
        The model in eval mode, its card naming the file, and what was found.

    Raises:
        BadCheckpoint: not tensors only, of another family, or names or shapes do not fit.
        BadModelOption: the model refuses an option.
    """
    path = Path(path)
    state = tensors_of(read_state_dict(path))
    layout = layout_of(state)
    if layout is None:
        raise BadCheckpoint(
            f"{path}: {len(state)} tensors that look like {looks_like(state)}, not like a checkpoint of "
            f"{', '.join(_RULES)}; first names: {listed(list(state)) or 'none'}"
        )
    name, found = identify(layout, state, path)
    model = create_model(name, **{**found, **options})
    if not isinstance(model, HyperQuality):
        raise TypeError(f"{name} is no hyper-network model")
    ours, unknown = translate(layout, state)
    filled = _load(model, ours, unknown, f"{path}: looks like {layout}'s {_shown(name, found)}")
    model.spec = model.spec.replace(
        initial_weights=f"file:{path.name}", notes=(*model.spec.notes, f"converted from {layout}'s layout")
    )
    return model, ImportReport(layout, name, found, len(ours), filled)


def layout_of(state: Mapping[str, Any]) -> str | None:
    """Return whose layout the names of a state dict are, None if nobody's we know."""
    marks = {
        "SMART-IQA author": ("swin.lda", "swin.backbone."),
        "HyperIQA author": ("res.lda",),
        "pyiqa": ("lda_modules.", "fc_w_modules."),
    }
    for layout, prefixes in marks.items():
        if any(name.startswith(prefixes) for name in state):
            return layout
    return None


def looks_like(state: Mapping[str, Any]) -> str:
    """Name what a state dict is that no layout fits, for an error that helps."""
    starts = {
        "head.lda.": "our own weights (load the checkpoint's folder instead)",
        "patch_embed.": "a bare Swin trunk (give it as backbone_weights)",
        "layer1.": "a bare ResNet trunk (give it as backbone_weights)",
        "vit.": "a vision transformer model",
    }
    for start, what in starts.items():
        if any(name.startswith(start) for name in state):
            return what
    return "no model known here"


def translate(layout: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under our names, and the names no rule of the layout knows."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        for pattern, form in _RULES[layout]:
            match = re.fullmatch(pattern, name)
            if match:
                own = match.expand(form)
                ours[own.format(int(match[1]) - 1) if "{}" in form else own] = tensor
                break
        else:
            unknown.append(name)
    return ours, unknown


def identify(layout: str, state: Mapping[str, Tensor], path: Path) -> tuple[str, dict[str, Any]]:
    """Return the registered name and the options that a state dict of a known layout calls for.

    Raises:
        BadCheckpoint: no size of SMART-IQA has these shapes; the message names the file at `path`.
    """
    if layout == "pyiqa":
        return "hyperiqa", dict(_PYIQA)
    if layout == "HyperIQA author":
        return "hyperiqa", {}
    last = _columns(state, "swin.lda4_fc.weight", path)
    blocks = {int(match[1]) for match in (re.match(_SWIN_STAGE_3, name) for name in state) if match}
    sizes = {(768, 6): "tiny", (768, 18): "small", (1024, 18): "base"}
    size = sizes.get((last, len(blocks)))
    if size is None:
        raise BadCheckpoint(
            f"{path}: looks like SMART-IQA author's, but no size has {last} channels in the last stage and "
            f"{len(blocks)} blocks in the third; known are {', '.join(sizes.values())}"
        )
    return f"smart_iqa_{size}", _fusion_of(state, last, path)


def _fusion_of(state: Mapping[str, Tensor], last: int, path: Path) -> dict[str, Any]:
    # The hyper-network's input decides: the code ignores its attention switch on a single scale.
    if _columns(state, "conv1.0.weight", path) == last:
        return {"fusion": "last"}
    if not any(name.startswith("multiscale_attention.") for name in state):
        return {"fusion": "afa"}
    first = state.get("multiscale_attention.attention_net.0.weight")
    hidden = ATTENTION_HIDDEN if first is None else len(first)
    return {"fusion": "attention", "attention_hidden": hidden}


def _columns(state: Mapping[str, Tensor], name: str, path: Path) -> int:
    if name not in state or state[name].ndim < 2:
        raise BadCheckpoint(f"{path}: looks like SMART-IQA author's, but the matrix {name} is missing")
    return int(state[name].shape[1])


def _load(
    model: HyperQuality, ours: Mapping[str, Tensor], unknown: Sequence[str], where: str
) -> tuple[str, ...]:
    own = model.state_dict()
    wrong = misfit(own, ours, more={"unexpected": unknown})
    if wrong:
        raise BadCheckpoint(f"{where}, but does not fit: {wrong}")
    filled = tuple(name for name in own if name not in ours)
    model.load_state_dict({**{name: own[name] for name in filled}, **ours}, strict=True)
    return filled


def _shown(name: str, options: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{name}({inside})"
