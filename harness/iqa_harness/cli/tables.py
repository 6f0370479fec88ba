"""Tables on the terminal: lists of names as texts, results as the view that every format shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from iqa_harness.machine.terminal import console, plain

if TYPE_CHECKING:
    from iqa_reports import TableView

GAP = 2
"""Blanks between columns."""


def print_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    numeric: Collection[str] = (),
    folded: Collection[str] = (),
) -> None:
    """Print a table to the terminal; what is too wide for it goes on below, with the first column again.

    Args:
        heads: of the columns.
        rows: texts, printed as they are: names in them are a user's.
        title: line above.
        numeric: heads of columns that are flush right.
        folded: heads of columns of words, which are folded rather than moved below.
    """
    from rich.table import Table
    from rich.text import Text

    terminal = console()
    widths = [
        len(head) if head in folded else max(map(len, column))
        for head, *column in zip(heads, heads, *rows, strict=True)
    ]
    if title:
        terminal.print(Text(plain(title), style="bold"))
    for places in _blocks([width + GAP for width in widths], terminal.width + GAP):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place in places:
            head = heads[place]
            table.add_column(
                Text(head),
                justify="right" if head in numeric else "left",
                no_wrap=head not in folded,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(plain(row[place])) for place in places))
        terminal.print(table)


def print_view(view: TableView) -> None:
    """Print a table of results."""
    from iqa_reports import print_table as show

    show(view, console())


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide columns into blocks that fit side by side, each with the first column at its head."""
    blocks = [[0]]
    for place, width in enumerate(widths[1:], start=1):
        if len(blocks[-1]) > 1 and sum(widths[p] for p in blocks[-1]) + width > room:
            blocks.append([0])
        blocks[-1].append(place)
    return blocks
