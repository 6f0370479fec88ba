"""From rows to the table: clean, per attack, the suite's minimum, the composed worst case, intervals.

A value is computed from all evaluated images or not at all: a missing or failed cell leaves an
`undefined` with its reason, never a number from fewer images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from iqa_attacks import HIGHEST_SEEN, LOWEST_SEEN
from iqa_harness.metrics import (
    METRICS,
    MIN_FIT,
    Bootstrap,
    Logistic,
    Metric,
    Value,
    Vector,
    fit_logistic,
    plcc,
    srocc,
)
from iqa_harness.worst_case import Composed, composed_worst_case
from iqa_results import INTERVAL_SCHEMA, ROW_SCHEMA, TABLE_SCHEMA, ResultStore, RunManifest

ENDS = (LOWEST_SEEN, HIGHEST_SEEN)

Record = dict[str, Any]


class RobustnessTable(NamedTuple):
    """What a run amounts to."""

    table: pa.Table
    """TABLE_SCHEMA."""
    intervals: pa.Table
    """INTERVAL_SCHEMA."""


class _Key(NamedTuple):
    attack: str
    objective: str
    norm: str
    epsilon: float
    steps: int


@dataclass(frozen=True)
class _Set:
    """One model's clean scores and everything that is needed to judge attacked ones."""

    model: str
    ids: tuple[str, ...]
    mos: Vector
    clean: Vector
    logistic: Logistic | None
    mapping: str
    bootstrap: Bootstrap

    def mapped(self, scores: Vector, metric: Metric) -> Vector:
        """Return scores as the metric takes them: raw for srocc, through the frozen logistic for plcc."""
        return self.logistic(scores) if metric == "plcc" and self.logistic else scores

    def value(self, scores: Vector, metric: Metric) -> Value:
        """Return the metric of raw scores (n,)."""
        measure = srocc if metric == "srocc" else plcc
        return measure(self.mapped(scores, metric), self.mos)


@dataclass(frozen=True)
class _Attacked:
    """One attack's result on all images, in evaluation order."""

    score: Vector
    score_8bit: Vector
    final: bool


def robustness_table(store: ResultStore, manifest: RunManifest) -> RobustnessTable:
    """Compute a run's table and reachable intervals from its stored parts.

    Raises:
        BadPart: a part the manifest counts as done is damaged.
    """
    table: list[Record] = []
    intervals: list[Record] = []
    for model in manifest.models:
        done = [c.key for c in manifest.cells if c.model == model.name and c.status == "done"]
        rows = store.read_cells(done).to_pandas() if done else ROW_SCHEMA.empty_table().to_pandas()
        table_rows, interval_rows = _of_model(model.name, rows, manifest)
        table += table_rows
        intervals += interval_rows
    return RobustnessTable(
        pa.Table.from_pylist(table, schema=TABLE_SCHEMA),
        pa.Table.from_pylist(intervals, schema=INTERVAL_SCHEMA),
    )


def _of_model(model: str, rows: pd.DataFrame, manifest: RunManifest) -> tuple[list[Record], list[Record]]:
    expected = manifest.data.images
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == manifest.data.split)]
    if len(clean) != expected:
        reason = f"{expected - len(clean)} of {expected} images have no clean score (cells missing)"
        return [
            _record(manifest, model, "clean", metric, clean=Value.none(reason), value=Value.none(reason))
            for metric in METRICS
        ], []
    judged = _judge(model, clean.sort_values("position"), rows, manifest)
    attacked, holes = _vectors(rows[rows["attack"] != "clean"], judged, expected)
    table = [
        _record(manifest, model, "clean", m, judged=judged, scores=judged.clean, scores_8bit=judged.clean)
        for m in METRICS
    ]
    for key, found in attacked.items():
        if key.objective in ENDS:
            continue  # candidates of the composed worst case, no attack of their own
        table += [
            _record(
                manifest, model, "attack", m, key=key, final=found.final,
                judged=judged, scores=found.score, scores_8bit=found.score_8bit,
            )
            for m in METRICS
        ]  # fmt: skip
    for key, reason in holes.items():
        if key.objective in ENDS:
            continue
        undefined = Value.none(reason)
        table += [
            _record(manifest, model, "attack", m, key=key, judged=judged, value=undefined) for m in METRICS
        ]
    table += _suite_min_rows(manifest, judged, attacked, holes)
    composed, intervals = _composed_rows(manifest, judged, attacked)
    return table + composed, intervals


def _judge(model: str, clean: pd.DataFrame, rows: pd.DataFrame, manifest: RunManifest) -> _Set:
    validation = rows[(rows["attack"] == "clean") & (rows["split"] == "val")]
    if any(c.split == "val" and c.model == model and c.status != "done" for c in manifest.cells):
        validation = validation.iloc[:0]  # fitted on all of them or not at all
    scores, mos = _column(clean, "clean_score"), _column(clean, "mos")
    on_val = manifest.data.split != "val" and len(validation) >= MIN_FIT
    fitted_on = "val" if on_val else f"the attacked {manifest.data.split} images, clean"
    on = validation if on_val else clean
    logistic = fit_logistic(_column(on, "clean_score"), _column(on, "mos"))
    return _Set(
        model,
        tuple(clean["image_id"]),
        mos,
        scores,
        logistic,
        f"logistic on {fitted_on}" if logistic else "none",
        Bootstrap(mos, seed=manifest.seed),
    )


def _vectors(
    rows: pd.DataFrame, judged: _Set, expected: int
) -> tuple[dict[_Key, _Attacked], dict[_Key, str]]:
    """Collect the rows of every attack into vectors; what does not cover all images is a hole."""
    attacked: dict[_Key, _Attacked] = {}
    holes: dict[_Key, str] = {}
    for name, group in rows.groupby(list(_Key._fields), sort=True):
        key = _Key._make(cast("tuple[Any, ...]", name))
        ordered = group.sort_values("position")
        if tuple(ordered["image_id"]) != judged.ids:
            missing = expected - len(group)
            holes[key] = f"{missing} of {expected} images are missing (cells failed or not run)"
            continue
        attacked[key] = _Attacked(
            _column(ordered, "adv_score"), _column(ordered, "adv_score_8bit"), bool(ordered["final"].all())
        )
    return attacked, holes


def _suite_min_rows(
    manifest: RunManifest, judged: _Set, attacked: Mapping[_Key, _Attacked], holes: Mapping[_Key, str]
) -> list[Record]:
    """Minimise over the suite's members at every radius, and at every prefix all members share."""
    members = [tuple(member.split("/")) for member in manifest.suite_min]
    keys = [*attacked, *holes]
    table = []
    for norm, epsilon in sorted({(k.norm, k.epsilon) for k in keys}):
        at = [k for k in keys if (k.norm, k.epsilon) == (norm, epsilon)]
        by_member = {m: [k for k in at if _is_member(k, *m)] for m in members}
        surrogates = {m: _lost_surrogates(manifest, judged.model, m, epsilon, by_member[m]) for m in members}
        if all(by_member.values()) and any(surrogates.values()):
            lost = sorted(name for names in surrogates.values() for name in names)
            table += _undefined_min(
                manifest, judged, norm, epsilon, f"no results of {', '.join(lost)} (cells failed or not run)"
            )
            continue
        if not all(by_member.values()):
            # Not a radius of every member: the minimum is not defined there and no row pretends it is.
            # At the main radius the members exist by the suite's own rules, so a hole is a failed cell.
            if epsilon == manifest.main_epsilon:
                lost = [f"{a}/{o}" for (a, o), found in by_member.items() if not found]
                table += _undefined_min(
                    manifest,
                    judged,
                    norm,
                    epsilon,
                    f"no results of {', '.join(lost)} (cells failed or not run)",
                )
            continue
        full = {m: max(k.steps for k in found) for m, found in by_member.items()}
        prefixes = set.intersection(*({k.steps for k in found} for found in by_member.values()))
        for steps in sorted(prefixes | {max(full.values())}):
            final = steps == max(full.values())
            chosen = [
                k for m, found in by_member.items() for k in found if k.steps == (full[m] if final else steps)
            ]
            table += [_minimum(manifest, judged, attacked, holes, chosen, steps, final, m) for m in METRICS]
    return table


def _lost_surrogates(
    manifest: RunManifest, model: str, member: Sequence[str], epsilon: float, found: Sequence[_Key]
) -> set[str]:
    """Return the transfers of a member that the run planned and that have no results at this radius.

    Without them the minimum would be over fewer surrogates for some models than for others.
    """
    attack, objective = member
    planned = {
        c.attack
        for c in manifest.cells
        if c.model == model and c.epsilon == epsilon and c.attack.startswith(f"{attack}:")
    }
    return {f"{name}/{objective}" for name in planned - {k.attack for k in found}}


def _undefined_min(
    manifest: RunManifest, judged: _Set, norm: str, epsilon: float, reason: str
) -> list[Record]:
    key = _Key("", "", norm, epsilon, 0)
    value = Value.none(reason)
    return [
        _record(manifest, judged.model, "suite_min", m, key=key, judged=judged, value=value) for m in METRICS
    ]


def _is_member(key: _Key, attack: str, objective: str) -> bool:
    """Whether results belong to a member; one that transfers has results of every surrogate."""
    return key.objective == objective and (key.attack == attack or key.attack.startswith(f"{attack}:"))


def _minimum(
    manifest: RunManifest,
    judged: _Set,
    attacked: Mapping[_Key, _Attacked],
    holes: Mapping[_Key, str],
    members: Sequence[_Key],
    steps: int,
    final: bool,
    metric: Metric,
) -> Record:
    place = members[0]._replace(attack="", objective="", steps=steps)
    lost = [k for k in members if k in holes]
    if lost:
        reason = f"{lost[0].attack}/{lost[0].objective}: {holes[lost[0]]}"
        return _record(
            manifest, judged.model, "suite_min", metric, key=place, final=final,
            judged=judged, value=Value.none(reason),
        )  # fmt: skip
    values = {k: judged.value(attacked[k].score, metric) for k in members}
    undefined = next((k for k, v in values.items() if v.value is None), None)
    if undefined is not None:
        reason = f"{undefined.attack}/{undefined.objective}: {values[undefined].undefined}"
        return _record(
            manifest, judged.model, "suite_min", metric, key=place, final=final,
            judged=judged, value=Value.none(reason),
        )  # fmt: skip
    lowest = min(members, key=lambda k: values[k].value or 0.0)
    return _record(
        manifest, judged.model, "suite_min", metric, key=lowest._replace(steps=steps), final=final,
        judged=judged, scores=attacked[lowest].score, scores_8bit=attacked[lowest].score_8bit,
    )  # fmt: skip


def _composed_rows(
    manifest: RunManifest, judged: _Set, attacked: Mapping[_Key, _Attacked]
) -> tuple[list[Record], list[Record]]:
    """Compose the worst case at every radius, and at the main one for every number of steps of the sweep."""
    table: list[Record] = []
    intervals: list[Record] = []
    for norm, epsilon in sorted({(k.norm, k.epsilon) for k in attacked}):
        # What was found in a smaller ball of the same norm lies in this one too.
        inside = {k: a for k, a in attacked.items() if k.norm == norm and k.epsilon <= epsilon}
        sweep = {k.steps for k in inside if k.attack == manifest.step_sweep and k.epsilon == epsilon}
        full = max(k.steps for k in inside)
        lost = [
            c
            for c in manifest.cells
            if c.model == judged.model and c.attack != "clean" and c.epsilon <= epsilon and c.status != "done"
        ]
        if lost:
            # The adversary of fewer attacks is a weaker one: its value would look like robustness.
            names = ", ".join(sorted({c.attack for c in lost}))
            reason = Value.none(
                f"{len(lost)} cells of {names} at this radius or below failed or were not run"
            )
            key = _Key("", "", norm, epsilon, full)
            table += [
                _record(manifest, judged.model, "composed", m, key=key, judged=judged, value=reason)
                for m in METRICS
            ]
            continue
        # The sweep is shown at the main radius; elsewhere full strength is what counts.
        swept = sweep if epsilon == manifest.main_epsilon else set()
        for steps in sorted(swept | {full}):
            upto = [a for k, a in inside.items() if k.steps <= steps]
            key = _Key("", "", norm, epsilon, steps)
            composed = {m: _compose(judged, upto, m) for m in METRICS}
            table += [
                _record(
                    manifest, judged.model, "composed", m, key=key, final=steps == full,
                    judged=judged, scores=scores, scores_8bit=scores_8bit,
                )
                for m, (scores, scores_8bit) in composed.items()
            ]  # fmt: skip
            if steps == full:
                intervals += _interval_rows(judged, upto, norm, epsilon, composed)
    return table, intervals


def _compose(judged: _Set, attacked: Sequence[_Attacked], metric: Metric) -> tuple[Vector, Vector]:
    """Return the scores of the composed choice, in full precision and after 8 bits."""
    scores = np.stack([judged.clean, *(a.score for a in attacked)])
    scores_8bit = np.stack([judged.clean, *(a.score_8bit for a in attacked)])
    mapped = judged.mapped(scores, metric)
    images = range(scores.shape[1])
    distinct = [np.unique(mapped[:, i], return_index=True) for i in images]
    inverse = [np.searchsorted(values, mapped[:, i]) for i, (values, _) in zip(images, distinct, strict=True)]
    starts = [np.array([inverse[i][row] for i in images], dtype=np.intp) for row in range(len(scores))]
    found: Composed = composed_worst_case([values for values, _ in distinct], judged.mos, metric, starts)
    rows = [distinct[i][1][k] for i, k in zip(images, found.choice, strict=True)]
    return scores[rows, images], scores_8bit[rows, images]


def _interval_rows(
    judged: _Set,
    attacked: Sequence[_Attacked],
    norm: str,
    epsilon: float,
    composed: Mapping[Metric, tuple[Vector, Vector]],
) -> list[Record]:
    reached = np.stack([judged.clean, *(a.score for a in attacked)])
    columns: Iterable[tuple[Any, ...]] = zip(
        judged.ids,
        judged.mos,
        judged.clean,
        reached.min(axis=0),
        reached.max(axis=0),
        composed["srocc"][0],
        composed["plcc"][0],
        strict=True,
    )
    names = ("image_id", "mos", "clean", "s_min", "s_max", "composed_srocc", "composed_plcc")
    return [
        {"model": judged.model, "norm": norm, "epsilon": epsilon, **dict(zip(names, row, strict=True))}
        for row in columns
    ]


def _record(
    manifest: RunManifest,
    model: str,
    row: str,
    metric: Metric,
    *,
    key: _Key | None = None,
    final: bool = True,
    judged: _Set | None = None,
    scores: Vector | None = None,
    scores_8bit: Vector | None = None,
    clean: Value | None = None,
    value: Value | None = None,
) -> Record:
    """Build a row of the table: from scores if there are any, else from an undefined value."""
    low = high = value_8bit = None
    if judged is not None:
        clean = judged.value(judged.clean, metric)
        if scores is not None and scores_8bit is not None:
            value = judged.value(scores, metric)
            low, high = judged.bootstrap.interval(judged.mapped(scores, metric), metric)
            value_8bit = judged.value(scores_8bit, metric).value
    assert clean is not None  # noqa: S101 - every caller gives scores or a reason
    assert value is not None  # noqa: S101
    key = key or _Key("", "", "none", 0.0, 0)
    return {
        "model": model,
        "data": manifest.data.name,
        "split": manifest.data.split,
        "images": 0 if scores is None else len(scores),
        "row": row,
        **key._asdict(),
        "final": final,
        "metric": metric,
        "clean": clean.value,
        "value": value.value,
        "low": low,
        "high": high,
        "value_8bit": value_8bit,
        "undefined": value.undefined or clean.undefined,
        "mapping": "none" if metric == "srocc" or judged is None else judged.mapping,
        "drop": None if value.value is None or clean.value is None else value.value - clean.value,
        "drop_low": None,
        "drop_high": None,
        "interval": "" if low is None else "percentile over images",
        "units": 0 if low is None or scores is None else len(scores),
        "fit": None,
        "ties_with": None,
        "verdict": "",
        "flags": "",
    }


def _column(frame: pd.DataFrame, name: str) -> Vector:
    return frame[name].to_numpy(dtype=np.float64)
