"""Stored rows against the plan, and against each other: no model and no pixel is needed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from iqa_attacks import HIGHEST_SEEN, LOWEST_SEEN, ClosedLoop, MinimumNorm
from iqa_harness.cells.compute import OF_CLEAN, attack_columns, image_columns
from iqa_harness.cells.plan import Cell
from iqa_harness.data.image_set import ImageSet
from iqa_harness.evidence.judgement import Truths
from iqa_harness.machine.runtime import Runtime
from iqa_harness.measures.correlation import Vector, plcc, srocc
from iqa_harness.measures.model_scores import column, range_of
from iqa_harness.verification.finding import Finding, cell_name, row_name, shown
from iqa_results import ROW, RunManifest

BUDGET_SLACK = 1e-6
"""Slack on a measured radius: rounding of float32 pixels."""
SCORE_SLACK = 1e-4
"""Largest difference of two evaluations of one image, in score ranges: rounding of float32."""
LOSS_SLACK = 1e-3
SSIM_SLACK = 1e-5
"""Slack on a stored similarity: rounding of float32 and of the floor, which rows name with six digits."""

UNPLANNED = ("device", "seconds", "harness")
"""Columns that say where, when and by what a row was made: a row made again has others."""
_NUMBERS = tuple(c.name for c in ROW.columns if c.type == pa.float64())


def reported(cell: Cell) -> list[tuple[str, int]]:
    """Return objective and steps of every row a cell has of each image."""
    if cell.attack is None:
        return [("none", 0)]
    steps = sorted({*getattr(cell.attack, "report_steps", ()), cell.attack.effort.steps})
    names = [objective.name for objective in cell.attack.create_objectives()]
    objectives = [*names, LOWEST_SEEN, HIGHEST_SEEN] if cell.objective is None else [cell.objective]
    return [(objective, n) for objective in objectives for n in steps]


def rows_differ(cell: Cell, part: pa.Table, images: ImageSet) -> list[Finding]:
    """Compare a cell's stored rows with what its plan says of them before anything is computed.

    That is: which rows there are, everything that names image, attack and data, what a clean row holds
    by its meaning, and that every number is one.

    Args:
        cell: as planned, under the key it is stored by.
        part: its rows.
        images: the evaluated images of its split.
    """
    rows = part.to_pylist()
    findings = _rows_missing(cell, rows)
    offsets = range(min(cell.count, len(images) - cell.first))
    of_attack = attack_columns(cell, Runtime())
    planned = [of_attack | image_columns(cell, images, i) for i in offsets]
    differing: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
    for row in rows:
        offset = row["position"] - cell.first
        if offset in offsets:
            for name, detail in chain(_unlike_plan(row, planned[offset]), _impossible(cell, row)):
                differing.setdefault(name, []).append((row, detail))
    for found in differing.values():
        row, detail = found[0]
        more = f"; so it is, or alike, in {len(found) - 1} more rows of the cell" if len(found) > 1 else ""
        findings.append(Finding("row", f"{cell.label}, {row_name(row)}", detail + more))
    return findings


def _rows_missing(cell: Cell, rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Say which rows of a cell are not there, are there twice, or belong to no cell like it."""
    where = cell_name(cell)
    stored = Counter((row["objective"], row["steps"], row["position"]) for row in rows)
    findings = []
    for objective, steps in reported(cell):
        counts = [stored[objective, steps, cell.first + i] for i in range(cell.count)]
        lost, twice = counts.count(0), sum(count > 1 for count in counts)
        for count, what in ((lost, "not stored"), (twice, "stored twice")):
            if count:
                detail = f"{count} of {cell.count} rows of {objective}, {steps} steps, are {what}"
                findings.append(Finding("cell", where, detail))
    planned = {(o, s, cell.first + i) for o, s in reported(cell) for i in range(cell.count)}
    strange = sorted(place for place in stored if place not in planned)
    if strange:
        objective, steps, position = strange[0]
        detail = (
            f"{len(strange)} stored rows are none of its plan, the first of {objective}, {steps} steps, "
            f"position {position}"
        )
        findings.append(Finding("cell", where, detail))
    return findings


def _unlike_plan(row: Mapping[str, Any], planned: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield column and detail of everything in a row that is not as planned, and of what is no number."""
    for name, value in planned.items():
        if name not in UNPLANNED and row[name] != value:
            yield name, f"{name}: {shown(row[name])} is stored, the plan says {shown(value)}"
    for name in _NUMBERS:
        if row[name] is not None and not math.isfinite(row[name]):
            yield name, f"{name}: {row[name]} is stored, which is no number"


def _impossible(cell: Cell, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield column and detail of everything in a row that no row of its kind can hold."""
    final = cell.attack is None or row["steps"] == cell.attack.effort.steps
    if row["final"] != final:
        yield "final", f"final: {row['final']} is stored of {row['steps']} steps"
    if (row["loss"] is None) != (row["objective"] in (LOWEST_SEEN, HIGHEST_SEEN, "none")):
        yield "loss", f"loss: {row['loss']} is stored of objective {row['objective']}"
    if (row["adv_score_jpeg"] is None) == bool(cell.jpeg_qualities):
        yield "adv_score_jpeg", f"adv_score_jpeg: {row['adv_score_jpeg']} is stored, the suite says otherwise"
    if row["gradient_l1"] is not None and not cell.gradient:
        yield "gradient_l1", "gradient_l1: a value is stored where none is measured"
    if not 0 <= row["zero_gradients"] <= row["backwards"] <= row["forwards"]:
        yield "backwards", "zero_gradients, backwards and forwards: more are stored than can be"
    if cell.surrogate and row["forwards"]:
        yield "forwards", "forwards: a transfer's examples are paid for in the surrogate's cell"
    if cell.attack is not None:
        if not (0 <= row["best_step"] <= row["steps"] and 0 <= row["best_restart"] < max(1, row["restarts"])):
            yield "best_step", "best_restart, best_step: no such restart or iterate"
        return
    yield from _unlike_clean(row)


def _unlike_clean(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield column and detail of everything that a row without attack cannot hold."""
    for name, value in OF_CLEAN.items():
        if row[name] != value:
            yield name, f"{name}: {shown(row[name])} is stored of an image without attack"
    for name in ("adv_score", "adv_score_8bit", "attack_score"):
        if row[name] != row["clean_score"]:
            yield name, f"clean_score and {name} differ"


def rows_disagree(
    model: str,
    rows: pd.DataFrame,
    card: Mapping[str, Any],
    manifest: RunManifest,
    compressed: Collection[str] = frozenset(),
) -> list[Finding]:
    """Compare the stored rows of a model with each other and with their own radius.

    Args:
        model: its name in the run.
        rows: all its rows.
        card: its card as the run has it.
        manifest: the run's.
        compressed: attacks of the suite whose losses are of scores through JPEG.
    """
    low, high = range_of(dict(card))
    span = high - low
    attacked = rows[rows["attack"] != "clean"]
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == manifest.data.split)]
    known = dict(zip(clean["image_id"], clean["clean_score"], strict=True))
    # Every comparison is written for what is allowed: a NaN, which is never in order, is then found.
    number = {name: column(attacked, name) for name in _NUMBERS}
    checks: list[tuple[Truths, str]] = []
    norm = attacked["norm"].to_numpy()
    size = np.where(norm == "2", number["l2"], np.where(norm == "rmse", number["rmse"], number["linf"]))
    checks.append((~(size <= number["epsilon"] + BUDGET_SLACK), "lies outside its radius"))
    floor = np.array([_ssim_floor(threat) for threat in attacked["threat"]], dtype=np.float64)
    alike = np.isnan(floor) | (number["ssim"] >= floor - SSIM_SLACK)
    checks.append((~alike, "has less similarity than its threat model asks"))
    has_clean = np.array([image in known for image in attacked["image_id"]], dtype=np.bool_)
    theirs = np.array([known.get(image, math.nan) for image in attacked["image_id"]], dtype=np.float64)
    apart = ~(np.abs(number["clean_score"] - theirs) <= SCORE_SLACK * span)
    checks.append((has_clean & apart, "has another clean score than the image's clean row"))
    own = (attacked["kind"] != "transfer").to_numpy() & ~(number["projection_moved"] > BUDGET_SLACK)
    if not card.get("is_stochastic"):
        checks += _out_of_order(attacked, number["attack_score"], SCORE_SLACK * span)
        checks += _unlike_set(attacked, number)
        moved = ~(np.abs(number["adv_score"] - number["attack_score"]) <= SCORE_SLACK * span)
        checks.append((own & moved, "has another score than the attack saw for the same pixels"))
        mos = _unit_mos(number["mos"], manifest)
        unit, before = (number["adv_score"] - low) / span, (number["clean_score"] - low) / span
        losses = {"raise": unit, "lower": -unit, "drift": (unit - before) ** 2}
        losses |= {"mse": (unit - mos) ** 2} if mos is not None else {}
        sized = (attacked["kind"] == MinimumNorm.kind).to_numpy()
        plain = own & ~sized & ~attacked["attack"].isin(list(compressed)).to_numpy()
        reached = sized & (number["loss"] >= -number["epsilon"] - BUDGET_SLACK)
        off = ~(np.abs(number["loss"] + size) <= BUDGET_SLACK)
        checks.append((own & reached & off, "has a loss that is not minus its size"))
        for objective, expected in losses.items():
            off = ~(np.abs(number["loss"] - expected) <= LOSS_SLACK)
            mine = plain & (attacked["objective"] == objective).to_numpy()
            checks.append((mine & off, f"has a loss of {objective} that does not follow from its score"))
    return [
        Finding("row", f"{model}, {row_name(row)}", what)
        for broken, what in checks
        if broken.any()  # no rows are made to records slowly too
        for row in attacked[broken].to_dict("records")
    ]


def _out_of_order(attacked: pd.DataFrame, score: Vector, slack: float) -> Iterator[tuple[Truths, str]]:
    """Yield rows whose score is beyond the ends of all that their attack saw, and ends that draw together.

    What an objective found lies between the lowest and the highest score its attack saw on that image, and
    more steps have seen what fewer saw. Transfers have no ends of their own.
    """
    names = ("attack", "norm", "epsilon", "position", "steps")
    places = list(zip(*(attacked[name] for name in names), strict=True))
    objectives = attacked["objective"].to_numpy()
    for end, sign, word in ((LOWEST_SEEN, 1.0, "lowest"), (HIGHEST_SEEN, -1.0, "highest")):
        mine = np.flatnonzero(objectives == end)
        ends = {places[i]: sign * score[i] for i in mine}
        beyond = np.array([ends.get(place, -math.inf) for place in places], dtype=np.float64)
        yield ~(sign * score >= beyond - slack), f"has a score beyond the {word} its attack saw on the image"
        narrower = np.zeros(len(places), dtype=np.bool_)
        before: dict[tuple[Any, ...], float] = {}
        for i in sorted(mine, key=lambda i: places[i]):
            former = before.get(places[i][:-1], math.inf)
            narrower[i] = not sign * score[i] <= former + slack
            before[places[i][:-1]] = min(former, sign * score[i])
        yield narrower, f"is the {word} score seen in more steps, and fewer saw one beyond it"


def _unlike_set(attacked: pd.DataFrame, number: Mapping[str, Vector]) -> Iterator[tuple[Truths, str]]:
    """Yield rows of a closed loop whose loss is not minus the correlation of all scores it saw."""
    loops = attacked.assign(place=range(len(attacked)))[attacked["kind"] == ClosedLoop.kind]
    for metric, measure in (("srocc", srocc), ("plcc", plcc)):
        off = np.zeros(len(attacked), dtype=np.bool_)
        sets = loops[loops["objective"] == metric].groupby(["epsilon", "steps", "attack"], observed=True)
        for _, group in sets["place"]:
            at = group.to_numpy()
            value = measure(number["attack_score"][at], number["mos"][at]).value or 0.0
            off[at] = ~(np.abs(number["loss"][at] + value) <= LOSS_SLACK)
        yield off, f"has a loss of {metric} that is not minus the {metric.upper()} of the scores of its set"


def _ssim_floor(threat: str) -> float:
    """Return the lowest similarity that a row's `threat` admits, NaN if it names none."""
    found = re.fullmatch(r"ssim>=([0-9.eE+-]+)", threat)
    return float(found[1]) if found else math.nan


def _unit_mos(mos: Vector, manifest: RunManifest) -> Vector | None:
    ends = manifest.data.card.get("mos_range")
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = (float(str(end)) for end in ends)
    return (mos - low) / (high - low)
