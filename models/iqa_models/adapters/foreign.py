"""What the ways to name somebody else's model have in common: options, card, pixels, weights of a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from iqa_models.errors import BadCheckpoint, BadModelOption, ModelError
from iqa_models.registry import did_you_mean
from iqa_models.spec import ModelSpec, faults
from iqa_models.state_dicts import misfit, read_state_dict, tensors_of
from iqa_models.wrapping import Takes, WrappedModel

Vector = tuple[float, float, float]

NORMALISATIONS: dict[str, tuple[Vector, Vector]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation that may stand before a network, by the word of the option."""

OPTIONS = (
    "range", "direction", "gradient", "stochastic", "min_size", "size", "resize", "pixels", "normalise",
    "measured",
)  # fmt: skip
"""Options that every way takes: what is known of the model, and what is done before it."""

RANGE, DIRECTION, GRADIENT = "range", "direction", "gradient"
"""What may be left to be measured."""

MEASURED_DIRECTION = "higher or lower is better: measured as the clean scores' correlation with the labels"
"""Note on a model whose direction nobody stated."""

RANDOM = "its weights are random, as asked for: its scores mean nothing"
"""Note on somebody else's model without its weights."""

TOLD = (MEASURED_DIRECTION, RANDOM)
"""Notes that every table repeats."""


@dataclass(frozen=True)
class Known:
    """What a way knows of its model before the options are heard."""

    summary: str
    source: str
    weights: str = "given"
    """`ModelSpec.initial_weights`."""
    range: tuple[float, float] | None = None
    """Ends of what the scorer itself returns."""
    higher: bool = True
    gradient: bool | None = None
    """None if it is to be measured."""
    stochastic: bool = False
    min_size: int = 1
    size: int | None = None
    normalise: tuple[Vector, Vector] = NORMALISATIONS["none"]
    files: tuple[tuple[str, str], ...] = ()
    """Names and hashes of files that decide a score and are no weights: part of what the model is."""
    notes: tuple[str, ...] = ()


class ForeignModel(WrappedModel):
    """Somebody else's model, made again from its card's options alone."""

    def __init__(
        self,
        way: str,
        options: Mapping[str, Any],
        known: Known,
        scorer: Callable[..., Any],
        takes: Takes = "tensors",
    ) -> None:
        super().__init__(_card(way, options, known), scorer, takes)
        self.known = known

    @property
    def unknown(self) -> tuple[str, ...]:
        """What of the card nobody stated: to be measured before the model is used (`fill`)."""
        options, known = self.spec.options, self.known
        missing = {
            RANGE: options.get(RANGE) is None and known.range is None,
            GRADIENT: options.get(GRADIENT) is None and known.gradient is None,
            DIRECTION: options.get(DIRECTION) == "auto",
        }
        return tuple(name for name, is_missing in missing.items() if is_missing)

    def fill(self, **found: Any) -> None:
        """Put what was measured into the card's options, named there as such."""
        names = ",".join([*filter(None, [str(self.spec.options.get("measured", ""))]), *found])
        options = {**self.spec.options, **found, "measured": names}
        self.spec = _card(self.spec.name, options, self.known)

    def predict(self, images: Tensor) -> Tensor:
        """Resize, scale and normalise as the options say, and ask the scorer."""
        options = self.spec.options
        side = options.get("resize")
        if side is not None:
            images = nn.functional.interpolate(
                images, size=(int(str(side)),) * 2, mode="bilinear", align_corners=False, antialias=True
            ).clamp(0, 1)
        if options.get("pixels", 1) == 255:
            images = images * 255
        if self.spec.std != (1.0, 1.0, 1.0) or self.spec.mean != (0.0, 0.0, 0.0):
            images = self.normalise(images)
        return super().predict(images)


def _card(way: str, options: Mapping[str, Any], known: Known) -> ModelSpec:
    """Return the card of a model as its way and its options describe it.

    Raises:
        BadModelOption: an option whose value is none of its own.
    """
    low, high = _range(options.get(RANGE)) or known.range or (0.0, 1.0)
    direction = _one_of(
        options, DIRECTION, ("higher", "lower", "auto"), "higher" if known.higher else "lower"
    )
    higher = direction != "lower"
    _one_of(options, "pixels", (1, 255), 1)
    given = options.get("normalise")
    _one_of(options, "normalise", tuple(NORMALISATIONS), "none")
    mean, std = known.normalise if given is None else NORMALISATIONS[str(given)]
    for name in ("min_size", "size", "resize"):
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise BadModelOption(f"{way}: {name} is a whole number of pixels, not {value!r}")
    resize = options.get("resize")
    gradient = options.get(GRADIENT, True if known.gradient is None else known.gradient)
    if not isinstance(gradient, bool) or not isinstance(options.get("stochastic", False), bool):
        raise BadModelOption(f"{way}: gradient and stochastic are true or false")
    measured = str(options.get("measured", "")).split(",")
    try:
        return ModelSpec(
            name=way,
            options=dict(options),
            summary=known.summary,
            initial_weights=known.weights,
            score_range=(low, high) if higher else (0.0 - high, 0.0 - low),  # without a -0
            higher_is_better=higher,
            input_protocol=f"resized to {resize} x {resize}" if resize else "whole image",
            mean=mean,
            std=std,
            min_size=options.get("min_size") or (1 if resize else known.min_size),
            fixed_size=options.get("size") or (None if resize else known.size),
            is_stochastic=options.get("stochastic", known.stochastic),
            has_gradient=gradient,
            source=known.source,
            notes=(*known.notes, *([MEASURED_DIRECTION] if DIRECTION in measured else [])),
        )
    except ValidationError as error:
        raise BadModelOption(f"{way}: {faults(error)}") from error


def _one_of(options: Mapping[str, Any], name: str, words: tuple[Any, ...], usual: Any) -> Any:
    value = options.get(name, usual)
    if value not in words:
        raise BadModelOption(f"option {name} is one of {', '.join(map(str, words))}, not {value!r}")
    return value


def _range(given: object) -> tuple[float, float] | None:
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else given
    try:
        low, high = (float(part) for part in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise BadModelOption(f"range is LOW,HIGH, such as range=0,100, not {given!r}") from error
    if not (low < high and high - low < float("inf")):
        raise BadModelOption(f"range is LOW,HIGH with LOW below HIGH, not {given!r}")
    return low, high


def require_options(way: str, options: Mapping[str, Any], own: tuple[str, ...] = ()) -> None:
    """Refuse an option that a way does not take.

    Raises:
        BadModelOption: there is one; the message names the nearest.
    """
    for option in options:
        if option not in (known := (*own, *OPTIONS)):
            near = did_you_mean(option, known)
            raise BadModelOption(f"{way}: no option {option!r}{near}; it takes: {', '.join(known)}")


def require_bytes(way: str, options: Mapping[str, Any]) -> None:
    """Refuse what scales pixels before a scorer of whole numbers from 0 to 255.

    Raises:
        BadModelOption: an option does.
    """
    for option, usual in (("pixels", 1), ("normalise", "none")):
        if options.get(option, usual) != usual:
            raise BadModelOption(f"{way}: is given bytes from 0 to 255 as they are; leave out {option}")


def require_file(way: str, file: str) -> Path:
    """Return a file's path.

    Raises:
        BadModelOption: there is none.
    """
    path = Path(file)
    if not path.is_file():
        raise BadModelOption(f"{way}:{file}: no such file")
    return path


def load_weights(module: nn.Module, file: str, strip: str = "") -> None:
    """Load a plain file of tensors (.safetensors, .pth) into a module; nothing in it is run.

    Args:
        module: changed in place, only if all fits.
        file: a state dict, perhaps in one of the usual wrappers.
        strip: what is taken from the beginning of every name that has it.

    Raises:
        BadCheckpoint: no file of tensors, or one that does not fit; the message lists the names.
    """
    own = module.state_dict()
    found = tensors_of(read_state_dict(Path(file)), own)
    tensors = {name if name in own else name.removeprefix(strip): t for name, t in found.items()}
    wrong = misfit({n: t for n, t in own.items() if isinstance(t, Tensor)}, tensors)
    if wrong:
        ends = sorted({name.partition(".")[0] + "." for name in tensors if name not in own})[:3]
        hint = (
            f"; names there begin with {', '.join(ends)}: ?strip=... takes a beginning away" if ends else ""
        )
        raise BadCheckpoint(f"{file}: does not fit {type(module).__name__}: {wrong}{hint}")
    module.load_state_dict(tensors, strict=False)  # what may be missing are counters


@contextlib.contextmanager
def seeded_apart(seed: int = 0) -> Iterator[None]:
    """Let weights be drawn from a seed, and torch's own generator stay as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Turn whatever foreign code raises into one error that names it; what it prints goes to stderr.

    Raises:
        ModelError: it raised something.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        words = (str(error).strip().splitlines() or [""])[0][:300]
        raise ModelError(f"{what}: {type(error).__name__}: {words}") from error
