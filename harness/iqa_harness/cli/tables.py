"""Tables on the terminal: lists of names, figures, and the view that every format of a result shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iqa_harness.machine.terminal import console, plain

if TYPE_CHECKING:
    from iqa_reports import TableView


def print_list(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print names and what each is: the last column is folded where the terminal ends."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads, start=1):
        table.add_column(head, no_wrap=place < len(heads), overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console().print(table)


def print_figures(heads: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> None:
    """Print texts of numbers beside `names` columns of names."""
    from iqa_reports import Entry, TableView
    from iqa_reports.table_view import columns, label, stub

    entries = [(*map(label, row[:names]), *(Entry(text, "number") for text in row[names:])) for row in rows]
    groups = tuple(columns(head) for head in heads[names:])
    print_view(TableView("figures", "", stub(*heads[:names]), groups, tuple(entries), ()))


def print_view(view: TableView) -> None:
    """Print a table of results."""
    from iqa_reports import print_table

    print_table(view, console())
