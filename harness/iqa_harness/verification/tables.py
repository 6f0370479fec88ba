"""Stored tables against those the rows give."""

from __future__ import annotations

import math

from iqa_harness.tables.robustness import RobustnessTable
from iqa_harness.verification.finding import Finding, within
from iqa_results import BadPart, ResultStore, RunManifest

TABLE_SLACK = 1e-9
"""Largest difference of a table's number made twice from the same rows, relative above 1."""
FIT_SLACK = 1e-6
"""The same for the parameters of a logistic, which an iteration finds."""

TABLES = {
    "table": ("model", "row", "attack", "objective", "epsilon", "steps", "metric"),
    "intervals": ("model", "norm", "epsilon", "image_id"),
    "flags": ("model", "flag"),
    "differences": ("model_a", "model_b", "row", "norm", "epsilon", "metric"),
    "measures": ("model", "attack", "objective", "epsilon", "steps", "measure"),
    "fits": ("model",),
    "power": ("model", "attack", "width", "steepness"),
}
"""Every stored table, with the columns that name one of its rows."""


def tables_differ(store: ResultStore, manifest: RunManifest, tables: RobustnessTable) -> list[Finding]:
    """Compare every stored table with the one the rows give."""
    run = manifest.run
    findings = []
    for name, names in TABLES.items():
        if name == "power" and not tables.power.num_rows and not store.has_table(run, name):
            continue  # a run of an older version, which knew of no plants
        try:
            table = store.read_table(run, name)
        except BadPart as error:
            findings.append(Finding("table", run, f"{error}; `iqa-harness report {run}` writes it"))
            continue
        if table.equals(getattr(tables, name)):  # a NaN equals none, and is looked at below
            continue
        stored, fresh = table.to_pylist(), getattr(tables, name).to_pylist()
        if len(stored) != len(fresh):
            detail = f"{len(stored)} rows are stored, the parts give {len(fresh)}"
            findings.append(Finding("table", run if name == "table" else f"{run}, {name}", detail))
            continue
        slack = FIT_SLACK if name == "fits" else TABLE_SLACK
        for old, new in zip(stored, fresh, strict=True):
            place = ", ".join(str(new[c]) for c in names)
            findings += [
                Finding(
                    "table",
                    place if name == "table" else f"{name}, {place}",
                    f"{c}: {old[c]} is stored, the rows give {new[c]}",
                )
                for c in [c for c in new if not _same(old[c], new[c], slack)][:1]
            ]
    return findings


def _same(a: object, b: object, slack: float) -> bool:
    """Return whether values made twice from equal rows agree: two NaN are one result."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or within(a, b, slack * max(1.0, abs(b)))
    return within(a, b, slack)
