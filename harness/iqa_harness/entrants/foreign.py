"""Somebody else's model by words, ``WAY:WHAT?option=value``, and what is measured of it where nobody says."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from iqa_attacks import AttackFailed, score, score_and_gradient
from iqa_attacks.defences.defended import Defended, defend
from iqa_errors import IQAError
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.options import read_options, read_value
from iqa_harness.errors import RunError
from iqa_harness.measures.correlation import srocc
from iqa_models import QualityModel
from iqa_models.index import ADAPTERS, CODE
from iqa_results import ModelRecord

Scores = np.ndarray[Any, np.dtype[np.float64]]

_FORM = re.compile(rf"(?s)(?:([^=/?:|]+)=)?({'|'.join(ADAPTERS)}):(.+)")
_QUERY = re.compile(r"(?s)(.+)\?((?:[A-Za-z_]\w*=[^&?]*)(?:&[A-Za-z_]\w*=[^&?]*)*)")
_NO_LABEL = re.compile(r"[=/?:|]")

IMAGES = 32
"""Images at most that a card is measured on, spread over those that are evaluated."""
TRIED = 4
"""Images whose gradient is asked for."""
NOISE = 8 / 255
"""Radius of the noise beside each of them."""
MARGIN = 0.1
"""Share of what was seen that is added at either end of a measured score range."""


def foreign_argument(text: str) -> tuple[str, str, dict[str, Any]] | None:
    """Return label, way and options of words after ``--model``, what is named among them; None for others.

    Options begin at the last question mark that only options follow: a path or command may hold others.
    Files are named from the root, so that the same words mean the same elsewhere.

    Raises:
        RunError: behind a question mark stands something else than options.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    label, way, rest = form.groups()
    found = _QUERY.fullmatch(rest)
    what, query = found.groups() if found else (rest, "")
    if found is None and way != "cmd" and "?" in rest and not Path(rest).exists():
        what, _, query = rest.partition("?")  # refused, with what is wrong
    options = read_options(text, query)
    return label or _label(way, what), way, {"of": _placed(way, what), **_placed_files(options)}


def _label(way: str, what: str) -> str:
    """Return what tables call a model that got no name."""
    if way == "cmd":
        try:
            words = [Path(word).stem for word in shlex.split(what)]
        except ValueError:
            return "cmd"
        return words[1] if len(words) > 2 and words[0].startswith("python") else words[0]
    if way == "module":
        return what.rpartition(":")[2]
    return what if way == "pyiqa" else Path(what.partition("@")[0] if way == "timm" else what).stem


def _placed(way: str, what: str) -> str:
    if way in ("torchscript", "onnx"):
        return str(Path(what).absolute())
    if way == "timm" and "@" in what:
        name, _, file = what.partition("@")
        return f"{name}@{Path(file).absolute()}"
    return what


def _placed_files(options: dict[str, Any]) -> dict[str, Any]:
    return {
        k: str(Path(str(v)).absolute()) if k in ("weights", "backbone") else v for k, v in options.items()
    }


def foreign_text(label: str, way: str, options: dict[str, Any]) -> str:
    """Return what to write after ``--model`` to get somebody else's model again."""
    query = "&".join(f"{k}={_written(v)}" for k, v in options.items() if k != "of")
    text = f"{way}:{options['of']}{'?' * bool(query)}{query}"
    return text if _NO_LABEL.search(label) or label == _label(way, str(options["of"])) else f"{label}={text}"


def _written(value: Any) -> str:
    """Return a value as `read_value` reads it, in as few signs as can be."""
    if isinstance(value, str) and read_value(value) == value:
        return quote(value, safe=",./:@~+-")
    return quote(json.dumps(value), safe="")


def refuse_code(record: ModelRecord) -> None:
    """Refuse to run what a manifest names: it is data, and does not decide that.

    Raises:
        RunError: its model is one of `iqa_models.index.CODE`.
    """
    if record.card.get("name") in CODE:
        raise RunError(
            f"model {record.name!r} is made by running what its manifest names ({record.argument}); if you "
            f"trust that, say it where a command takes it: --model {shlex.quote(str(record.argument))}"
        )


def is_unfinished(entrant: Entrant) -> bool:
    """Whether something on an entrant's card is still to be measured (`measure_cards`).

    That of a defended one is of the model behind: measured there, it is still to be told to the defences.
    """
    model = entrant.model
    behind = isinstance(model, Defended) and hasattr(model.bare, "unknown")
    return bool(getattr(model.bare, "unknown", ())) or (behind and _redefended(model).spec != model.spec)


def _redefended(model: QualityModel) -> QualityModel:
    """Return a model behind its defences as the model behind now is, itself without any."""
    return defend(model.bare, model.text) if isinstance(model, Defended) else model


def measure_cards(entrants: Iterable[Entrant], images: ImageSet, device: str = "cpu") -> list[Entrant]:
    """Return entrants whose cards are whole: what nobody stated is measured on the evaluated images.

    The score range is that of clean scores and of scores under noise, a tenth wider at both ends and rounded
    outward; a model has a gradient if its scores carry one that is not zero everywhere; with
    ``direction=auto`` higher is better if the clean scores rise with the labels. It stands in the options of
    the card, so that the model is made again with the same.

    Raises:
        RunError: the model cannot score these images, clean scores that are equal or not finite, or no order
            that labels share.
    """
    entrants = list(entrants)
    if not any(map(is_unfinished, entrants)):
        return entrants
    last, taken = len(images) - 1, min(IMAGES, len(images))
    places = sorted({round(i * last / max(1, taken - 1)) for i in range(taken)})
    pixels = [torch.from_numpy(images.read(i).copy()).permute(2, 0, 1).float().div(255) for i in places]
    mos = [images.records[i].mos for i in places]
    return [measured(entrant, pixels, mos, device) for entrant in entrants]


def measured(
    entrant: Entrant, pixels: Sequence[Tensor], mos: Sequence[float] | None, device: str = "cpu"
) -> Entrant:
    """Return an entrant whose card is whole; see `measure_cards`.

    Args:
        entrant: any; one whose card is whole comes back as it is.
        pixels: (3, H, W) each in [0, 1].
        mos: their labels, higher is better; None if there are none.
        device: torch device.
    """
    if not is_unfinished(entrant):
        return entrant
    before = entrant.before_use
    model = entrant.model.bare.to(device)
    if unknown := getattr(model, "unknown", ()):
        model.fill(**_measured(entrant.label, model, unknown, pixels, mos, device))  # type: ignore[operator]
    return _filled(entrant, before)


def as_recorded(entrant: Entrant, record: ModelRecord) -> Entrant:
    """Return an entrant whose card holds what a run measured of it, unless something else is stated now."""
    model: Any = entrant.model.bare
    options: Any = record.card.get("options") or {}
    measured_then = str(options.get("measured", "")).split(",")
    found = {name: options[name] for name in measured_then if name in options}
    stated = model.spec.options
    if not found or not hasattr(model, "unknown") or "measured" in stated:
        return entrant
    if any(name not in model.unknown and stated.get(name) != value for name, value in found.items()):
        return entrant
    before = entrant.before_use
    model.fill(**found)
    return _filled(entrant, before)


def _filled(entrant: Entrant, before: tuple[str, str]) -> Entrant:
    """Return an entrant with the words and defences of its filled card; `before` is its `before_use`."""
    spec, model = entrant.model.bare.spec, _redefended(entrant.model)
    words = [foreign_text(entrant.label, spec.name, dict(spec.options))]
    words += [model.text] if isinstance(model, Defended) else []
    made = replace(entrant, model=model, argument="|".join(words))
    vars(made)["before_use"] = before
    return made


def _measured(
    label: str,
    model: QualityModel,
    unknown: Sequence[str],
    pixels: Sequence[Tensor],
    mos: Sequence[float] | None,
    device: str,
) -> dict[str, Any]:
    """Return what nobody stated of a model, by name; arguments are those of `measured`."""
    found: dict[str, Any] = {}
    placed = [each.to(device) for each in pixels]
    try:
        clean = _scores(model, placed)
        noisy = _scores(model, [_noised(image, i) for i, image in enumerate(placed)])
        sloped = "gradient" in unknown and any(
            _carries_gradient(model, image.unsqueeze(0)) for image in placed[:TRIED]
        )
    except Exception as error:
        words = str(error) if isinstance(error, IQAError) else f"{type(error).__name__}: {error}"
        raise RunError(f"model {label!r}: {words}") from error
    if "range" in unknown:
        found["range"] = _rounded(label, np.concatenate([clean, noisy]))
    if "gradient" in unknown:
        found["gradient"] = sloped
    if "direction" in unknown:
        found["direction"] = _direction(label, clean, mos)
    return found


def _scores(model: QualityModel, pixels: Sequence[Tensor]) -> Scores:
    """Return what the scorer itself says of images (3, H, W); a black box is asked for a size at once."""
    found = np.zeros(len(pixels))
    for shape in dict.fromkeys(image.shape for image in pixels):
        places = [i for i, image in enumerate(pixels) if image.shape == shape]
        chunk = 4 if model.spec.has_gradient else len(places)
        found[places] = score(model, torch.stack([pixels[i] for i in places]), chunk=chunk).numpy()
    return found if model.spec.higher_is_better else -found


def _noised(image: Tensor, seed: int) -> Tensor:
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (image + NOISE * noise.to(image)).clamp(0, 1)


def _rounded(label: str, scores: Scores) -> str:
    """Return the ends of scores with a margin, rounded outward to two digits of their distance."""
    low, high = float(scores.min()), float(scores.max())
    if not low < high:
        raise RunError(
            f"model {label!r}: gives {len(scores) // 2} images and their noise one score, {low:g}, so no "
            "score range can be measured; ?range=LOW,HIGH states one, `iqa-harness models check` says more"
        )
    margin = MARGIN * (high - low)
    unit = 10.0 ** math.floor(math.log10(high - low) - 1)
    ends = math.floor((low - margin) / unit) * unit, math.ceil((high + margin) / unit) * unit
    return ",".join(f"{end:.6g}" for end in ends)


def _carries_gradient(model: QualityModel, image: Tensor) -> bool:
    try:
        return bool(score_and_gradient(model, image, chunk=1).gradients.abs().max() > 0)
    except AttackFailed as error:
        # One that is there and not finite is a finding of the checks.
        return "not finite" in str(error)
    except RuntimeError:  # an operation without a derivative
        return False


def _direction(label: str, clean: Scores, mos: Sequence[float] | None) -> str:
    if mos is None:
        raise RunError(f"model {label!r}: direction=auto needs images with labels; say higher or lower")
    value = srocc(clean, np.asarray(mos, dtype=np.float64)).value
    if value is None or value == 0:
        raise RunError(
            f"model {label!r}: its clean scores and the labels share no order, so direction=auto finds none; "
            "say ?direction=higher or lower"
        )
    return "higher" if value > 0 else "lower"
