"""Entries of tables made from frames: a value with its interval or deviation, or why it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from iqa_reports import text
from iqa_reports.inputs.frames import Result
from iqa_reports.table_view import (
    Entry,
    Group,
    Notes,
    TableView,
    columns,
    measured,
    missing,
    undefined,
    valued,
    with_best,
)
from iqa_reports.table_view import stub as stub_of

SHOWN = ("srocc", "plcc")
"""Metrics of the papers' tables."""


def distinct(values: Iterable[str | None]) -> list[str]:
    """Return each value once, in the order met, without None."""
    return list(dict.fromkeys(value for value in values if value is not None))


def result_entry(found: Sequence[Result], notes: Notes, what: str) -> Entry:
    """Return the one value that was found; a dash with `what` is missing where there is none.

    Two values for one place are never averaged here: the entry says that they are two.
    """
    if not found:
        return missing(notes, f"missing: {what}")
    if len(found) > 1:
        suites = ", ".join(distinct(r.suite or "evaluate" for r in found))
        return missing(notes, f"{len(found)} values for one place (of {suites}); pick one")
    one = found[0]
    if one.value is None:
        return undefined(notes, one.undefined)
    if one.seeds > 1:
        mark = notes.mark(f"mean ± standard deviation over {one.seeds} training seeds")
        return Entry(text.number(one.value), "number", "", mark, one.value, None, one.std)
    return valued(one.value, one.low, one.high)


def amount(value: float | None, notes: Notes, what: str, unit: float = 1.0, digits: int = 2) -> Entry:
    """Return a size in units, or a dash with why it is missing."""
    size = None if value is None else value / unit
    return measured(size, lambda size: f"{size:,.{digits}f}", notes, f"missing: {what}")


def of(
    results: Iterable[Result], model: str, metric: str, *, row: str = "clean", **place: Any
) -> list[Result]:
    """Return a model's results in one place; a clean value measured twice on the same images is one."""
    wanted = {"model": model, "metric": metric, "row": row, **place}
    found = [r for r in results if all(getattr(r, name) == value for name, value in wanted.items())]
    if row == "clean" and len({(r.data, r.split, r.images, r.value) for r in found}) == 1:
        return found[:1]
    return found


def pair_entries(
    results: Sequence[Result], model: str, places: Iterable[tuple[dict[str, Any], str]], notes: Notes
) -> list[Entry]:
    """Return SROCC and PLCC of a model in several places, each with what is said where it is missing."""
    return [
        result_entry(of(results, model, metric, **place), notes, why)
        for place, why in places
        for metric in SHOWN
    ]


def pairs_table(
    name: str,
    caption: str,
    stub: Sequence[str],
    models: Iterable[tuple[list[Entry], str]],
    results: Sequence[Result],
    places: Sequence[tuple[str, dict[str, Any], str]],
    remarks: Sequence[str] = (),
) -> TableView:
    """Return a table of SROCC and PLCC, a row a model with what stands before it, two columns a place.

    Of each place there are its label, what results there have, and what is said where a model has none.
    """
    notes = Notes()
    wanted = [(place, why) for _, place, why in places]
    rows = [[*head, *pair_entries(results, model, wanted, notes)] for head, model in models]
    best = range(len(stub), len(stub) + len(SHOWN) * len(places))
    return frame_table(
        name,
        caption,
        stub,
        metric_groups([name for name, *_ in places]),
        rows,
        notes,
        best=best,
        remarks=remarks,
    )


def splits_apart(results: Sequence[Result]) -> list[Result]:
    """Return the results with the split in the set's name where a set was evaluated on several.

    The test split keeps the set's own name, which published tables use.
    """
    splits: dict[str, set[str]] = {}
    for r in results:
        splits.setdefault(r.data, set()).add(r.split)
    return [
        r._replace(data=f"{r.data} ({r.split})") if len(splits[r.data]) > 1 and r.split != "test" else r
        for r in results
    ]


def metric_groups(labels: Sequence[str]) -> tuple[Group, ...]:
    """Return a group of SROCC and PLCC a label."""
    return tuple(columns(*(m.upper() for m in SHOWN), group=name) for name in labels)


def frame_table(
    name: str,
    caption: str,
    stub: Sequence[str],
    groups: Sequence[Group],
    rows: Sequence[Sequence[Entry]],
    notes: Notes,
    *,
    best: Sequence[int] = (),
    remarks: Sequence[str] = (),
) -> TableView:
    """Return a table whose stub is words; `remarks` are notes on the whole table."""
    return TableView(
        name=name,
        caption=caption,
        stub=stub_of(*stub),
        groups=tuple(groups),
        rows=with_best(rows, best),
        notes=(*notes.listed(), *(("", remark) for remark in remarks)),
    )
