"""One model's stored rows as vectors over images, with all that is needed to judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from iqa_harness.measures.bootstrap import Bootstrap, Replicates
from iqa_harness.measures.correlation import (
    MIN_FIT,
    Fit,
    Metric,
    Value,
    Vector,
    fit_logistic,
    plcc,
    srocc,
)
from iqa_results import RunManifest


class AttackKey(NamedTuple):
    """What names the result of one attack in a table."""

    attack: str
    objective: str
    norm: str
    epsilon: float
    steps: int


KEPT = 512
"""Estimates remembered at a time; one holds the draws of a bootstrap, ten kilobytes."""

NOTHING = AttackKey("", "", "none", 0.0, 0)
"""Of a row that belongs to no attack."""


@dataclass(frozen=True)
class Attacked:
    """One attack's result on all images, in evaluation order."""

    score: Vector
    score_8bit: Vector
    final: bool
    rows: pd.DataFrame
    """The stored rows, in that order."""


class Hole(NamedTuple):
    """A row that has no value: some or all images were not attacked."""

    reason: str
    final: bool


class Estimated(NamedTuple):
    """A metric of one vector of scores, with its replicates."""

    value: Value
    replicates: Replicates


@dataclass(frozen=True)
class Judged:
    """One model's clean scores and everything that is needed to judge attacked ones."""

    model: str
    ids: tuple[str, ...]
    mos: Vector
    clean: Vector
    clean_rows: pd.DataFrame
    score_range: tuple[float, float]
    """Ends of the card's score range."""
    unit_mos: Vector
    """Labels on [0, 1], as objectives see them."""
    fit: Fit
    fitted_on: str
    """Split whose clean scores the logistic was fitted on."""
    fitted_images: int
    mapping: str
    bootstrap: Bootstrap
    _known: dict[tuple[Metric, bytes], Estimated] = field(default_factory=dict, repr=False)
    """The last KEPT estimates: a worst case is judged anew for every row it appears in."""

    def mapped(self, scores: Vector, metric: Metric) -> Vector:
        """Return scores as the metric takes them: raw for srocc, through the frozen logistic for plcc."""
        logistic = self.fit.logistic
        return logistic(scores) if metric == "plcc" and logistic else scores

    def value(self, scores: Vector, metric: Metric) -> Value:
        """Return the metric of raw scores (n,)."""
        if metric == "srocc":
            return srocc(scores, self.mos)
        return plcc(self.mapped(scores, metric), self.mos, mapped=self.fit.logistic is not None)

    def estimate(self, scores: Vector, metric: Metric) -> Estimated:
        """Return the metric of raw scores (n,) and its replicates."""
        key = (metric, scores.tobytes())
        if key not in self._known:
            value = self.value(scores, metric)
            mapped = np.asarray(self.mapped(scores, metric))
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = Estimated(value, self.bootstrap.replicates(value, mapped, metric))
        return self._known[key]

    def clean_estimate(self, metric: Metric) -> Estimated:
        """Return the metric of the clean scores."""
        return self.estimate(self.clean, metric)


def judge(
    model: str, clean: pd.DataFrame, rows: pd.DataFrame, manifest: RunManifest, *, resamples: int
) -> Judged:
    """Return what one model is judged by.

    Args:
        model: its name in the run.
        clean: its rows without attack on the evaluated images, in evaluation order.
        rows: all its rows.
        manifest: the run's.
        resamples: draws of the bootstrap.
    """
    validation = rows[(rows["attack"] == "clean") & (rows["split"] == "val")]
    if any(c.split == "val" and c.model == model and c.status != "done" for c in manifest.cells):
        validation = validation.iloc[:0]  # fitted on all of them or not at all
    on_val = manifest.data.split != "val" and len(validation) >= MIN_FIT
    fitted_on = "val" if on_val else f"the attacked {manifest.data.split} images, clean"
    on = validation if on_val else clean
    fit = fit_logistic(column(on, "clean_score"), column(on, "mos"))
    mos = column(clean, "mos")
    card = next(m.card for m in manifest.models if m.name == model)
    return Judged(
        model=model,
        ids=tuple(clean["image_id"]),
        mos=mos,
        clean=column(clean, "clean_score"),
        clean_rows=clean,
        score_range=range_of(card),
        unit_mos=_unit(mos, manifest.data.card.get("mos_range")),
        fit=fit,
        fitted_on="val" if on_val else manifest.data.split,
        fitted_images=len(on),
        mapping=f"logistic on {fitted_on}" if fit.logistic else "none",
        bootstrap=Bootstrap(mos, tuple(clean["reference"]), seed=manifest.seed, resamples=resamples),
    )


def _unit(mos: Vector, ends: Any) -> Vector:
    low, high = ends or (mos.min(), mos.max())
    unit: Vector = (mos - low) / ((high - low) or 1.0)
    return unit


def range_of(card: dict[str, Any]) -> tuple[float, float]:
    """Return the ends of the score range of a model's card as stored."""
    low, high = card.get("score_range") or (0.0, 1.0)
    return float(low), float(high)


def attack_vectors(
    rows: pd.DataFrame, ids: Sequence[str]
) -> tuple[dict[AttackKey, Attacked], dict[AttackKey, Hole]]:
    """Collect the rows of every attack into vectors; what does not cover all images is a hole."""
    attacked: dict[AttackKey, Attacked] = {}
    holes: dict[AttackKey, Hole] = {}
    expected = np.asarray(ids, dtype=object)
    ordered = rows.sort_values("position", kind="stable")
    for name, group in ordered.groupby(list(AttackKey._fields), sort=True, observed=True):
        key = AttackKey._make(cast("tuple[Any, ...]", name))
        final = bool(group["final"].all())
        if not np.array_equal(group["image_id"].to_numpy(dtype=object), expected):
            missing = len(set(ids) - set(group["image_id"]))
            reason = lost_images(missing, len(ids)) if missing else "images are there twice or are others"
            holes[key] = Hole(reason, final)
            continue
        attacked[key] = Attacked(column(group, "adv_score"), column(group, "adv_score_8bit"), final, group)
    return attacked, holes


def lost_images(missing: int, expected: int) -> str:
    """Say why a value over all images does not exist."""
    return f"{missing} of {expected} images are missing (cells failed or not run)"


def column(frame: pd.DataFrame, name: str) -> Vector:
    """Return a column as float64, null as NaN."""
    return frame[name].to_numpy(dtype=np.float64)
