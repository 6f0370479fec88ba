"""Rows of a run's table: a value beside its clean value, with intervals; holes stay visible."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_harness.measures.bootstrap import Replicates
from iqa_harness.measures.correlation import Interval, Metric, Value, Vector
from iqa_harness.measures.model_scores import NOTHING, AttackKey, Judged, Record
from iqa_results import RunManifest


def defined_row(
    manifest: RunManifest,
    judged: Judged,
    row: str,
    metric: Metric,
    scores: Vector,
    scores_8bit: Vector,
    *,
    key: AttackKey = NOTHING,
    final: bool = True,
    replicates: Replicates | None = None,
) -> Record:
    """Build a row from scores.

    Args:
        manifest: the run's.
        judged: the model.
        row: clean, attack, suite_min or composed.
        metric: srocc or plcc.
        scores: (n,) attacked scores.
        scores_8bit: (n,) after rounding the images to 8 bits.
        key: the attack.
        final: True for full strength.
        replicates: of the value where it is no plain correlation of `scores` (a minimum).
    """
    value, own = judged.estimate(scores, metric)
    replicates = replicates or own
    clean = judged.clean_estimate(metric)
    interval = replicates.interval()
    # A clean row is its own clean value: a drop of exactly 0, known without a bootstrap.
    drop = replicates - clean.replicates
    ends = Interval(None, None) if row == "clean" else drop.interval()
    exists = interval.low is not None
    return _row(manifest, judged.model, row, metric, key, final, value, clean.value) | {
        "images": len(scores),
        "low": interval.low,
        "high": interval.high,
        "drop": drop.point.value,
        "drop_low": ends.low,
        "drop_high": ends.high,
        "interval": judged.bootstrap.label(replicates.method) if exists else "",
        "units": judged.bootstrap.units if exists else 0,
        "value_8bit": judged.value(scores_8bit, metric).value,
        **_mapping(judged, metric),
    }


def undefined_row(
    manifest: RunManifest,
    model: str | Judged,
    row: str,
    metric: Metric,
    reason: str,
    *,
    key: AttackKey = NOTHING,
    final: bool = True,
) -> Record:
    """Build a row that has no value, with the reason; with a `Judged` its clean value still stands."""
    missing = Value.none(reason)
    if isinstance(model, str):
        return _row(manifest, model, row, metric, key, final, missing, missing)
    clean = model.clean_estimate(metric).value
    made = _row(manifest, model.model, row, metric, key, final, missing, clean)
    return made | _mapping(model, metric)


def undefined_rows(
    manifest: RunManifest,
    judged: Judged,
    row: str,
    reason: str,
    metrics: Sequence[Metric],
    key: AttackKey,
    *,
    final: bool = True,
) -> list[Record]:
    """Build such a row for several metrics."""
    return [undefined_row(manifest, judged, row, m, reason, key=key, final=final) for m in metrics]


def _mapping(judged: Judged, metric: Metric) -> Record:
    if metric == "srocc":
        return {"mapping": "none", "fit": None}
    return {"mapping": judged.mapping, "fit": judged.fit.mark}


def _row(
    manifest: RunManifest,
    model: str,
    row: str,
    metric: Metric,
    key: AttackKey,
    final: bool,
    value: Value,
    clean: Value,
) -> Record:
    return {
        "model": model,
        "data": manifest.data.name,
        "split": manifest.data.split,
        "images": 0,
        "row": row,
        **key._asdict(),
        "final": final,
        "metric": metric,
        "clean": clean.value,
        "value": value.value,
        "low": None,
        "high": None,
        "drop": None,
        "drop_low": None,
        "drop_high": None,
        "interval": "",
        "units": 0,
        "value_8bit": None,
        "undefined": value.undefined or clean.undefined,
        "mapping": "none",
        "fit": None,
        "ties_with": None,
        "verdict": "",
        "flags": "",
    }
