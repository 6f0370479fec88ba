"""May this model be put under test? Checks on a few images, each with what is wrong and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from iqa_attacks import score, through_jpeg_file
from iqa_errors import IQAError
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.foreign import measured
from iqa_harness.entrants.naming import as_entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.check import Check
from iqa_harness.evidence.model_checks import BLOCKING, check_model
from iqa_harness.machine.devices import out_of_memory
from iqa_models import QualityModel

MOST = 4
"""Images looked at."""
DRAWS = 4
"""Evaluations averaged of a stochastic model."""
SEEN = 0.01
"""Share of the score range that different images, clean and distorted, should move the score by at least."""
REVERSED = 1 / 3
"""Share of distorted images that score below their clean one, under which the direction is doubted."""
SIZES = ((96, 96), (97, 131), (224, 224))
"""Heights and widths that are tried."""

State = Literal["ok", "note", "wrong"]

WORDS: dict[str, tuple[str, str]] = {
    "finite_scores": (
        "every image has one finite score",
        "call the model on one image in Python; look for a division by 0, a logarithm, a wrong size",
    ),
    "score_range": ("scores lie in the card's range", "state the range of its raw output: ?range=LOW,HIGH"),
    "repeatable": (
        "an image scores the same twice",
        "leave out what is random (crops, dropout) and what it counts, or say ?stochastic=true: attacks then "
        "average draws; all must come from torch's global generators",
    ),
    "batch_independent": (
        "an image scores alone as in a batch",
        "score image by image inside; no statistics over the batch, normalisation layers in eval mode",
    ),
    "gradient_finite": (
        "every image has a finite gradient",
        "look for detach(), no_grad, numpy or a square root at 0; ?gradient=false attacks it as a black box",
    ),
    "gradient_alive": (
        "no gradient is zero everywhere",
        "look for rounding, clamping or argmax before the score; ?gradient=false attacks it as a black box",
    ),
    "gradient_agrees": (
        "the gradient is the slope of the score",
        "look for rounding, a backward pass of one's own, jumps of the score; results are upper bounds",
    ),
    "score_slope": ("the score has a slope, kept to be compared after a run", "nothing: any slope will do"),
    "gain_on_fresh": (
        "the model is as easily moved on images that nobody has seen",
        "look for what it remembers of images, labels or scores; results are upper bounds",
    ),
}
"""What each check of `check_model` asks, and what to do where the answer is no."""


class Line(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: State
    """`wrong`: a run would refuse the model; `note`: it runs, and this should be known."""
    what: str
    """What was found, in words."""
    todo: str = ""
    """What to do about it."""


@dataclass(frozen=True)
class ModelCheck:
    """What a few images say of a model."""

    model: str
    results: tuple[Line, ...]
    seconds: float

    @property
    def usable(self) -> bool:
        """Whether a run would take it."""
        return all(line.state != "wrong" for line in self.results)

    def lines(self) -> list[str]:
        """Say everything, a line a check and one more for what to do."""
        lines = []
        for name, state, what, todo in self.results:
            lines.append(f"{state:5} {name}: {what}")
            lines += [f"      -> {todo}"] * bool(todo)
        verdict = "can be attacked" if self.usable else "would be refused"
        return [*lines, f"{self.model} {verdict} (checked in {self.seconds:.1f} s)"]

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def not_made(name: str, error: IQAError) -> ModelCheck:
    """Return the check of a model that cannot be made."""
    return ModelCheck(name, (Line("made", "wrong", str(error)),), 0.0)


def check_entrant(
    entrant: Entrant, pixels: Sequence[Tensor], mos: Sequence[float] | None, device: str = "cpu"
) -> ModelCheck:
    """Check a model on a few images; what nobody stated of its card is measured on them first.

    Args:
        entrant: the model.
        pixels: (3, H, W) each in [0, 1]; resized where the card allows one size, or none that small.
        mos: their labels, None if there are none.
        device: torch device.
    """
    start = time.perf_counter()
    lines = []
    with torch.no_grad():
        try:
            for line in _lines(entrant, pixels, mos, device):
                lines.append(line)
                if line.state == "wrong":
                    break
        except IQAError as error:  # such as a state that has no hash
            lines.append(Line("recorded", "wrong", str(error)))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            what = f"{device} has no room for {len(pixels)} images at once"
            lines.append(Line("memory", "wrong", what, "name fewer images, or smaller ones"))
    return ModelCheck(entrant.label, tuple(lines), time.perf_counter() - start)


def _lines(
    entrant: Entrant, pixels: Sequence[Tensor], mos: Sequence[float] | None, device: str
) -> Iterator[Line]:
    batch = _fitting(entrant.model, pixels).to(device)
    asked = tuple(getattr(entrant.model.bare, "unknown", ()))
    try:
        entrant = measured(entrant, list(batch.cpu()), mos, device)
    except RunError as error:
        yield Line("scores", "wrong", str(error), WORDS["finite_scores"][1])
        return
    model = entrant.model.to(device)
    yield _made(entrant)
    yield _made_again(entrant)
    yield _card(model, asked)
    checks = check_model(model, list(batch), draws=DRAWS)
    for name, check in checks.items():
        yield _checked(name, check)
    if all(checks[name].passed for name in checks if name in BLOCKING):
        yield from _looked_at(model, batch)


def _fitting(model: QualityModel, pixels: Sequence[Tensor]) -> Tensor:
    """Return images of one size that the card allows."""
    spec, (height, width) = model.spec, pixels[0].shape[-2:]
    least = spec.min_size / min(height, width)
    size = (height, width) if least <= 1 else (round(height * least), round(width * least))
    size = size if spec.fixed_size is None else (spec.fixed_size,) * 2
    return torch.cat(
        [
            functional.interpolate(image[None].float(), size, mode="bilinear", antialias=True).clamp(0, 1)
            for image in pixels
        ]
    )


def _made(entrant: Entrant) -> Line:
    spec = entrant.model.spec
    count = sum(p.numel() for p in entrant.model.parameters())
    what = f"{spec.summary}; {count:,} parameters, weights: {spec.initial_weights}"
    if entrant.note or spec.initial_weights == "random" or entrant.card.notes:
        notes = "; ".join(entrant.card.notes) or "random weights, whose scores mean nothing"
        return Line("made", "note", f"{what}; {notes}")
    return Line("made", "ok", what)


def _made_again(entrant: Entrant) -> Line:
    name, own = "recorded", entrant.sha256
    if entrant.argument is None:
        what = "an object of this process: neither workers nor `verify` can make it again"
        return Line(name, "note", what, "put it behind module:PACKAGE.MOD:FACTORY")
    if entrant.checkpoint is not None:
        return Line(name, "ok", f"a checkpoint: {entrant.checkpoint}")
    try:
        again = as_entrant(
            entrant.argument, backbone_weights=entrant.backbone_weights, plugins=entrant.plugins
        )
    except IQAError as error:
        return Line(name, "note", f"it cannot be made a second time: {error}")
    if again.sha256 != own:
        return Line(
            name, "note", "made a second time it is another model: workers and `verify` will refuse it",
            "draw weights from a fixed seed, hold no time or counter",
        )  # fmt: skip
    return Line(name, "ok", f"--model {entrant.argument!r} makes it again")


def _card(model: QualityModel, asked: Sequence[str]) -> Line:
    spec = model.spec
    low, high = spec.score_range
    sizes = [f"{height} x {width}" for height, width in SIZES if _takes(model, height, width)]
    what = (
        f"scores from {low:g} to {high:g}, {'higher' if spec.higher_is_better else 'lower'} raw output is "
        f"better; {'has' if spec.has_gradient else 'no'} gradient; of sizes "
        f"{', '.join(f'{h} x {w}' for h, w in SIZES)} it takes {', '.join(sizes) or 'none'}"
    )
    if asked:
        todo = "state them as options"
        if "gradient" in asked and not spec.has_gradient:
            todo += f"; should it have a gradient, {WORDS['gradient_finite'][1].partition(';')[0]}"
        return Line("card", "note", f"{what}; measured here: {', '.join(asked)}", todo)
    return Line("card", "ok", what)


def _takes(model: QualityModel, height: int, width: int) -> bool:
    try:
        score(model, torch.full((1, 3, height, width), 0.5, device=model._mean.device), chunk=1)
    except Exception:  # noqa: BLE001 - whatever it says of a size: it does not take it
        return False
    return True


def _checked(name: str, check: Check) -> Line:
    question, todo = WORDS.get(name, (name, ""))
    if check.passed:
        return Line(name, "ok", question if check.value is not None else check.detail)
    value = "not measurable" if check.value is None else f"{check.value:.3g}"
    what = f"not so that {question}: {check.detail} ({value}, allowed {check.threshold:g})"
    return Line(name, "wrong" if name in BLOCKING else "note", what, todo)


def _looked_at(model: QualityModel, batch: Tensor) -> Iterator[Line]:
    """Hold scores of distorted images against clean ones: does the model see, and which way?"""
    noise = torch.rand(batch.shape, generator=torch.Generator().manual_seed(0)).to(batch) - 0.5
    blurred = functional.interpolate(
        functional.avg_pool2d(batch, 4, ceil_mode=True), batch.shape[-2:], mode="bilinear"
    )
    worse = {
        "blur": blurred.clamp(0, 1),
        "noise": (batch + 0.4 * noise).clamp(0, 1),
        "JPEG": through_jpeg_file(batch.cpu(), 10).to(batch),
    }
    clean = score(model, batch, chunk=len(batch))
    found = {name: score(model, each, chunk=len(batch)) for name, each in worse.items()}
    every = torch.cat([clean, *found.values()])
    low, high = model.spec.score_range
    spread = float(every.max() - every.min()) / (high - low)
    if spread < SEEN:
        yield Line(
            "input",
            "note",
            f"{len(every)} different images move the score by {spread:.2%} of its range only",
            "pixels to 255 (?pixels=255)? normalised ones (?normalise=imagenet)? are its weights loaded?",
        )
    else:
        yield Line("input", "ok", f"different images move the score by {spread:.0%} of its range")
    lower = {name: float((each < clean).double().mean()) for name, each in found.items()}
    share = sum(lower.values()) / len(lower)
    said = ", ".join(f"{name} {part:.0%}" for name, part in lower.items())
    if share < REVERSED:
        now = "lower" if model.spec.higher_is_better else "higher"
        yield Line(
            "direction", "note", f"few distorted images score worse than their clean one: {said}",
            f"if its raw output is better where it is {now}, say ?direction={now}",
        )  # fmt: skip
    else:
        yield Line("direction", "ok", f"distorted images that score worse than their clean one: {said}")
