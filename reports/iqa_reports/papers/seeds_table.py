"""Models that were trained with several seeds: mean and standard deviation of every value."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_reports import text
from iqa_reports.inputs.frame_entries import distinct, pairs_table
from iqa_reports.inputs.frames import Result
from iqa_reports.table_view import Entry, TableView

_ORDER = ("clean", "suite_min", "composed")


def seeds_table(results: Sequence[Result]) -> TableView | None:
    """Return clean and worst-case SROCC and PLCC over seeds; None if no model has several."""
    rows_in = [r for r in results if r.seeds > 1 and r.row in _ORDER]
    if not rows_in:
        return None
    places = sorted(
        {(r.suite, r.data, r.row, r.norm, r.epsilon) for r in rows_in},
        key=lambda place: (place[0], place[1], _ORDER.index(place[2]), place[3], place[4]),
    )
    names = ("suite", "data", "row", "norm", "epsilon")
    several = len({(suite, data) for suite, data, *_ in places}) > 1
    labels = [
        ("clean" if kind == "clean" else f"{kind} at ε = {text.radius(epsilon)}, {norm} norm")
        + (f" ({', '.join(filter(None, (suite, data)))})" if several else "")
        for suite, data, kind, norm, epsilon in places
    ]
    fields = [dict(zip(names, place, strict=True)) for place in places]
    return pairs_table(
        "seeds",
        "Mean and standard deviation over training seeds.",
        ("Model",),
        [([Entry(model, "header")], model) for model in distinct(r.model for r in rows_in)],
        rows_in,
        [(label, own, "not run on all seeds") for label, own in zip(labels, fields, strict=True)],
    )
