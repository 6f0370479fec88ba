"""What must hold before a number about a model can be believed, measured before any attack."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from iqa_attacks import (
    AttackError,
    AttackFailed,
    draw_seeds,
    expected_score,
    expected_score_and_gradient,
    score,
    score_and_gradient,
)
from iqa_attacks.defences.defended import Defended
from iqa_attacks.model_state import check_modes, left_as_it_was
from iqa_harness.evidence.check import Check, as_checks
from iqa_harness.machine.devices import out_of_memory
from iqa_models import QualityModel

PROBE = 0.25 / 255
"""Pixel step of the finite difference: small enough for the slope of a trained network, whose score bends
within a grey level, and large against the rounding of float32."""


GRID = 4
"""Rows and columns of blocks in which the gradient is compared with the slope."""

AWAY = (1 / 255, 4 / 255)
"""Distances from an image, in turn, of the points that stand for attacked ones."""
STEP = 1 / 255
"""Sign step whose gain is compared on the images and on fresh versions of them."""
FRESH = 2.0
"""Bound of that comparison, either way."""

MOST = 8
"""Images checked."""


FIRST_EDITION = "relative difference between the gradient and finite differences"
"""What version 0.1 wrote of `gradient_agrees`: it took the first FIRST_IMAGES images, each as a whole."""
FIRST_IMAGES = 4


BLACK_BOX = "the model's card says that it has no gradient"
"""Why nothing is measured of one."""


BLOCKING = ("finite_scores", "repeatable", "batch_independent", "gradient_finite")
"""Without these no number can be made: scores, shared gradients or stored rows would be wrong."""


def blocked_by(checks: Mapping[str, Any]) -> str | None:
    """Say which check without which no number can be made a model fails; None if it fails none.

    Args:
        checks: what `check_model` measured, as values or as a manifest holds them.
    """
    known = as_checks(checks)
    for name in BLOCKING:
        if name in known and not known[name].passed:
            value, bound, _, detail = known[name]
            measured = "not measurable" if value is None else f"{value:g}"
            return f"fails the check {name!r}: {detail} ({measured}, allowed {bound:g})"
    return None


AGREES = "gradient_agrees"
"""Name of the check that is compared with itself after a run."""
SLOPE = "score_slope"
"""Name of what is kept for the check after a run: how steep the score is; nothing is wrong with any slope."""
UNCHANGED = "gradient_unchanged"
"""Name of the check after a run."""
DRIFT = 0.25
"""Bound of that check: a model that stays as it is changes by nothing, a copy with fewer bits by little."""


def checked_images(count: int) -> list[int]:
    """Return the positions of up to MOST images, spread evenly over a set, first and last included."""
    chosen = min(MOST, count)
    return [round(i * (count - 1) / max(chosen - 1, 1)) for i in range(chosen)]


def check_model(
    model: QualityModel, images: Sequence[Tensor], *, draws: int | None = None
) -> dict[str, Check]:
    """Measure what the harness assumes of a model, on a few images of one size.

    A stochastic model is measured as it is used: the mean of seeded draws on one image at a time. It is
    repeatable if equal seeds give equal scores: if torch's global generators are all that it draws from.
    A model that raises fails the check it raises in, so that the others of a run can go on.

    Args:
        model: in eval mode.
        images: at least two images (3, H, W) of equal size in [0, 1], such as `checked_images` of a set.
        draws: evaluations averaged for a stochastic model; a deterministic one is evaluated once.

    Returns:
        finite_scores, score_range, repeatable, batch_independent, gradient_finite, gradient_alive,
        gradient_agrees, score_slope, gain_on_fresh: measured value, bound, verdict and meaning of each;
        those after a failure that leaves nothing to measure are not there. Differences of scores are in
        units of the card's score range.

    Raises:
        RuntimeError: the device has no memory for these images at once.
    """
    batch = torch.stack(list(images))
    probe = Probe(model, (draws or 1) if model.is_stochastic else None)
    checks: dict[str, Check] = {}
    try:
        checks.update(_score_checks(probe, batch))  # as far as they come
        checks.update(_gradient_checks(probe, batch))
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = str(error) if isinstance(error, AttackFailed) else f"{type(error).__name__}: {error}"
    else:
        return checks
    failed = "gradient_finite" if "batch_independent" in checks else "finite_scores"
    return {**checks, failed: Check(None, 0, False, reason)}


def check_again(
    model: QualityModel,
    images: Sequence[Tensor],
    before: Mapping[str, Any],
    *,
    draws: int | None = None,
    copy: QualityModel | None = None,
) -> Check:
    """Measure after a run by how much less the gradient agrees with the score than it did before.

    Args:
        model: in eval mode, after all its calls.
        images: those of `check_model`.
        before: what that measured, as values or as a manifest holds them.
        draws: as for `check_model`.
        copy: what attacks asked for gradients in the model's place, if there was one; the worse one counts.

    Raises:
        RuntimeError: the device has no memory for these images at once.
    """
    known = as_checks(before)
    value, slope = (known[name].value if name in known else None for name in (AGREES, SLOPE))
    if value is None:
        return Check(None, DRIFT, True, "the gradient could not be compared before the run")
    probe = Probe(model, (draws or 1) if model.is_stochastic else None)
    try:
        after = _compared(probe, _inside(torch.stack(list(images))), copy)
    except Exception as error:
        if out_of_memory(error):
            raise
        return Check(None, DRIFT, False, f"after the run it fails: {type(error).__name__}: {error}")
    if after.error is None:
        return Check(None, DRIFT, False, "after the run neither gradient nor score changes with the image")
    steeper = abs(after.slope / slope - 1) if slope else 0.0
    if steeper > max(DRIFT, after.error - value):
        return _at_most(steeper, DRIFT, "change of the score's slope, after the run over before it, less 1")
    what = "disagreement of the gradient with finite differences after the run, less that before it"
    return _at_most(max(0.0, after.error - value), DRIFT, what)


def _score_checks(probe: Probe, batch: Tensor) -> Iterator[tuple[str, Check]]:
    low, high = probe.model.spec.score_range
    first = probe.scores(batch)
    yield "finite_scores", _at_most(0.0, 0, "number of images whose score is not finite")
    outside = torch.maximum(low - first, first - high).clamp_min(0).max()
    yield (
        "score_range",
        _at_most(
            float(outside) / (high - low), 0.5, "largest distance of a score from the card's score range"
        ),
    )

    def apart(other: Tensor) -> float:
        return float((other - first).abs().max()) / (high - low)

    probe.model.forget()  # an answer that was kept would repeat itself
    try:
        check_modes(probe.model)
        with left_as_it_was(probe.model):
            again = probe.scores(batch)
        yield "repeatable", _at_most(apart(again), 0, "largest difference between two evaluations")
    except AttackError as error:  # as every attack would say
        yield "repeatable", Check(None, 0, False, str(error))
    if probe.draws is None:
        probe.model.forget()
        alone, what = score(probe.model, batch, chunk=1), "an image alone and in a batch"
        yield "batch_independent", _at_most(apart(alone), 1e-4, f"largest difference between {what}")
    else:
        yield "batch_independent", _at_most(0, 1e-4, "a stochastic model is given one image at a time")


def _gradient_checks(probe: Probe, batch: Tensor) -> Iterator[tuple[str, Check]]:
    if not probe.model.spec.has_gradient:
        bounds = {"gradient_finite": 0, "gradient_alive": 0, AGREES: 0.5, "gain_on_fresh": FRESH}
        yield from ((name, Check(None, bound, True, BLACK_BOX)) for name, bound in bounds.items())
        return
    inside = _inside(batch)
    gradients = probe.gradients(inside)
    yield "gradient_finite", _at_most(0.0, 0, "number of input gradients that are not finite")
    dead = (gradients.flatten(1) == 0).all(dim=1)
    what = "share of images whose input gradient is exactly zero"
    yield "gradient_alive", _at_most(float(dead.cpu().double().mean()), 0, what)
    try:
        behind = probe.behind()
        slopes = gradients if behind is probe else behind.gradients(inside)
        found = _compared(behind, inside, slopes=slopes)
        fresh = _gain_on_fresh(behind, inside, slopes)
    except AttackFailed as error:  # finite on the images and not beside them: the run's cells will fail
        yield AGREES, Check(None, 0.5, False, str(error))
        return
    if found.error is None:
        yield AGREES, Check(None, 0.5, False, "neither the gradient nor finite differences see any change")
    else:
        what = f"relative difference between the gradient and finite differences, {found.where}"
        yield AGREES, _at_most(found.error, 0.5, what)
        what = (
            "root mean square of those differences, in score ranges per grey level in all pixels of a block"
        )
        yield SLOPE, Check(found.slope, 0, True, what)
    yield "gain_on_fresh", fresh


def _gain_on_fresh(probe: Probe, inside: Tensor, slopes: Tensor) -> Check:
    """Compare what one sign step gains on the images and on versions that nobody has seen.

    Mirrored, moved round by whole blocks of JPEG and a little paler, an image is another array of about the
    same content: a model that does not remember the images is as easily moved on either.
    """
    fresh = (inside.flip(-1).roll((8, 24), (-2, -1)) * 0.98 + 0.013).clamp(PROBE, 1 - PROBE)
    here, there = _gains(probe, inside, slopes), _gains(probe, fresh, probe.gradients(fresh))
    what = (
        f"gain of a sign step of one grey level on {len(inside)} images over that on fresh versions of them"
    )
    if here == there == 0:
        return Check(None, FRESH, True, "a sign step gains nothing")
    if here * there <= 0:
        return Check(None, FRESH, False, f"{what}: {here:.3g} and {there:.3g}")
    return _at_most(max(here / there, there / here), FRESH, f"{what}, the larger over the smaller")


def _gains(probe: Probe, batch: Tensor, gradients: Tensor) -> float:
    """Return by how much scores differ between a step along the gradient's sign and one against it."""
    up, down = (probe.scores((batch + side * STEP * gradients.sign()).clamp(0, 1)) for side in (1, -1))
    return float((up - down).sum())


class Probe(NamedTuple):
    """Evaluates a model as the harness does."""

    model: QualityModel
    draws: int | None
    """None for a deterministic model."""
    copy: QualityModel | None = None
    """Asked for gradients in its place, as an attack does."""

    def behind(self) -> Probe:
        """Return the probe of what claims to have a slope: the model itself behind defences that have none.

        The gradient of such a defence is a stand-in by design (BPDA); whether it leads anywhere is for the
        attacks to show.
        """
        model = self.model
        if not isinstance(model, Defended) or not model.stands_in:
            return self
        draws = self.draws if model.bare.is_stochastic else None
        return Probe(model.bare, draws, self.copy and self.copy.bare)

    def scores(self, batch: Tensor) -> Tensor:
        """Return scores (B,) of images (B, 3, H, W)."""
        if self.draws is None:
            return score(self.model, batch, chunk=len(batch))
        values = [expected_score(self.model, image, self._seeds(i)) for i, image in enumerate(batch)]
        return torch.tensor(values, dtype=torch.float64)

    def gradients(self, batch: Tensor) -> Tensor:
        """Return input gradients (B, 3, H, W), by the same draws as the scores."""
        if self.draws is None:
            return score_and_gradient(self.copy or self.model, batch, chunk=len(batch)).gradients
        model, pairs = self.copy or self.model, enumerate(batch)
        return torch.stack(
            [expected_score_and_gradient(model, image, self._seeds(i))[1] for i, image in pairs]
        )

    def _seeds(self, i: int) -> tuple[int, ...]:
        return draw_seeds(0, str(i), ("check",), self.draws or 1)


class _Compared(NamedTuple):
    """A gradient held against differences of the score."""

    error: float | None
    """Relative difference of the two; None if neither sees any change."""
    slope: float
    """Root mean square of the differences, in score ranges per grey level in all pixels of a block."""
    where: str
    """What was compared, in words."""


def _inside(batch: Tensor) -> Tensor:
    return batch.clamp(PROBE, 1 - PROBE)


def _compared(
    probe: Probe, inside: Tensor, copy: QualityModel | None = None, slopes: Tensor | None = None
) -> _Compared:
    """Compare the gradient with central differences along random signs, PROBE in every pixel of a block.

    In one block at a time, so that neither a loud pixel nor an honest corner speaks for the whole image;
    every block is tried twice, on different images, once at the image and once at a point as attacks reach,
    and the median block counts. Of a copy that attacks ask for gradients the worse error counts. `slopes` are
    gradients at the images that were asked for before, where there is no copy.
    """
    behind = probe.behind()
    if behind is not probe:
        probe, copy = behind, copy and copy.bare
    generator = torch.Generator().manual_seed(0)
    asked = [probe, *([probe._replace(copy=copy)] if copy is not None else [])]
    at_images = [each.gradients(inside) for each in asked] if slopes is None else [slopes]
    tries: list[_Tries] = []
    points, gradients = inside, at_images
    for turn in range(2):
        if turn:
            gradients = [each.gradients(points) for each in asked]
        tries += _in_blocks(probe, points, gradients, generator)
        steps = torch.tensor([AWAY[i % len(AWAY)] for i in range(len(inside))]).to(inside).view(-1, 1, 1, 1)
        noise = torch.rand(inside.shape, generator=generator).to(inside) * 2 - 1
        points = _inside(inside + steps * (0.6 * gradients[0].sign() + 0.4 * noise))
    # What rounding of the scores alone makes of a difference.
    floor = 4 * torch.finfo(torch.float32).eps * float(probe.scores(inside).abs().max()) / (2 * PROBE)
    low, high = probe.model.spec.score_range
    slope = math.sqrt(statistics.fmean(t.difference**2 for t in tries)) / (high - low) / 255
    blocks = [[t for t in tries if t.block == block] for block in range(GRID**2)]
    found = [[e for b in blocks if (e := _error(b, floor, i)) is not None] for i in range(len(asked))]
    what = f"median over {len(found[0])} blocks of {len(inside)} images"
    if min(map(len, found)) < GRID**2 / 2:  # the score sees too little of one block, or is rounded coarsely
        whole = _over_whole_images(probe, inside, at_images, inside.shape, generator)
        errors = [_error(whole, 0, i) for i in range(len(asked))]
        what = f"over whole images, {len(inside)} of them"
        known = [error for error in errors if error is not None]
        return _Compared(max(known) if len(known) == len(errors) else None, slope, what)
    return _Compared(max(statistics.median(errors) for errors in found), slope, what)


class _Tries(NamedTuple):
    """One difference of the score, and what each gradient says of it."""

    block: int
    difference: float
    slopes: tuple[float, ...]


def _in_blocks(
    probe: Probe, points: Tensor, gradients: Sequence[Tensor], generator: torch.Generator
) -> Iterator[_Tries]:
    """Try every block once, or more often where images are left over, on images in turn."""
    turns = -(-(GRID**2) // len(points))
    rounds = -(-turns * len(points) // GRID**2)
    order = torch.cat([torch.randperm(GRID**2, generator=generator) for _ in range(rounds)])
    for turn in range(turns):
        blocks = order[turn * len(points) : (turn + 1) * len(points)].tolist()
        masks = torch.eye(GRID**2).view(-1, 1, GRID, GRID)[blocks].to(points)
        signs = _signs(points.shape, generator).to(points)
        signs = signs * functional.interpolate(masks, points.shape[-2:])  # nearest
        yield from _slopes(probe, points, gradients, signs, blocks)


def _over_whole_images(
    probe: Probe, points: Tensor, gradients: Sequence[Tensor], shape: torch.Size, generator: torch.Generator
) -> list[_Tries]:
    """Try four random patterns of signs of some shape on whole images."""
    nowhere = [0] * len(points)
    signs = (_signs(shape, generator).to(points) for _ in range(4))
    return [each for s in signs for each in _slopes(probe, points, gradients, s, nowhere)]


def agrees_as_first(model: QualityModel, images: Sequence[Tensor], *, draws: int | None = None) -> Check:
    """Compare gradient and central differences as the first edition did; arguments are `check_model`'s."""
    probe = Probe(model, (draws or 1) if model.is_stochastic else None)
    inside = torch.stack(list(images)).clamp(PROBE, 1 - PROBE)
    generator = torch.Generator().manual_seed(0)
    tries = _over_whole_images(probe, inside, [probe.gradients(inside)], inside.shape[1:], generator)
    error = _error(tries, 0, 0)
    if error is None:
        return Check(None, 0.5, False, "neither the gradient nor finite differences see any change")
    return _at_most(error, 0.5, FIRST_EDITION)


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator) * 2 - 1


def _slopes(
    probe: Probe, points: Tensor, gradients: Sequence[Tensor], signs: Tensor, blocks: Sequence[int]
) -> list[_Tries]:
    """Return differences and slopes along signs in a block of each image."""
    # Rounding could leave the box by one unit in the last place.
    up, down = (probe.scores((points + side * PROBE * signs).clamp(0, 1)) for side in (1, -1))
    differences = ((up - down) / (2 * PROBE)).tolist()
    slopes = zip(*((g * signs).flatten(1).double().sum(dim=1).tolist() for g in gradients), strict=True)
    return [_Tries(*each) for each in zip(blocks, differences, slopes, strict=True)]


def _error(tries: Sequence[_Tries], floor: float, gradient: int) -> float | None:
    """Return the relative difference of slopes, None if neither is larger than what rounding makes."""
    differences, slopes = [t.difference for t in tries], [t.slopes[gradient] for t in tries]
    scale = max(math.hypot(*differences), math.hypot(*slopes))
    if scale <= floor * math.sqrt(len(slopes)):
        return None
    return math.dist(differences, slopes) / scale


def _at_most(value: float, threshold: float, detail: str) -> Check:
    # A NaN fails the comparison, as it should.
    return Check(None if math.isnan(value) else value, threshold, value <= threshold, detail)
