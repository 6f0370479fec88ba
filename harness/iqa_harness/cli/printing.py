"""What several commands print: lists, figures, tables, a report, where its files are, what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

from iqa_harness.errors import ExitCode, NotComparable
from iqa_harness.machine.terminal import console, plain, say

if TYPE_CHECKING:
    from iqa_harness.api.report import Written
    from iqa_harness.api.run import Run
    from iqa_harness.gating.outcome import Outcome
    from iqa_reports import TableView

T = TypeVar("T")


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


def print_written(written: Written, *, full: bool = False) -> None:
    """Print a report's tables, and where its page, files and rows are."""
    from iqa_reports import print_report

    print_report(written.report, console(), full=full)
    if written.page is not None:
        say_where("page", written.page)
    else:
        say_where("files", written.folder)
    for table in written.tables:
        say_where("table", table)
    if written.rows is not None:
        say_where("rows", written.rows)


def print_run(run: Run) -> None:
    """Write a run's page and Markdown, print its leaderboard, and say what failed and where everything is."""
    from iqa_harness.api.report import BRIEF

    print_written(run.report(formats=BRIEF))
    for cell in run.failed:
        first = (cell.error or "").split("\n", 1)[0]
        say(f"failed: {cell.model}, {cell.attack}, images from {cell.first}: {first}", err=True)


def speed_lines(run: Run) -> list[str]:
    """Say what the attacks of a run went at: a line a model and kind of device."""
    lines = []
    for each in run.throughput:
        parts = [f"{each.gradients:,.1f} gradients/s", f"{each.images:,.2f} images/s"]
        if each.share is not None:
            parts.append(f"{each.share:.1%} of the bf16 peak")
        if each.peak_memory is not None:
            parts.append(f"{each.peak_memory / 1e9:,.2f} GB at most")
        lines.append(f"speed: {each.model} on {each.device}: {', '.join(parts)}")
    return lines


def say_where(what: str, where: object) -> None:
    """Say where something was written."""
    say(f"{what:6} {where}")


def comparable(compare: Callable[[], T]) -> T:
    """Run a comparison; runs that cannot be compared end in one line and exit code 2."""
    try:
        return compare()
    except NotComparable as error:
        say(f"iqa-harness: not comparable: {error}", err=True)
        raise typer.Exit(ExitCode.NOT_COMPARABLE) from error


def print_outcome(found: Outcome) -> None:
    """Print what a comparison found."""
    print_view(found.view)
    for note in found.notes:
        say(f"note: {note}")
    for line in found.lines():
        say(line)


def code_of(run: Run, *, strict: bool = False) -> ExitCode:
    """Return a run's exit code: partial if a cell is missing, with `strict` found if a model is not sound."""
    from iqa_harness.api.verify import judged

    if not run.complete:
        return ExitCode.PARTIAL
    if not strict:
        return ExitCode.OK
    verdicts = judged(run.store.read_table(run.name, "flags").to_pylist(), run.manifest)
    for each in verdicts:
        for line in each.lines():
            say(line)
    return ExitCode.OK if all(each.verdict == "sound" for each in verdicts) else ExitCode.FOUND
