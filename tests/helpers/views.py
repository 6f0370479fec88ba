"""A run for tables and figures, from a manifest and its table as Arrow has it; points of its curves."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from iqa_reports import StoredRun
from iqa_results import INTERVAL_SCHEMA, TABLE, Estimate, RunManifest


def view_run(manifest: RunManifest, table: pa.Table, **more: Any) -> StoredRun:
    """Return the run; `more` are further fields of it, such as flags."""
    return StoredRun(manifest, tuple(TABLE.rows(table)), INTERVAL_SCHEMA.empty_table(), **more)


POINT = Estimate("m", "demo", "test", 40, "composed", "", "", "inf", 2 / 255, 10, True, "srocc", 0.8)


def sweep(values: dict[int, float | None]) -> list[Estimate]:
    """Return points of a step sweep by their steps."""
    return [POINT._replace(steps=steps, value=value) for steps, value in values.items()]
