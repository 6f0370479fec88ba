"""Tables as CSV: numbers whole, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from typing import TextIO

from iqa_reports.table_view import Entry, TableView, headings_of
from iqa_reports.text import visible


def csv_table(table: TableView) -> str:
    """Return one table as CSV with one line of headings.

    Numbers are written with all their digits. A column whose values have intervals is followed by
    ``... low`` and ``... high``, one whose values have deviations by ``... std``. An entry without a number
    is empty, and the last column, ``notes``, says why: a missing value is never read as a number.
    """
    headings, notes = headings_of(table), dict(table.notes)
    columns: list[tuple[str, int, Callable[[Entry], object]]] = []
    for place, (label, _) in enumerate(headings):
        columns.append((label, place, _value))
        if any(row[place].bounds for row in table.rows):
            columns.append((f"{label} low", place, lambda entry: entry.bounds and entry.bounds[0]))
            columns.append((f"{label} high", place, lambda entry: entry.bounds and entry.bounds[1]))
        if any(row[place].spread is not None for row in table.rows):
            columns.append((f"{label} std", place, lambda entry: entry.spread))
    lines: list[list[object]] = [[*(name for name, *_ in columns), "notes"]]
    for row in table.rows:
        said = [
            f"{label}: {notes[sign]}"
            for (label, _), entry in zip(headings, row, strict=True)
            for sign in _marks(entry, notes)
        ]
        lines.append([*(value(row[place]) for _, place, value in columns), "; ".join(said)])
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
