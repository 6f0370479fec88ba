"""The report in a terminal, at any width from 80 columns, without cutting a number."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

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
                reading[-1] = (
                    "PLCC, drops, values after 8 bits, every attack, checks and cost: the page, or "
                    f"`iqa-harness report {manifest.run} --full`."
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
    for groups in _blocks(view, console.width):
        console.print(_rich_table(console, view, groups), crop=False)
    for mark, note in view.notes:
        _say(console, f"{mark or '*'}  {note}", "dim")


def _blocks(view: TableView, width: int) -> list[list[int]]:
    """Break the groups of a table into blocks that fit the width, the stub repeated before each."""
    widths = _widths(view)
    stub = sum(width + _GAP for width in widths[: len(view.stub)])
    blocks: list[list[int]] = [[]]
    used = stub
    for index, places in enumerate(_places(view)):
        need = sum(widths[place] + _GAP for place in places)
        if blocks[-1] and used + need - _GAP > width:
            blocks.append([])
            used = stub
        blocks[-1].append(index)
        used += need
    return blocks


def _rich_table(console: Console, view: TableView, groups: list[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0))
    widths, places = _widths(view), _places(view)
    for heading, width in zip(view.stub, widths, strict=False):
        _add_column(table, console, f"\n{heading.label}", heading.numeric, width)
    for index in groups:
        group = view.groups[index]
        for first, (heading, place) in enumerate(zip(group.headings, places[index], strict=True)):
            label = f"{'' if first else group.label}\n{heading.label}"
            _add_column(table, console, label, heading.numeric, widths[place])
    chosen = [*range(len(view.stub)), *(place for index in groups for place in places[index])]
    for row in view.rows:
        table.add_row(*(_entry(console, row[place]) for place in chosen))
    return table


def _add_column(table: Table, console: Console, label: str, numeric: bool, width: int) -> None:
    table.add_column(
        Text(_plain(console, label)),
        justify="right" if numeric else "left",
        overflow="fold",
        no_wrap=numeric,
        width=width,
    )


def _widths(view: TableView) -> list[int]:
    """Return the width of every column; words are capped, numbers never."""
    headings = [(h.label, h.numeric, _NAME) for h in view.stub]
    headings += [
        # The label of a group stands over its first column.
        (max(h.label, "" if place else group.label, key=cell_len), h.numeric, _WORDS)
        for group in view.groups
        for place, h in enumerate(group.headings)
    ]
    widths = []
    for place, (label, numeric, cap) in enumerate(headings):
        lines = [label, *(line for row in view.rows for line in _worded(row[place]).split("\n"))]
        widest = max(cell_len(line) for line in lines)
        widths.append(widest if numeric else min(widest, cap))
    return widths


def _places(view: TableView) -> list[list[int]]:
    """Return the columns of each group, counted from the start of a row."""
    places, start = [], len(view.stub)
    for group in view.groups:
        places.append(list(range(start, start + len(group.headings))))
        start += len(group.headings)
    return places


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
