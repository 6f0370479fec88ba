"""What a table is before it has a format: headings, worded entries with their numbers, notes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from iqa_reports import text

Kind = Literal["header", "label", "number", "undefined", "missing"]

DAGGER = "\N{DAGGER}"
"""Mark of a value that is not told apart from the best one."""

TIED = (
    "not told apart from the best of its column: the interval of the paired difference on the same images "
    "holds 0, where those of all pairs of the column hold at once with 95 %"
)


class Entry(NamedTuple):
    """One entry of a table."""

    text: str
    kind: Kind
    interval: str = ""
    mark: str = ""
    """Letter of the note that explains the entry; a dagger where a value is not told apart from the best."""
    number: float | None = None
    """The value itself, for sorting and CSV; None where the text is no number."""
    bounds: tuple[float, float] | None = None
    """Ends of its 95 % interval."""
    spread: float | None = None
    """Its standard deviation over seeds."""
    best: bool = False
    """Whether it is the best of its column."""


class Heading(NamedTuple):
    """Heading of one column."""

    label: str
    numeric: bool


class Group(NamedTuple):
    """Columns that belong together under one label; narrow formats break between groups only."""

    label: str
    headings: tuple[Heading, ...]


class TableView(NamedTuple):
    """A table ready to be rendered in any format."""

    name: str
    """Identifier, unique in a report."""
    caption: str
    stub: tuple[Heading, ...]
    """Columns that say what a row is about."""
    groups: tuple[Group, ...]
    rows: tuple[tuple[Entry, ...], ...]
    """Entries of a row, stub first."""
    notes: tuple[tuple[str, str], ...]
    """(mark, what it says); the mark is '' where the note is about the whole table."""


VALUE = Heading("value [95 %]", numeric=True)
"""Heading of a group's own value; formats with one line of headings write the group's label instead."""


class Notes:
    """Notes under a table, lettered in the order they are first needed."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        self._daggers: dict[str, str] = {}

    def mark(self, note: str) -> str:
        """Return the mark of a note, the same for the same words."""
        return self._marks.setdefault(note, letters(len(self._marks)))

    def dagger(self) -> str:
        """Return the mark of a value that is not told apart from the best."""
        return self._daggers.setdefault(TIED, DAGGER)

    def listed(self) -> tuple[tuple[str, str], ...]:
        """Return (mark, note) in order."""
        return tuple((mark, note) for note, mark in (*self._marks.items(), *self._daggers.items()))


def letters(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ...: letters, since digits beside a number read as part of it."""
    head = letters(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("a") + index % 26)


def measured(value: float | None, write: Callable[[float], str], notes: Notes, reason: str) -> Entry:
    """Return a number as `write` words it, or a dash whose note says why there is none."""
    return missing(notes, reason) if value is None else Entry(write(value), "number", number=value)


def missing(notes: Notes, reason: str) -> Entry:
    """Return a dash whose note says why there is no value."""
    return Entry(text.DASH, "missing", mark=notes.mark(reason))


def undefined(notes: Notes, reason: str | None) -> Entry:
    """Return the entry of a value that does not exist, whose note says why."""
    return Entry("undefined", "undefined", mark=notes.mark(f"undefined: {reason or 'no reason given'}"))


def valued(
    value: float, low: float | None, high: float | None, *, mark: str = "", signed: bool = False
) -> Entry:
    """Return a correlation, or with its sign a difference, and its interval where it has both ends."""
    words = text.signed(value) if signed else text.number(value)
    if low is None or high is None:
        return Entry(words, "number", mark=mark, number=value)
    return Entry(words, "number", text.interval(low, high), mark, value, (low, high))


def label(words: str | None) -> Entry:
    """Return a word, or an empty entry for what is unknown."""
    return Entry(words or "", "label")


def columns(*labels: str, numeric: bool = True, group: str = "") -> Group:
    """Return columns under one label, all of numbers or all of words."""
    return Group(group, tuple(Heading(label, numeric) for label in labels))


def stub(*labels: str) -> tuple[Heading, ...]:
    """Return columns of words that say what a row is about."""
    return tuple(Heading(label, numeric=False) for label in labels)


def with_best(
    rows: Iterable[Sequence[Entry]],
    columns: Iterable[int],
    *,
    among: Collection[int] | None = None,
) -> tuple[tuple[Entry, ...], ...]:
    """Return the rows with the largest number of each of some columns marked; equal ones all are.

    A column with fewer than two numbers has no best, nor has one without a row that may be the best.

    Args:
        rows: of a table.
        columns: their places in a row.
        among: places of the rows that may be the best, None for all.
    """
    table = [list(row) for row in rows]
    chosen = range(len(table)) if among is None else among
    for column in columns:
        numbers = [row[column].number if place in chosen else None for place, row in enumerate(table)]
        known = [value for value in numbers if value is not None]
        if not known or sum(row[column].number is not None for row in table) < 2:
            continue
        best = max(known)
        for row, value in zip(table, numbers, strict=True):
            if value == best:
                row[column] = row[column]._replace(best=True)
    return tuple(tuple(row) for row in table)


def headings_of(table: TableView) -> list[tuple[str, bool]]:
    """Return one label a column and whether it is numeric, for formats with one line of headings."""
    found = [(h.label, h.numeric) for h in table.stub]
    found += [
        (group.label if h == VALUE else f"{group.label} {h.label}".strip(), h.numeric)
        for group in table.groups
        for h in group.headings
    ]
    return found
