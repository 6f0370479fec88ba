"""Tables as CSV: numbers whole, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TextIO

from iqa_reports.table_view import Entry, TableView, headings_of
from iqa_reports.text import visible


def csv_table(table: TableView) -> str:
    """Return one table as CSV with one line of headings.

    Numbers are written with all their digits. A column whose values have intervals is followed by
    ``... low`` and ``... high``, one whose values have deviations by ``... std``. An entry without a number
    is empty, and the last column, ``notes``, says why: a missing value is never read as a number.
    """
    headings = headings_of(table)
    columns = [[row[place] for row in table.rows] for place in range(len(headings))]
    with_bounds = [any(entry.bounds for entry in column) for column in columns]
    with_spread = [any(entry.spread is not None for entry in column) for column in columns]
    notes = dict(table.notes)
    header: list[str] = []
    for (label, _), bounds, spread in zip(headings, with_bounds, with_spread, strict=True):
        header += [label, *([f"{label} low", f"{label} high"] if bounds else [])]
        header += [f"{label} std"] if spread else []
    lines: list[list[str | float]] = [[*header, "notes"]]
    for row in table.rows:
        cells: list[str | float] = []
        for entry, bounds, spread in zip(row, with_bounds, with_spread, strict=True):
            cells.append(_value(entry))
            if bounds:
                cells += list(entry.bounds or ("", ""))
            if spread:
                cells.append("" if entry.spread is None else entry.spread)
        said = [
            f"{label}: {notes[sign]}"
            for (label, _), entry in zip(headings, row, strict=True)
            for sign in _marks(entry, notes)
        ]
        lines.append([*cells, "; ".join(said)])
    out = io.StringIO()
    write_csv(out, lines)
    return out.getvalue()


def write_csv(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV: numbers with all their digits, None empty, no text that a spreadsheet would run.

    A text that begins like a formula gets an apostrophe before it, as spreadsheets mark text themselves;
    control signs are replaced. Parquet holds every text as it is.
    """
    csv.writer(file, lineterminator="\n").writerows(
        [_harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )


def _value(entry: Entry) -> str | float:
    if entry.number is not None:
        return entry.number
    return "" if entry.kind in ("undefined", "missing") else entry.text


def _harmless(words: str) -> str:
    words = f"'{words}" if words.startswith(("=", "+", "-", "@", "\t", "\r")) else words
    return visible(words)


def _marks(entry: Entry, notes: dict[str, str]) -> list[str]:
    """Return the marks of an entry: letters, a dagger, or both written together."""
    signs = [entry.mark] if entry.mark in notes else [entry.mark[:-1], entry.mark[-1:]]
    return [sign for sign in signs if sign and sign in notes]
