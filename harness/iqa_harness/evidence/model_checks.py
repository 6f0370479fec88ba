"""What must hold before a number about a model can be believed, measured before any attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks import (
    AttackFailed,
    draw_seeds,
    expected_score,
    expected_score_and_gradient,
    score,
    score_and_gradient,
)
from iqa_models import QualityModel

PROBE = 0.25 / 255
"""Pixel step of the finite difference: small enough for the slope of a trained network, whose score bends
within a grey level, and large against the rounding of float32."""


class Check(NamedTuple):
    """One thing measured, with the bound it is held against."""

    value: float | None
    """What was measured, None if it could not be."""
    threshold: float
    """The bound."""
    passed: bool
    """Whether the value is on the right side of it."""
    detail: str
    """What the value is, in words."""


BLOCKING = ("finite_scores", "repeatable", "batch_independent", "gradient_finite")
"""Without these no number can be made: scores, shared gradients or stored rows would be wrong."""


def check_model(
    model: QualityModel, images: Sequence[Tensor], *, draws: int | None = None
) -> dict[str, Check]:
    """Measure what the harness assumes of a model, on a few images of one size.

    A stochastic model is measured as it is used: the mean of seeded draws on one image at a time. It is
    repeatable if equal seeds give equal scores: if torch's global generators are all that it draws from.

    Args:
        model: in eval mode.
        images: at least two images (3, H, W) of equal size in [0, 1].
        draws: evaluations averaged for a stochastic model; a deterministic one is evaluated once.

    Returns:
        finite_scores, score_range, repeatable, batch_independent, gradient_finite, gradient_alive,
        gradient_agrees: measured value, bound, verdict and meaning of each. Differences of scores are
        in units of the card's score range.
    """
    batch = torch.stack(list(images))
    low, high = model.spec.score_range
    probe = Probe(model, (draws or 1) if model.is_stochastic else None)
    try:
        first = probe.scores(batch)
    except AttackFailed as error:
        return {"finite_scores": Check(None, 0, False, str(error))}
    checks = {"finite_scores": _at_most(0.0, 0, "number of images whose score is not finite")}
    outside = torch.maximum(low - first, first - high).clamp_min(0).max()
    checks["score_range"] = _at_most(
        float(outside) / (high - low), 0.5, "largest distance of a score from the card's score range"
    )
    again = probe.scores(batch)
    checks["repeatable"] = _at_most(
        float((again - first).abs().max()) / (high - low), 0, "largest difference between two evaluations"
    )
    if probe.draws is None:
        alone = score(model, batch, chunk=1)
        checks["batch_independent"] = _at_most(
            float((alone - first).abs().max()) / (high - low),
            1e-4,
            "largest difference between an image alone and in a batch",
        )
    else:
        checks["batch_independent"] = _at_most(0, 1e-4, "a stochastic model is given one image at a time")
    try:
        gradients = probe.gradients(batch)
    except AttackFailed as error:
        checks["gradient_finite"] = Check(None, 0, False, str(error))
        return checks
    checks["gradient_finite"] = _at_most(0.0, 0, "number of input gradients that are not finite")
    dead = (gradients.flatten(1) == 0).all(dim=1)
    checks["gradient_alive"] = _at_most(
        float(dead.double().mean()), 0, "share of images whose input gradient is exactly zero"
    )
    checks["gradient_agrees"] = _gradient_agrees(probe, batch)
    return checks


class Probe(NamedTuple):
    """Evaluates a model as the harness does."""

    model: QualityModel
    draws: int | None
    """None for a deterministic model."""

    def scores(self, batch: Tensor) -> Tensor:
        """Return scores (B,) of images (B, 3, H, W)."""
        if self.draws is None:
            return score(self.model, batch, chunk=len(batch))
        values = [expected_score(self.model, image, self._seeds(i)) for i, image in enumerate(batch)]
        return torch.tensor(values, dtype=torch.float64)

    def gradients(self, batch: Tensor) -> Tensor:
        """Return input gradients (B, 3, H, W), by the same draws as the scores."""
        if self.draws is None:
            return score_and_gradient(self.model, batch, chunk=len(batch)).gradients
        pairs = enumerate(batch)
        return torch.stack(
            [expected_score_and_gradient(self.model, image, self._seeds(i))[1] for i, image in pairs]
        )

    def _seeds(self, i: int) -> tuple[int, ...]:
        return draw_seeds(0, str(i), ("check",), self.draws or 1)


def _gradient_agrees(probe: Probe, batch: Tensor, directions: int = 4) -> Check:
    """Compare the gradient with central differences along random signs, PROBE in every pixel."""
    inside = batch.clamp(PROBE, 1 - PROBE)
    gradients = probe.gradients(inside)
    generator = torch.Generator().manual_seed(0)
    measured, predicted = [], []
    for _ in range(directions):
        signs = torch.randint(0, 2, batch.shape[1:], generator=generator).to(batch) * 2 - 1
        # Rounding could leave the box by one unit in the last place.
        up = probe.scores((inside + PROBE * signs).clamp(0, 1))
        down = probe.scores((inside - PROBE * signs).clamp(0, 1))
        measured.append((up - down) / (2 * PROBE))
        predicted.append((gradients * signs).flatten(1).sum(dim=1).double().cpu())
    difference, slope = torch.cat(measured), torch.cat(predicted)
    scale = max(float(difference.norm()), float(slope.norm()))
    if not scale:
        return Check(None, 0.5, False, "neither the gradient nor finite differences see any change")
    error = float((difference - slope).norm()) / scale
    return _at_most(error, 0.5, "relative difference between the gradient and finite differences")


def _at_most(value: float, threshold: float, detail: str) -> Check:
    # A NaN fails the comparison, as it should.
    return Check(None if math.isnan(value) else value, threshold, value <= threshold, detail)
