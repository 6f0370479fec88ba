"""`iqa-harness leaderboard`: one page over the runs of many days and machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import say_where
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import console


def leaderboard(
    places: Annotated[
        list[str],
        typer.Argument(help="Stores (folders or URLs), folders with stores below them, or folders of runs."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for leaderboard.md and leaderboard.html.")
    ] = Path("reports"),
) -> Answer:
    """Merge runs into one leaderboard; runs of other suites or data stand apart, never in one table.

    Reads the tables that `iqa-harness report` or `attack` stored and computes no attack. A run that cannot be
    read is named and left out (exit code 4); a table of other cells than its run has is shown and said to be.
    """
    from iqa_harness.api.report import leaderboard as merge
    from iqa_reports import print_report

    written = merge(places, out=out)
    print_report(written.report, console(), full=False)
    for path in written.files:
        say_where("page", path)
    return Answer(written.summary, ExitCode.PARTIAL if written.unread else ExitCode.OK)
