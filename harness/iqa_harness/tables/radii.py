"""How small a change reaches a goal: radii of images from stored rows, their median, the share moved.

An attack that looks for the smallest radius has no fixed one, and its examples just reach their goal: they
are kept out of the worst cases. Whether an example reaches it is judged anew, from stored scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from iqa_attacks import MinimumNorm, spread_of
from iqa_harness.measures.bootstrap import Bootstrap, widened
from iqa_harness.measures.correlation import Interval, Value, Vector
from iqa_harness.measures.model_scores import Attacked, AttackKey, Hole, Judged, attack_vectors, column
from iqa_harness.tables.measure_rows import cost_rows
from iqa_results import Measure, RunManifest
from iqa_suites import parse_suite

POINTS = 200
"""Points of the curve of an attack and objective at the most; of more images a part is drawn."""

FRAME = (
    "model", "attack", "objective", "image_id", "norm", "radius", "largest", "kept_8bit", "gradients",
)  # fmt: skip
"""Columns of `radii_frame`."""

SIZES = {"inf": "linf", "2": "l2", "rmse": "rmse"}
"""Column of the measured size by norm."""


class Radii(NamedTuple):
    """What the rows of one attack and objective say of every image."""

    radius: Vector
    """(n,) in evaluation order: the smallest size found that reaches the goal, inf where none does."""
    kept_8bit: Vector
    """(n,) bool: whether the example reaches its goal rounded to 8 bits, too."""


def radius_attacks(manifest: RunManifest, model: str) -> dict[str, MinimumNorm]:
    """Return the attacks planned on a model that look for the smallest radius, by name.

    Raises:
        BadSuite: the manifest's suite has such an attack and is none of this version.
    """
    if MinimumNorm.kind not in manifest.suite_text:
        return {}
    suite = parse_suite(manifest.suite_text, f"suite of run {manifest.run}")
    planned = {cell.attack for cell in manifest.cells if cell.model == model}
    chosen = {name: s for name, s in suite.radius_attacks.items() if name in planned}
    made = {name: s.attack(s.epsilons[-1], suite.seed) for name, s in chosen.items()}
    return {name: attack for name, attack in made.items() if isinstance(attack, MinimumNorm)}


def without_radii(manifest: RunManifest, names: Mapping[str, MinimumNorm]) -> RunManifest:
    """Return a manifest without the cells of such attacks: they belong to no ball of the tables."""
    if not names:
        return manifest
    kept = tuple(cell for cell in manifest.cells if cell.attack not in names)
    return manifest.model_copy(update={"cells": kept})


def image_radii(attack: MinimumNorm, found: Attacked, objective: str, clean: Vector, mos: Vector) -> Radii:
    """Return the radii of all images.

    Args:
        attack: as the suite has it.
        found: its rows of the objective.
        objective: which.
        clean: (n,) clean scores, in evaluation order.
        mos: (n,) labels.
    """
    scores = torch.tensor(clean, dtype=torch.float64)
    spread = spread_of(scores) or None
    aimed = replace(attack, objectives=(objective,), spread=spread)
    fall, rise = aimed.goals(scores, torch.tensor(mos, dtype=torch.float64))[objective].numpy().T

    def reached(score: Vector) -> Vector:
        moved: Vector = (clean - score >= fall) | (score - clean >= rise)
        return moved

    size = column(found.rows, SIZES[attack.threat.norm])
    return Radii(np.where(reached(found.score), size, np.inf), reached(found.score_8bit))


def median_interval(radius: Vector, bootstrap: Bootstrap) -> Interval:
    """Return the ends of the 95 % interval of a median of radii, inf where it is beyond the largest."""
    low, high = widened(0.95, bootstrap.units)
    draws = bootstrap.medians(radius)
    # No mean of two draws: one of them may be inf.
    ends = (np.quantile(draws, low, method="lower"), np.quantile(draws, high, method="higher"))
    return Interval(*map(float, ends))


def radii_frame(rows: pd.DataFrame, manifest: RunManifest, model: str) -> pd.DataFrame:
    """Return what such attacks found on a model's images, one row an (attack, objective, image).

    Args:
        rows: all stored rows of the model.
        manifest: the run's.
        model: its name in the run.

    Returns:
        model, attack, objective, image_id, norm; radius, inf where none was found up to `largest`; whether
        the example reaches its goal in 8 bits, too; gradients spent on the image, for all objectives.
        Nothing of an attack that is not done on all images.
    """
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == manifest.data.split)].sort_values("position")
    found, _ = attack_vectors(rows[rows["attack"] != "clean"], list(clean["image_id"]))
    scores, mos = column(clean, "clean_score"), column(clean, "mos")
    parts = []
    for name, attack in radius_attacks(manifest, model).items():
        for key, each in found.items():
            if key.attack == name and key.objective in attack.objectives and len(clean):
                radius, kept = image_radii(attack, each, key.objective, scores, mos)
                parts.append(
                    pd.DataFrame(
                        {
                            "model": model,
                            "attack": name,
                            "objective": key.objective,
                            "image_id": list(each.rows["image_id"]),
                            "norm": key.norm,
                            "radius": radius,
                            "largest": key.epsilon,
                            "kept_8bit": kept,
                            "gradients": list(each.rows["backwards"]),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(FRAME))


def radius_rows(judged: Judged, rows: pd.DataFrame, attacks: Mapping[str, MinimumNorm]) -> Iterator[Measure]:
    """Yield the measures of every such attack of a run on one model, and what it cost.

    Args:
        judged: the model.
        rows: its stored rows of these attacks.
        attacks: by name.
    """
    found, holes = attack_vectors(rows, judged.ids)
    own = {key: each for key, each in found.items() if key.attack in attacks}
    for name, attack in attacks.items():
        for objective in (objective.name for objective in attack.create_objectives()):
            threat = attack.threat
            key = AttackKey(name, objective, threat.norm, threat.epsilon, attack.effort.steps)
            if key in own:
                pairs = _measures(judged, attack, own[key], objective)
            else:
                hole = holes.get(key, Hole("no results (cells failed or not run)", True))
                pairs = iter([(key.epsilon, "radius_median", Value.none(hole.reason))])
            for epsilon, measure, value in pairs:
                place = key._replace(epsilon=epsilon)
                yield Measure(judged.model, *place, True, measure, value.value, value.undefined)
    yield from cost_rows(judged, own)


def _measures(
    judged: Judged, attack: MinimumNorm, found: Attacked, objective: str
) -> Iterator[tuple[float, str, Value]]:
    """Yield radius, name and value of each measure; of the curve the radius is its own."""
    largest = attack.threat.epsilon
    radius, kept = image_radii(attack, found, objective, judged.clean, judged.mos)
    low, high = median_interval(radius, judged.bootstrap)
    for name, value in (("median", float(np.median(radius))), ("low", low), ("high", high)):
        yield largest, f"radius_{name}", _within(value)
    is_found = np.isfinite(radius)
    yield largest, "radius_missed", Value.of(float(1 - is_found.mean()))
    nothing = Value.none("no image reached its goal")
    yield largest, "radius_kept_8bit", Value.of(float(kept[is_found].mean())) if is_found.any() else nothing
    for size in _curve(radius[is_found]):
        yield size, "moved_share", Value.of(float((radius <= size).mean()))


def _within(radius: float | None) -> Value:
    if radius is None or not math.isfinite(radius):
        return Value.none("beyond the largest radius that was tried")
    return Value.of(radius)


def _curve(radius: Vector) -> Vector:
    """Return the radii at which a curve has its points."""
    distinct = np.unique(radius)
    if len(distinct) > POINTS:
        distinct = distinct[np.unique(np.linspace(0, len(distinct) - 1, POINTS).round().astype(int))]
    return distinct
