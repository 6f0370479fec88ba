"""The report in a terminal: words are folded to its width, and no number is cut at any."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from iqa_reports import text
from iqa_reports.table_view import Entry, TableView
from iqa_reports.tables import short_board

if TYPE_CHECKING:
    from rich.console import Console

    from iqa_reports.report import Report

_NAME, _WORDS = 18, 24
"""Widest columns of names and of other words; longer ones are folded."""
_LEAST = 8
"""Widest column of words that is not narrowed any more: a line is longer than the terminal instead."""

_GAP = 2
"""Blanks between columns: rich's own divider and one of padding."""

_ASCII = str.maketrans({text.MINUS: "-", text.DASH: "--", "ε": "eps", "±": "+/-", "†": "+", "×": "x"})

_STYLES = {"header": "bold", "label": "", "number": "", "undefined": "yellow", "missing": "dim"}


def print_report(report: Report, console: Console, *, full: bool = True) -> None:
    """Print a report: every table, or each section's board in SROCC and the studies, with how it is read."""
    for section in report.sections:
        manifest = section.view.manifest
        warning = text.warning(manifest)
        if warning:
            _say(console, f"WARNING  {warning}", "bold yellow")
        reading = text.reading(manifest)
        for table in section.tables:
            if full:
                print_table(table, console)
            elif table.name == "leaderboard-srocc":
                print_table(short_board(table), console)
                runs = manifest.run.split(" + ")
                told = " ".join(runs) + " --out FOLDER" * (len(runs) > 1)
                reading[-1] = (
                    "PLCC, drops, values after 8 bits, every attack, checks and cost: the page, or "
                    f"`iqa-harness report {told} --full`."
                )
            elif table.name in ("defences-srocc", "bracket-srocc"):
                print_table(table, console)
        for sentence in [*section.remarks, *reading, *manifest.notes]:
            _say(console, sentence, "dim")
    for sentence in (*report.apart, *report.unread):
        _say(console, sentence, "yellow")
    for table in report.tables:
        print_table(table, console)


def table_text(view: TableView, width: int = 100) -> str:
    """Return a table as a terminal of so many columns shows it."""
    from rich.console import Console

    out = io.StringIO()
    print_table(view, Console(file=out, width=width))
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def print_table(view: TableView, console: Console) -> None:
    """Print a table with its caption and notes; groups that are too many for the width go on below."""
    console.print()
    if view.caption:
        _say(console, view.caption, "bold")
    columns = _columns(view)
    for groups in _blocks(columns, console.width):
        console.print(
            _rich_table(console, view, [c for c in columns if c.group in (-1, *groups)]), crop=False
        )
    for mark, note in view.notes:
        _say(console, f"{mark or '*'}  {note}", "dim")


class _Column(NamedTuple):
    place: int
    group: int
    """Place of its group, -1 of the stub."""
    label: str
    """Two lines; the label of a group stands over its first column."""
    numeric: bool
    width: int


def _columns(view: TableView) -> list[_Column]:
    """Return every column with its width; words are capped, numbers never."""
    heads = [(-1, f"\n{h.label}", h.numeric, _NAME) for h in view.stub]
    heads += [
        (index, f"{'' if place else group.label}\n{h.label}", h.numeric, _WORDS)
        for index, group in enumerate(view.groups)
        for place, h in enumerate(group.headings)
    ]
    found = []
    for place, (index, label, numeric, cap) in enumerate(heads):
        words = [label, *(_worded(row[place]) for row in view.rows)]
        widest = max(cell_len(line) for word in words for line in word.split("\n"))
        found.append(_Column(place, index, label, numeric, widest if numeric else min(widest, cap)))
    return found


def _blocks(columns: Sequence[_Column], width: int) -> list[list[int]]:
    """Break the groups of a table into blocks that fit the width, the stub repeated before each."""
    room = Counter[int]()
    for column in columns:
        room[column.group] += column.width + _GAP
    blocks: list[list[int]] = [[]]
    used = room[-1]
    for index in range(max(room) + 1):
        if blocks[-1] and used + room[index] - _GAP > width:
            blocks.append([])
            used = room[-1]
        blocks[-1].append(index)
        used += room[index]
    return blocks


def _rich_table(console: Console, view: TableView, columns: Sequence[_Column]) -> Table:
    least = sum((c.width if c.numeric else min(c.width, _LEAST)) + _GAP for c in columns) - _GAP
    wide = least if least > console.width else None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0), width=wide)
    for column in columns:
        table.add_column(
            Text(_plain(console, column.label)),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.numeric,
            width=column.width if column.numeric else None,
            min_width=min(column.width, _LEAST),
            max_width=column.width,
        )
    for row in view.rows:
        table.add_row(*(_entry(console, row[column.place]) for column in columns))
    return table


def _worded(entry: Entry) -> str:
    """Put the interval under its value: two short lines leave room for one more column."""
    spread = "" if entry.spread is None else f" ± {text.number(entry.spread)}"
    marked = f"{entry.text}{spread} {entry.mark}".strip()
    return f"{marked}\n{entry.interval}" if entry.interval else marked


def _entry(console: Console, entry: Entry) -> Text:
    # Text, not markup: a model may be called "[red]".
    return Text(_plain(console, _worded(entry)), style="bold" if entry.best else _STYLES[entry.kind])


def _say(console: Console, sentence: str, style: str) -> None:
    console.print(Text(_plain(console, sentence), style=style), highlight=False)


def _plain(console: Console, words: str) -> str:
    """Write without the signs that a terminal of another encoding would fail on."""
    words = text.visible(words)
    if not console.options.ascii_only:
        return words
    return words.translate(_ASCII).encode("ascii", "replace").decode("ascii")
