"""How a model's gradients are computed on a device: chosen once by measurement, kept in the run's manifest.

A few gradients are timed before a run. What is faster than the model as it stands must also be as strong: a
short attack with it must reach the scores that the same attack reaches with the plain gradient. The choice
changes the path of an attack by rounding (of bfloat16: by more), never the scores that are stored, which are
the model's own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from iqa_attacks import AttackFailed, ThreatModel, create_attack, score_and_gradient, stored_score
from iqa_attacks.gradients import ask
from iqa_attacks.seeding import seeded
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import device_name, out_of_memory
from iqa_models import QualityModel
from iqa_models.frozen import HALVES, Precision, frozen
from iqa_models.graphs import FROM
from iqa_results import RunManifest

Key = TypeVar("Key")

SHARE = {"fast": 0.05, "full": 0.2}
"""Most of a model's gradients that tuning may cost, by mode; where that is too few nothing is tuned."""
COST = {"fast": 150, "full": 400}
"""About the gradients that tuning takes, by mode, compilation not counted."""
TINY = 2e-3
"""Seconds a gradient below which nothing is worth choosing on the CPU."""
TINY_CUDA = 1e-5
"""The same on a card, which computes many at a time."""
GAIN = 0.05
"""Least share of the time a choice must save."""
HALF_GAIN = 0.2
"""Least share that bfloat16 must save beyond what full precision does: it changes results by more than
rounding."""
STRENGTH, STEP = 0.99, 0.95
"""Least share of the plain attack's gain that the tuned one must reach, from `1 + AGAIN` starts together; and
of a first step, to be tried at all."""
SAME, SAME_STRENGTH = 0.999, 0.95
"""From this share of a first step on, a gradient of float32 numbers differs by rounding only. Paths
that part by rounding end apart by chance, so this much of the gain is then enough, over `AGAIN` more starts
if not at the first."""
AGAIN = 3

IMAGES, ON_A_CARD, REPEATS = 4, 32, 3
"""Images of a timed step, on CUDA more (fewer leave it idle), and how often each candidate is timed; the
least time counts."""
STEPS, STEP_SIZE, EPSILON = 3, 1 / 255, 4 / 255
"""The short attack: steps of PGD up and down from one random start, at the papers' radius."""


class Form(NamedTuple):
    """A way to compute the same gradient; the first of all is the model as it stands."""

    fold: bool = False
    channels_last: bool = False
    precision: Precision = "model"
    compiled: bool = False
    graphed: bool = False

    @property
    def words(self) -> str:
        """What differs from the model as it stands."""
        parts = {
            "batch norms folded": self.fold,
            "channels last": self.channels_last,
            "TensorFloat-32": self.precision == "tf32",
            "float16": self.precision == "float16",
            "bfloat16": self.precision == "bfloat16",
            "compiled": self.compiled,
            "recorded": self.graphed,
        }
        return ", ".join(name for name, there in parts.items() if there) or "the model as it is"


PLAIN = Form()
FORMS: dict[str, tuple[Form, ...]] = {
    "fast": (Form(True, True), Form(True, True, "bfloat16")),
    "full": (
        Form(True, True),
        Form(True, True, "bfloat16"),
        Form(True, False),
        Form(True, False, "bfloat16"),
        Form(True, True, "model", True),
        Form(True, True, "bfloat16", True),
    ),
}
"""What is tried, by mode, beside the model as it stands."""
CUDA_FORMS: dict[str, tuple[Form, ...]] = {
    "fast": (
        Form(True, False, graphed=True),
        *(Form(True, True, precision, graphed=True) for precision in ("tf32", "float16", "bfloat16")),
    ),
    "full": tuple(
        Form(True, channels_last, precision, compiled, graphed=not compiled)
        for channels_last in (True, False)
        for precision in get_args(Precision)
        for compiled in (False, True)
    ),
}
"""The same on CUDA, where passes are recorded and products may be of TensorFloat-32. Channels last pay for
what runs on tensor cores; float32 convolutions of a ResNet-50 took an eighth longer with them on an H100."""


class Tuning(BaseModel):
    """The choice for one model on one kind of device: plain data that makes a rerun bit-equal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_sha256: str
    """Hash of the model's card and weights."""
    device: str
    """What the device calls itself."""
    fold: bool = False
    """Batch norms are folded into the convolutions before them."""
    channels_last: bool = False
    """Maps have their channels last in memory."""
    precision: Precision = "model"
    """`bfloat16`, `float16`: trunk and neck run under autocast. These and `tf32`: other products are of
    TensorFloat-32 where the device has it."""
    compiled: bool = False
    """The trunk is compiled."""
    graphed: bool = False
    """Passes are recorded as CUDA graphs."""
    chunk: int = Field(ge=1)
    """Images in one pass."""
    plain_ms: float | None = None
    """Least time of one gradient of the model as it stands, None if nothing was timed."""
    tuned_ms: float | None = None
    """Least time of one gradient as chosen."""
    strength: float | None = None
    """What the short attack gained with the chosen gradient, over what it gained with the plain one."""
    why: str
    """Why this was chosen, in words."""

    @property
    def form(self) -> Form:
        """How the copy is made."""
        return Form(self.fold, self.channels_last, self.precision, self.compiled, self.graphed)

    @property
    def words(self) -> str:
        """What differs from the model as it stands."""
        return self.form.words

    def copy_of(self, model: QualityModel) -> QualityModel:
        """Return the copy of a model that an attack asks for gradients; the model itself if nothing pays."""
        return model if self.form == PLAIN else frozen(model, **self.form._asdict())


def tune(
    model: QualityModel,
    sha256: str,
    images: Sequence[Tensor],
    *,
    chunk: int,
    mode: str = "fast",
    gradients: float,
    copies: Callable[[QualityModel, Form], QualityModel] = lambda model, form: frozen(
        model, **form._asdict()
    ),
) -> Tuning:
    """Choose how a model's gradients are computed, by timing some on a few of the run's images.

    Candidates are timed in turn, so that a busy machine is equally busy for all. The fastest that saves
    `GAIN` of the time and reaches `STRENGTH` of the plain attack's gain is taken, else the model as it is.

    Args:
        model: in eval mode on its device; not changed.
        sha256: hash of card and weights.
        images: (3, H, W) each, of one size, on the model's device.
        chunk: most images in one pass.
        mode: what may be chosen: a word of `machine.runtime.TUNE`.
        gradients: about how many the run will ask for; see `SHARE` and `COST`.
        copies: makes a candidate.
    """
    device = images[0].device
    record = {"model_sha256": sha256, "device": device_name(str(device)), "chunk": chunk}
    if mode == "off":
        return Tuning(**record, why="tuning is off")
    cuda = device.type == "cuda"
    count = min(ON_A_CARD if cuda else IMAGES, chunk)
    if gradients * SHARE[mode] < COST[mode] * max(1, count / IMAGES):
        return Tuning(**record, why=f"about {gradients:,.0f} gradients are too few to choose anything for")
    batch = torch.stack([images[i % len(images)] for i in range(count)])
    try:
        with seeded(0, device):  # torch's generators are left where they were
            _seconds(model, batch[:1], 1)  # the first pass of a process takes longer
            seconds = _seconds(model, batch, len(batch)) / len(batch)
            if seconds < (TINY_CUDA if cuda else TINY):
                return Tuning(**record, plain_ms=1e3 * seconds, why="a gradient takes next to no time")
            forms = (CUDA_FORMS if cuda else FORMS)[mode]
            return _chosen(model, images, batch, record, forms, copies)
    except (AttackFailed, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        return Tuning(**record, why=f"nothing could be measured: {error}".partition("\n")[0])


def _chosen(
    model: QualityModel,
    images: Sequence[Tensor],
    batch: Tensor,
    record: dict[str, Any],
    forms: Sequence[Form],
    copies: Callable[[QualityModel, Form], QualityModel],
) -> Tuning:
    """Time the forms, take the fastest that is strong, then choose the chunk."""
    candidates, slopes = {PLAIN: model}, {PLAIN: _slope(model, batch)}
    refused: list[str] = []

    def refuse(form: Form, error: Exception) -> None:
        refused.append(f"{form.words} fails: {error}".partition("\n")[0])

    for form in forms:
        try:
            candidates[form] = copies(model, form)
            if candidates[form] is not model:
                for _ in range(FROM if form.graphed else 0):
                    ask(candidates[form], batch, chunk=len(batch), gradient=True)
                slopes[form] = _slope(candidates[form], batch)
        except Exception as error:  # noqa: BLE001 - whatever a user's own model raises in another precision
            refuse(form, error)
    times = _timed({form: (candidates[form], batch, len(batch)) for form in slopes})
    plain = times[PLAIN]
    best, strength = PLAIN, None
    gain = functools.cache(lambda form, start: attack_gain(candidates[form], model, images, start))
    for form in _worth_it(times):
        try:
            strength, enough = _strength(form, _one_step(slopes[PLAIN], slopes[form]), gain)
        except AttackFailed as error:  # such as numbers beyond what float16 holds, once images are attacked
            refuse(form, error)
            continue
        if enough:
            best = form
            break
        refused.append(
            f"{form.words} takes {times[form] / plain:.0%} of the time, at {strength:.1%} of the gain"
        )
    chunk, seconds = _best_chunk(candidates[best], images, record["chunk"], len(batch))
    words = f"{best.words} takes {times[best] / plain:.0%} of the plain gradient's time"
    return Tuning(
        **{**record, "chunk": chunk},
        **best._asdict(),
        plain_ms=1e3 * plain,
        tuned_ms=1e3 * (seconds or times[best]),
        strength=None if best == PLAIN else strength,
        why="; ".join(["nothing else pays" if best == PLAIN else words, *refused]),
    )


def _slope(model: QualityModel, batch: Tensor) -> Tensor:
    """Return the gradients of a batch; a stochastic model draws the same each time."""
    with seeded(0, batch.device):
        return score_and_gradient(model, batch, chunk=len(batch)).gradients


def _worth_it(times: dict[Form, float]) -> list[Form]:
    """Return the forms that save enough time to be tried for strength, the fastest first."""
    exact = min(seconds for form, seconds in times.items() if form.precision == "model")
    most = {
        "model": (1 - GAIN) * times[PLAIN],
        "tf32": (1 - GAIN) * exact,
        "float16": (1 - GAIN) * exact,
        "bfloat16": (1 - HALF_GAIN) * exact,
    }
    worth = [form for form, seconds in times.items() if seconds <= most[form.precision]]
    return sorted(worth, key=lambda form: times[form])


def _one_step(plain: Tensor, other: Tensor) -> float:
    """Return what a step along the signs of another gradient gains, to first order, over the plain one's."""
    most = plain.abs().sum()
    return float((plain * other.sign()).sum() / most) if most > 0 else 0.0


def _strength(form: Form, step: float, gain: Callable[[Form, int], float]) -> tuple[float, bool]:
    """Return what a form reaches of the plain attack's gain, and whether that is enough.

    Args:
        form: how the gradient is computed.
        step: its share of a first step.
        gain: returns the gain of the short attack with a form, from starts of a number.
    """
    rounding = form.precision not in HALVES and step >= SAME
    least = SAME_STRENGTH if rounding else STRENGTH
    strength = step
    for starts in (1, 1 + AGAIN) if rounding else (1 + AGAIN,) if step >= STEP else ():
        most, reached = (sum(gain(each, start) for start in range(starts)) for each in (PLAIN, form))
        strength = reached / most if most > 0 else 0.0
        if strength >= least:
            return strength, True
    return strength, False


def _best_chunk(
    model: QualityModel, images: Sequence[Tensor], chunk: int, smaller: int
) -> tuple[int, float | None]:
    """Return the chunk, the given one unless a smaller one saves time, and its seconds a gradient."""
    if smaller >= chunk:
        return chunk, None
    batch = torch.stack([images[i % len(images)] for i in range(chunk)])
    times = _timed({size: (model, batch, size) for size in (chunk, smaller)})
    best = smaller if times[smaller] <= (1 - GAIN) * times[chunk] else chunk
    return best, times[best]


def attack_gain(copy: QualityModel, model: QualityModel, images: Sequence[Tensor], start: int = 0) -> float:
    """Return how far the short attack moves a model's own scores when a copy gives it gradients.

    The sum, over images and both directions, of the move in the direction that was asked for; starts are
    those of the image's place and the number `start`, the same for every copy. Best iterates are chosen by
    the copy's scores, so that what a coarse score costs is in the result.
    """
    draws = 1 if model.is_stochastic else None
    attack = create_attack(
        "pgd",
        threat=ThreatModel("inf", EPSILON),
        objectives=("raise", "lower"),
        steps=STEPS,
        step_size=STEP_SIZE,
        eot_samples=draws,
        seed=start,
    )
    few = list(images[:IMAGES])
    ids = [f"tuning-{i}" for i in range(len(few))]
    result = attack.run(copy, few, ids, torch.zeros(len(few)), chunk=len(few))

    def own(pixels: Tensor, image: int) -> float:
        return stored_score(model, pixels, seed=0, image_id=ids[image], draws=draws)

    clean = [own(pixels, i) for i, pixels in enumerate(few)]
    ways = {"raise": 1, "lower": -1}
    return sum(
        ways[found.objective] * (own(found.example.pixels, found.image) - clean[found.image])
        for found in result.found
        if found.objective in ways
    )


def _timed(candidates: dict[Key, tuple[QualityModel, Tensor, int]]) -> dict[Key, float]:
    """Return the least seconds a gradient of each candidate, timed in turn."""
    rounds = [
        {key: _seconds(*each) / len(each[1]) for key, each in candidates.items()} for _ in range(REPEATS)
    ]
    return {key: min(times[key] for times in rounds) for key in candidates}


def _seconds(model: QualityModel, batch: Tensor, chunk: int) -> float:
    """Return the seconds of one step: the thread's own on a CPU with one thread, else the wall's."""
    alone = batch.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    started = clock()
    ask(model, batch, chunk=chunk, gradient=True)
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return clock() - started


class Copies:
    """The copies that attacks ask for gradients in one process, each made when it is first needed."""

    def __init__(self, choices: Sequence[Tuning], device: str) -> None:
        """Take the choices of a run, and the device they are for."""
        self._device = device_name(device) if choices else device
        self._choices = choices
        self._made: dict[str, QualityModel] = {}

    def of(self, model: QualityModel, sha256: str) -> QualityModel | None:
        """Return the copy of a model of this hash, None where nothing was chosen."""
        choice = known(self._choices, sha256, self._device) or known(self._choices, sha256)
        if choice is None or choice.form == PLAIN:
            return None
        if sha256 not in self._made:
            self._made[sha256] = choice.copy_of(model)
        return self._made[sha256]

    def chunk(self, sha256: str, most: int) -> int:
        """Return how many images go through a model in one pass, at most `most`."""
        choice = known(self._choices, sha256, self._device) or known(self._choices, sha256)
        return min(most, choice.chunk) if choice else most


def known(choices: Sequence[Tuning], sha256: str, device: str | None = None) -> Tuning | None:
    """Return the choice for a model on a kind of device, of any device if that is None."""
    fitting = (c for c in choices if c.model_sha256 == sha256 and device in (None, c.device))
    return next(fitting, None)


def read_choices(records: object) -> tuple[Tuning, ...]:
    """Read choices as a manifest holds them, under ``tuning`` and there under ``choices``.

    Raises:
        RunError: they are not such records.
    """
    try:
        return _RECORDS.validate_python(records)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "choices"
        raise RunError(f"tuning of a manifest cannot be read: {where}: {first['msg']}") from error


def choices_of(manifest: RunManifest) -> tuple[Tuning, ...]:
    """Return the choices a run was computed with.

    Raises:
        RunError: its manifest holds something else.
    """
    return read_choices(manifest.tuning.get("choices", []))


_RECORDS = TypeAdapter(tuple[Tuning, ...])
