"""From stored rows to a run's tables: values, intervals, flags, differences, measures, fits.

A value is computed from all evaluated images or not at all: a missing or failed cell leaves an
`undefined` with its reason, never a number from fewer images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from iqa_attacks import HIGHEST_SEEN, LOWEST_SEEN
from iqa_harness.evidence.flags import Flag, verdict_of
from iqa_harness.evidence.judgement import Completeness, check_results, flags_without_scores
from iqa_harness.measures.bootstrap import RESAMPLES, Replicates
from iqa_harness.measures.correlation import METRICS, Metric
from iqa_harness.measures.model_scores import (
    NOTHING,
    AttackKey,
    Hole,
    Judged,
    Record,
    attack_vectors,
    judge,
    lost_images,
)
from iqa_harness.tables.expected import planned_attacks
from iqa_harness.tables.measure_rows import measure_rows
from iqa_harness.tables.minima import WorstRow, composed_rows, suite_min_rows
from iqa_harness.tables.rows import defined_row, undefined_row, undefined_rows
from iqa_harness.tables.ties import Place, Standing, difference_rows, mark_ties
from iqa_results import (
    DIFFERENCE_SCHEMA,
    FIT_SCHEMA,
    FLAG_SCHEMA,
    INTERVAL_SCHEMA,
    MEASURE_SCHEMA,
    ROW_SCHEMA,
    TABLE_SCHEMA,
    ModelRecord,
    ResultStore,
    RunManifest,
)

ENDS = (LOWEST_SEEN, HIGHEST_SEEN)


class RobustnessTable(NamedTuple):
    """What a run amounts to."""

    table: pa.Table
    """TABLE_SCHEMA."""
    intervals: pa.Table
    """INTERVAL_SCHEMA."""
    flags: pa.Table
    """FLAG_SCHEMA."""
    differences: pa.Table
    """DIFFERENCE_SCHEMA."""
    measures: pa.Table
    """MEASURE_SCHEMA."""
    fits: pa.Table
    """FIT_SCHEMA."""
    cells: tuple[str, ...]
    """Keys of the cells all of it was made from."""

    def write(self, store: ResultStore, run: str) -> None:
        """Write every table into the run's folder."""
        store.write_table(run, self.table.to_pylist(), self.cells)
        store.write_intervals(run, self.intervals.to_pylist())
        store.write_flags(run, self.flags.to_pylist())
        store.write_differences(run, self.differences.to_pylist())
        store.write_measures(run, self.measures.to_pylist())
        store.write_fits(run, self.fits.to_pylist())


class _ModelTables(NamedTuple):
    table: list[Record]
    intervals: list[Record]
    flags: list[Record]
    measures: list[Record]
    fits: list[Record]
    standings: list[tuple[Place, Standing]]


def robustness_table(
    store: ResultStore, manifest: RunManifest, *, resamples: int = RESAMPLES
) -> RobustnessTable:
    """Compute a run's tables from its stored parts.

    Args:
        store: where the parts are.
        manifest: the run's.
        resamples: draws of the bootstrap behind every interval, seeded by the manifest's seed.

    Raises:
        BadPart: a part the manifest counts as done is damaged.
    """
    made = [_of_model(record, model_rows(store, manifest, record.name), manifest, resamples)
            for record in manifest.models]  # fmt: skip
    table = [row for model in made for row in model.table]
    compared = _compared(manifest)
    # Every place that was planned, also where no model has a value.
    standings: dict[Place, list[Standing]] = {
        Place(row["row"], row["norm"], row["epsilon"], row["metric"]): []
        for row in table
        if row["final"] and (row["row"], row["epsilon"]) in compared
    }
    for model in made:
        for place, standing in model.standings:
            standings[place].append(standing)
    differences = difference_rows(standings, [record.name for record in manifest.models])
    mark_ties(table, differences)

    def joined(name: str, schema: pa.Schema) -> pa.Table:
        return pa.Table.from_pylist([row for model in made for row in getattr(model, name)], schema=schema)

    return RobustnessTable(
        pa.Table.from_pylist(table, schema=TABLE_SCHEMA),
        joined("intervals", INTERVAL_SCHEMA),
        joined("flags", FLAG_SCHEMA),
        pa.Table.from_pylist(differences, schema=DIFFERENCE_SCHEMA),
        joined("measures", MEASURE_SCHEMA),
        joined("fits", FIT_SCHEMA),
        tuple(cell.key for cell in manifest.cells if cell.status == "done"),
    )


def _compared(manifest: RunManifest) -> set[tuple[str, float]]:
    """Return the rows and radii at which models are compared."""
    main = manifest.main_epsilon
    return {("clean", 0.0), ("suite_min", main), ("composed", main)}


def model_rows(store: ResultStore, manifest: RunManifest, model: str) -> pd.DataFrame:
    """Return all stored rows of one model of a run (columns of ROW_COLUMNS)."""
    done = [c.key for c in manifest.cells if c.model == model and c.status == "done"]
    table = store.read_cells(done) if done else ROW_SCHEMA.empty_table()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _of_model(record: ModelRecord, rows: pd.DataFrame, manifest: RunManifest, resamples: int) -> _ModelTables:
    expected, model = manifest.data.images, record.name
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == manifest.data.split)]
    if len(clean) != expected:
        return _without_scores(
            record,
            manifest,
            f"{expected - len(clean)} of {expected} images have no clean score (cells missing)",
        )
    judged = judge(model, clean.sort_values("position"), rows, manifest, resamples=resamples)
    everything, every_hole = attack_vectors(rows[rows["attack"] != "clean"], judged.ids)
    # The ends of all scores are candidates of the composed worst case, no attacks of their own.
    attacked = {k: a for k, a in everything.items() if k.objective not in ENDS}
    holes = {k: hole for k, hole in every_hole.items() if k.objective not in ENDS}
    plan = planned_attacks(manifest, model)
    nowhere = Hole(lost_images(expected, expected), True)
    absent = {
        k: nowhere._replace(final=final)
        for k, final in plan.keys.items()
        if k not in attacked and k not in holes
    }
    table = [defined_row(manifest, judged, "clean", m, judged.clean, judged.clean) for m in METRICS]
    for key, found in attacked.items():
        table += [
            defined_row(
                manifest, judged, "attack", m, found.score, found.score_8bit, key=key, final=found.final
            )
            for m in METRICS
        ]
    for key, hole in (holes | absent).items():
        table += undefined_rows(manifest, judged, "attack", hole.reason, METRICS, key, final=hole.final)
    # Radii of which nothing was stored are those of the plan; their norm is the suite's.
    places = {(k.norm, k.epsilon) for k in (*everything, *every_hole, *absent)}
    norm = plan.norm or next((norm for norm, _ in sorted(places)), None)
    if norm is not None:
        places |= {(norm, c.epsilon) for c in manifest.cells if c.model == model and c.attack != "clean"}
    balls = sorted(places)
    # A prefix of the minimum needs every member; a hole of an attack is one of its ends, too.
    least = suite_min_rows(manifest, judged, attacked, holes, balls)
    composed, intervals = composed_rows(manifest, judged, everything, every_hole, balls)
    worst = [*least, *composed]
    table += [w.row for w in worst]
    flags = check_results(record, judged, everything, _completeness(manifest, model, worst))
    _judge_rows(table, flags)
    standings = [_standing(judged, "clean", metric) for metric in METRICS]
    standings += [
        _standing(judged, w.row["row"], w.row["metric"], w.row, w.replicates)
        for w in worst
        if w.replicates and w.row["final"] and w.row["epsilon"] == manifest.main_epsilon
    ]
    return _ModelTables(
        table,
        intervals,
        [{"model": model, **flag._asdict()} for flag in flags],
        measure_rows(judged, attacked),
        [_fit_row(judged)],
        standings,
    )


def _without_scores(record: ModelRecord, manifest: RunManifest, reason: str) -> _ModelTables:
    """Return the tables of a model without clean scores: everything it was planned for is undefined."""
    model = record.name
    plan = planned_attacks(manifest, model)
    main = manifest.main_epsilon
    places: list[tuple[str, AttackKey, bool]] = [("clean", NOTHING, True)]
    places += [("attack", key, final) for key, final in plan.keys.items()]
    if plan.norm is not None:
        ball = AttackKey("", "", plan.norm, main, 0)
        places += [(row, ball, True) for row in ("suite_min", "composed")]
    table = [
        undefined_row(manifest, model, row, metric, reason, key=key, final=final)
        for row, key, final in places
        for metric in METRICS
    ]
    flags = flags_without_scores(record, _completeness(manifest, model, []), reason)
    _judge_rows(table, flags)
    fit = {"model": model, "split": "", "images": 0, "status": "failed", "detail": reason}
    nothing = dict.fromkeys(("b1", "b2", "b3", "b4", "b5", "residual"))
    made = [{"model": model, **flag._asdict()} for flag in flags]
    return _ModelTables(table, [], made, [], [fit | nothing], [])


def _judge_rows(table: Sequence[Record], flags: list[Flag]) -> None:
    verdict, raised = verdict_of(flags)
    for row in table:
        row |= {"verdict": verdict, "flags": ", ".join(raised)}


def _completeness(manifest: RunManifest, model: str, worst: Sequence[WorstRow]) -> Completeness:
    """Return what of a model's plan counts for its verdict: the clean cells, and those at the main radius."""
    main = manifest.main_epsilon
    cells = [c for c in manifest.cells if c.model == model and (c.attack == "clean" or c.epsilon == main)]
    # SROCC is what models are ranked by; a PLCC may be undefined where a logistic is flat.
    rows = [
        w.row for w in worst if (w.row["epsilon"], w.row["final"], w.row["metric"]) == (main, True, "srocc")
    ]
    defined = {row["row"] for row in rows if row["value"] is not None}
    reasons = sorted({row["undefined"] for row in rows if row["undefined"]})
    return Completeness(
        main_epsilon=main,
        planned=len(cells),
        missing=sum(c.status != "done" for c in cells),
        undefined=tuple(row for row in ("suite_min", "composed") if row not in defined),
        reason=reasons[0] if reasons else "",
    )


def _standing(
    judged: Judged,
    row: str,
    metric: Metric,
    record: Record | None = None,
    replicates: Replicates | None = None,
) -> tuple[Place, Standing]:
    record = record or {"norm": "none", "epsilon": 0.0, "attack": "", "objective": ""}
    found = replicates or judged.clean_estimate(metric).replicates
    place = Place(row, record["norm"], record["epsilon"], metric)
    label = judged.bootstrap.label(found.method)
    return place, Standing(judged.model, record["attack"], record["objective"], judged.ids, label, found)


def _fit_row(judged: Judged) -> Record:
    logistic = judged.fit.logistic
    parameters: Sequence[float | None] = logistic.on_scores if logistic else [None] * 5
    return {
        "model": judged.model,
        "split": judged.fitted_on,
        "images": judged.fitted_images,
        **{f"b{i}": b for i, b in enumerate(parameters, 1)},
        "residual": logistic.rmse if logistic else None,
        "status": judged.fit.status,
        "detail": judged.fit.detail,
    }
