"""Models that were trained with several seeds: mean and standard deviation of every value."""

from __future__ import annotations

import pyarrow as pa

from iqa_reports import text
from iqa_reports.inputs.frame_entries import distinct, frame_table, metric_groups, pair_entries
from iqa_reports.inputs.frames import Result, rows_of
from iqa_reports.table_view import Entry, Notes, TableView

_ORDER = ("clean", "suite_min", "composed")


def seeds_table(results: pa.Table) -> TableView | None:
    """Return clean and worst-case SROCC and PLCC over seeds (RESULTS); None if no model has several."""
    rows_in = [r for r in rows_of(results, Result) if r.seeds > 1 and r.row in _ORDER]
    if not rows_in:
        return None
    notes = Notes()
    places = sorted(
        {(r.suite, r.data, r.row, r.norm, r.epsilon) for r in rows_in},
        key=lambda place: (place[0], place[1], _ORDER.index(place[2]), place[3], place[4]),
    )
    names = ("suite", "data", "row", "norm", "epsilon")
    wanted = [(dict(zip(names, place, strict=True)), "not run on all seeds") for place in places]
    models = distinct(r.model for r in rows_in)
    rows = [[Entry(model, "header"), *pair_entries(rows_in, model, wanted, notes)] for model in models]
    several = len({(suite, data) for suite, data, *_ in places}) > 1
    labels = [
        ("clean" if kind == "clean" else f"{kind} at ε = {text.radius(epsilon)}, {norm} norm")
        + (f" ({', '.join(filter(None, (suite, data)))})" if several else "")
        for suite, data, kind, norm, epsilon in places
    ]
    return frame_table(
        "seeds",
        "Mean and standard deviation over training seeds.",
        ("Model",),
        metric_groups(labels),
        rows,
        notes,
        best=range(1, 1 + 2 * len(places)),
    )
