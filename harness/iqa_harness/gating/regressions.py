"""Did robustness get worse? Two runs of one suite on one data set, compared image by image.

A value is a regression only if it fell by more than the tolerance AND the paired bootstrap says that it
fell at all: an upper bound of the change lies below 0. The tolerance says what is worth stopping for, the
bound what is not chance; a measured noise floor, where there is one, raises the tolerance. The bound holds
for all gated values together (Bonferroni): with no change, one run in twenty is called worse at the most.

Few images leave a wide bound, and a fall that lies within it is neither found nor excluded. So every value
says from which fall on it would be called worse; where that is more than the fall that must not be missed,
the value is undecided, and the gate passes nothing. Values that did not move at all are decided.

A model whose hash is the baseline's is the same function on the same images: no drawing of images explains a
change, only arithmetic does, whose noise is measured. So a fall beyond the tolerance is worse whatever the
bound. A rise beyond it is unexplained: the model cannot have become more robust, the attacks found less, or
scores are computed otherwise. It passes as little as a fall.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from iqa_harness.errors import NotComparable, RunError
from iqa_harness.evidence.flags import VERDICTS
from iqa_harness.gating.baselines import Standpoint
from iqa_harness.gating.comparable import require_comparable
from iqa_harness.gating.outcome import Comparison, Decision, Outcome
from iqa_harness.measures.bootstrap import RESAMPLES, Bootstrap, Replicates
from iqa_harness.measures.correlation import METRICS, Metric, plcc, srocc
from iqa_harness.tables.minima import is_member, lowest_member
from iqa_results import NoiseFloor

TOLERANCE = 0.01
"""Fall of a correlation that is worth stopping for, if nothing else is said."""

MUST_DETECT = 0.1
"""Fall of a correlation that must not be missed, if nothing else is said."""
FALSE_ALARMS = 0.05
"""Share of runs without a change that chance may call worse, all gated values together."""
GATED = ("clean", "suite_min", "composed")
"""Rows that are gated; single attacks are compared and shown, and gated on demand."""
BEYOND = 20
"""Draws beyond the bound, for which resamples are raised where many values share the false alarms."""


def find_regressions(
    before: Standpoint,
    after: Standpoint,
    *,
    tolerance: float = TOLERANCE,
    must_detect: float | None = None,
    metrics: Sequence[Metric] = ("srocc",),
    every_attack: bool = False,
    resamples: int | None = None,
    undefined_ok: bool = False,
) -> Outcome:
    """Compare a run with a baseline, value by value.

    Args:
        before: the baseline.
        after: the run.
        tolerance: fall of a correlation that is let pass; a measured noise floor above it counts instead.
        must_detect: fall that must not be missed: a gated value where no smaller one would be called worse
            is undecided. MUST_DETECT, or the tolerance where that is more, if left out.
        metrics: what to compare.
        every_attack: gate every attack by itself too; more values share the allowed false alarms.
        resamples: draws of the bootstrap, seeded by the baseline's seed; as many as the bound needs if
            left out.
        undefined_ok: to show a baseline, not to gate with it: let gated values without a value pass.

    Raises:
        NotComparable: see `require_comparable`; or a gated value of the baseline is undefined, so that
            nothing could be worse.
        BadPart: see `require_comparable`.
        RunError: a tolerance that is no number from 0 on, or a fall to detect below it.
    """
    if not (0 <= tolerance < math.inf):
        raise RunError(f"a tolerance is a number from 0 on, not {tolerance}")
    must_detect = max(MUST_DETECT, tolerance) if must_detect is None else must_detect
    if not (tolerance <= must_detect < math.inf):
        raise RunError(
            f"a fall that must be detected is a number from the tolerance {tolerance} on, not {must_detect}"
        )
    notes = require_comparable(before, after)
    lost = [] if undefined_ok else undefined_values(before, metrics, every_attack=every_attack)
    if lost:
        raise NotComparable(f"the baseline has no value of {lost[0]}: nothing could be worse")
    floors = {(f.model, f.row, f.attack, f.objective, f.metric): f.floor for f in before.record.noise}
    names = before.scores[["row", "attack", "objective"]].drop_duplicates()
    values = len(GATED) + every_attack * int((names["row"] == "attack").sum())
    share = FALSE_ALARMS / max(1, values * len(metrics) * len(before.record.models))
    resamples = resamples or max(RESAMPLES, math.ceil(BEYOND / share))
    comparisons: list[Comparison] = []
    for model in before.record.models:
        now = next(m for m in after.record.models if m.name == model.name)
        comparisons.append(_verdicts(model.name, model.verdict, now.verdict, now.flags))
        bootstrap = _bootstrap(before, model.name, resamples)
        for metric in metrics:
            old = _values(before, model.name, metric, bootstrap)
            new = _values(after, model.name, metric, bootstrap)
            for place in old:
                known: dict[str, Any] = {
                    "model": model.name,
                    "row": place[0],
                    "metric": metric,
                    "epsilon": 0.0 if place[0] == "clean" else before.record.main_epsilon,
                    "tolerance": max(tolerance, floors.get((model.name, *place, metric), 0.0)),
                    "gated": every_attack or place[0] in GATED,
                }
                held = _Held(share, must_detect, same=now.sha256 == model.sha256)
                comparisons.append(_compare(known, old[place], new.get(place), held))
    return Outcome(comparisons, notes, must_detect, before, after)


def undefined_values(side: Standpoint, metrics: Sequence[Metric], *, every_attack: bool = False) -> list[str]:
    """Name the gated values of one side that do not exist, with the reason."""
    lost = []
    for model in side.record.models:
        bootstrap = _bootstrap(side, model.name, 1)
        for metric in metrics:
            for place, value in _values(side, model.name, metric, bootstrap).items():
                point = value.replicates.point
                if point.value is None and (every_attack or place[0] in GATED):
                    lost.append(f"{model.name} {place[0]} in {metric.upper()} ({point.undefined})")
    return lost


class _Value(NamedTuple):
    replicates: Replicates
    member: tuple[str, str]
    """Attack and objective to name."""
    images: int
    interval: str
    seconds: float
    """What its draws took."""


class _Held(NamedTuple):
    """What a value is held against."""

    share: float
    """Of false alarms that it may raise."""
    must_detect: float
    """Fall, of a model that is the same also rise, that must not be missed."""
    same: bool
    """Whether the model is the baseline's, by its hash."""


Place = tuple[str, str, str]
"""row, attack, objective as stored."""


def _bootstrap(side: Standpoint, model: str, resamples: int) -> Bootstrap:
    """Return the draws of one model's images, which both sides share."""
    rows = side.scores[side.scores["model"] == model]
    clean = rows[rows["row"] == "clean"].sort_values("image_id")
    mos = clean["mos"].to_numpy(dtype=np.float64)
    return Bootstrap(mos, tuple(clean["reference"]), seed=side.record.seed, resamples=resamples)


def _values(side: Standpoint, model: str, metric: Metric, bootstrap: Bootstrap) -> dict[Place, _Value]:
    rows = side.scores[side.scores["model"] == model]
    mos = bootstrap.mos
    found: dict[Place, _Value] = {}
    for (row, attack, objective), group in rows.groupby(["row", "attack", "objective"], sort=False):
        if row == "composed" and objective != metric:
            continue
        began = time.perf_counter()
        column = "score" if metric == "srocc" else "mapped"
        values = group.sort_values("image_id")[column].to_numpy(dtype=np.float64)
        point = srocc(values, mos) if metric == "srocc" else plcc(values, mos)
        replicates = bootstrap.replicates(point, values, metric)
        named = ("", "") if row == "composed" else (str(attack), str(objective))
        took = time.perf_counter() - began
        found[str(row), *named] = _Value(replicates, named, len(mos), bootstrap.label(), took)
    wanted = side.record.suite_min
    members = {
        place: value.replicates
        for place, value in found.items()
        if place[0] == "attack" and any(is_member(*place[1:], member) for member in wanted)
    }
    if members:
        began = time.perf_counter()
        least, every = lowest_member(members)
        took = time.perf_counter() - began
        found["suite_min", "", ""] = _Value(every, least[1:], len(mos), bootstrap.label(every.method), took)
    return found


def _compare(known: dict[str, Any], old: _Value, new: _Value | None, held: _Held) -> Comparison:
    """Compare a value before and after.

    Args:
        known: fields of the comparison that do not depend on the values.
        old: of the baseline.
        new: of the run, None if it has none.
        held: what the change is held against.
    """
    began = time.perf_counter()
    attack, objective = (new or old).member
    common: dict[str, Any] = {**known, "attack": attack, "objective": objective, "images": old.images}
    was = old.replicates.point
    now = new.replicates.point if new else None
    if new is None or now is None or was.value is None or now.value is None:
        why = "not in the run" if now is None else f"undefined: {now.undefined or was.undefined}"
        lost = was.value is not None and known["gated"]
        return Comparison(
            **common,
            before=was.value,
            after=now.value if now else None,
            outcome="regressed" if lost else "undefined",
            reason=why,
        )
    difference = new.replicates - old.replicates
    low, high = difference.interval()
    change = now.value - was.value
    if held.same:
        bound, detectable = None, known["tolerance"]
        outcome, remark = _judged_same(known, change, held.must_detect)
    else:
        bound = difference.interval(confidence=1 - 2 * held.share).high
        detectable = _detectable(difference, change, bound, known["tolerance"])
        outcome, remark = _judged(known, change, low, bound, detectable, held.must_detect)
    span = "no interval" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
    seconds = old.seconds + new.seconds + time.perf_counter() - began
    return Comparison(
        **common, before=was.value, after=now.value, difference=change, low=low, high=high, bound=bound,
        detectable=detectable, interval=old.interval if low is not None else "", outcome=outcome,
        reason=f"{was.value:.3f} -> {now.value:.3f}, {change:+.3f} {span}{remark}", seconds=seconds,
    )  # fmt: skip


def _detectable(difference: Replicates, change: float, bound: float | None, tolerance: float) -> float | None:
    """Return the smallest fall that would be called worse, were the spread of the difference as it is.

    A change is called worse if it lies below -tolerance and its bound below 0, and the bound lies
    `bound - change` above it. Where no draw moved, nothing but the tolerance stands in the way.
    """
    if not np.nan_to_num(difference.draws).any():
        return tolerance
    return None if bound is None else max(tolerance, bound - change)


def _judged_same(known: dict[str, Any], change: float, must_detect: float) -> tuple[Decision, str]:
    """Return what became of a value of a model that is the same, and what a change means."""
    found = f"the attacks found {'less' if change > 0 else 'more'}"
    why = ": the model is the baseline's, " + (
        "scores are computed otherwise" if known["row"] == "clean" else found
    )
    if abs(change) > known["tolerance"]:
        if not known["gated"]:
            return "ok", f"{why}; by itself not gated"
        return ("unexplained" if change > 0 else "regressed"), why
    if known["gated"] and known["tolerance"] > must_detect:
        return "undecided", (
            f": repeated runs lie {known['tolerance']:.3f} apart, --must-detect is {must_detect:.3g}"
        )
    return "ok", ""


def _judged(
    known: dict[str, Any],
    change: float,
    low: float | None,
    bound: float | None,
    detectable: float | None,
    must_detect: float,
) -> tuple[Decision, str]:
    """Return what became of a value, and a remark on it."""
    beyond = change < -known["tolerance"]
    # Too many draws without a value, as where scores have collapsed, leave no bound: that acquits nobody.
    certain = bound is None or bound < 0
    if beyond and bound is None:
        remark = ": too many draws without a value to say that this is chance"
    elif beyond and certain:
        remark = "" if known["gated"] else ": worse, by itself not gated"
    elif beyond:
        remark = ": beyond the tolerance, within chance"
    else:
        remark = ": beyond chance, within the tolerance" if certain else ""
    if known["gated"] and beyond and certain:
        return "regressed", remark
    if change > known["tolerance"] and low is not None and low > 0:
        return "improved", remark
    if known["gated"] and (detectable is None or detectable > must_detect):
        least = "no fall" if detectable is None else f"only a fall of {detectable:.3f} or more"
        return "undecided", (
            f": {least} would be called worse with these images and this noise, --must-detect is "
            f"{must_detect:.3g}"
        )
    return "ok", remark


def _verdicts(model: str, before: str, after: str, flags: Sequence[str]) -> Comparison:
    """A number that is no longer to be believed is worse than a lower one; one never judged is the worst."""
    rank = {str(name): i for i, name in enumerate(VERDICTS)}
    unknown = len(VERDICTS)
    worse = after not in rank or rank[after] > rank.get(before, unknown)
    reason = f"{before} -> {after}" + (f" ({', '.join(flags)})" if flags else "")
    return Comparison(
        model=model, row="verdict", gated=True, detectable=0.0, outcome="regressed" if worse else "ok",
        reason=reason,
    )  # fmt: skip


def noise_floors(sides: Sequence[Standpoint]) -> list[NoiseFloor]:
    """Return the largest difference between any two of several runs that should be equal, value by value.

    Raises:
        NotComparable: fewer than two runs, runs that cannot be compared, or whose scores are all equal.
    """
    if len(sides) < 2:
        raise NotComparable("a noise floor needs at least two runs of the same models")
    for other in sides[1:]:
        require_comparable(sides[0], other)
    place = ["model", "row", "attack", "objective", "image_id"]
    ordered = (side.scores.sort_values(place)[[*place, "score"]] for side in sides)
    scores = [each.reset_index(drop=True) for each in ordered]
    if all(each.equals(scores[0]) for each in scores):
        raise NotComparable(
            "the runs have equal scores, as runs do that share their stored cells: nothing was repeated that "
            "could vary; train the models again with other seeds, or attack them again in another store with "
            "other threads, on another machine"
        )
    return list(_floors(sides))


def _floors(sides: Sequence[Standpoint]) -> Iterator[NoiseFloor]:
    for model in sides[0].record.models:
        bootstrap = _bootstrap(sides[0], model.name, 1)
        for metric in METRICS:
            values = [_values(side, model.name, metric, bootstrap) for side in sides]
            for place in values[0]:
                points = [v[place].replicates.point.value for v in values if place in v]
                defined = [p for p in points if p is not None]
                if len(defined) == len(sides):
                    yield NoiseFloor(
                        model=model.name, row=place[0], attack=place[1], objective=place[2], metric=metric,
                        floor=max(defined) - min(defined), runs=len(sides),
                    )  # fmt: skip
