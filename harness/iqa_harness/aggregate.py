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
from iqa_harness.bootstrap import RESAMPLES, Replicates
from iqa_harness.differences import Place, Standing, difference_rows, mark_ties
from iqa_harness.flags import verdict_of
from iqa_harness.judged import Judged, Record, attack_vectors, judge
from iqa_harness.measure_rows import measure_rows
from iqa_harness.metrics import METRICS, Metric
from iqa_harness.sanity import check_results
from iqa_harness.table_rows import defined_row, undefined_row, undefined_rows
from iqa_harness.worst_rows import composed_rows, suite_min_rows
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

    def write(self, store: ResultStore, run: str) -> None:
        """Write every table into the run's folder."""
        store.write_table(run, self.table.to_pylist())
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
    standings: dict[Place, list[Standing]] = {}
    for model in made:
        for place, standing in model.standings:
            standings.setdefault(place, []).append(standing)
    differences = difference_rows(standings)
    table = [row for model in made for row in model.table]
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
    )


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
        reason = f"{expected - len(clean)} of {expected} images have no clean score (cells missing)"
        table = [undefined_row(manifest, model, "clean", metric, reason) for metric in METRICS]
        fit = {"model": model, "split": "", "images": 0, "status": "failed", "detail": reason}
        nothing = dict.fromkeys(("b1", "b2", "b3", "b4", "b5", "residual"))
        return _ModelTables(table, [], [], [], [fit | nothing], [])
    judged = judge(model, clean.sort_values("position"), rows, manifest, resamples=resamples)
    everything, every_hole = attack_vectors(rows[rows["attack"] != "clean"], judged.ids)
    # The ends of all scores are candidates of the composed worst case, no attacks of their own.
    attacked = {k: a for k, a in everything.items() if k.objective not in ENDS}
    holes = {k: reason for k, reason in every_hole.items() if k.objective not in ENDS}
    table = [defined_row(manifest, judged, "clean", m, judged.clean, judged.clean) for m in METRICS]
    for key, found in attacked.items():
        table += [
            defined_row(
                manifest, judged, "attack", m, found.score, found.score_8bit, key=key, final=found.final
            )
            for m in METRICS
        ]
    for key, reason in holes.items():
        table += undefined_rows(manifest, judged, "attack", reason, METRICS, key)
    # A prefix of the minimum needs every member; a hole of an attack is one of its ends, too.
    least = suite_min_rows(manifest, judged, attacked, holes)
    composed, intervals = composed_rows(manifest, judged, everything)
    table += [worst.row for worst in (*least, *composed)]
    flags = check_results(record, judged, everything)
    verdict, raised = verdict_of(flags)
    for row in table:
        row |= {"verdict": verdict, "flags": ", ".join(raised)}
    standings = [_standing(judged, "clean", metric) for metric in METRICS]
    standings += [
        _standing(judged, w.row["row"], w.row["metric"], w.row, w.replicates)
        for w in (*least, *composed)
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
