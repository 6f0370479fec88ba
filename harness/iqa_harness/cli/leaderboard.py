"""`iqa-harness leaderboard`: one page over the runs of many days and machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.outputs import require_folder
from iqa_harness.cli.report import explanations
from iqa_harness.errors import ExitCode


def leaderboard(
    places: Annotated[
        list[str],
        typer.Argument(help="Stores (folders or URLs), folders with stores below them, or folders of runs."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for leaderboard.md and leaderboard.html.")
    ] = Path("reports"),
) -> None:
    """Merge runs into one leaderboard; runs of other suites or data stand apart, never in one table.

    Reads the tables that `iqa-harness report` or `attack` stored and computes no attack. A run that cannot be
    read is named and left out (exit code 4); a table of other cells than its run has is shown and said to be.
    """
    from rich.console import Console

    from iqa_harness.reporting.results import results_frame
    from iqa_harness.reporting.runs import find_runs, read_runs
    from iqa_reports import Inputs, build_report, print_report
    from iqa_reports.leaderboard import write_leaderboard

    require_folder(out, "--out")
    runs, unread = read_runs(find_runs(places), intervals=False)
    frames = {"results": results_frame(runs)} if runs else {}
    report = build_report(
        Inputs(runs, frames, unread=unread, papers=False, figures=False, explanations=explanations())
    )
    written = write_leaderboard(report, out)
    print_report(report, Console(), full=False)
    for path in written:
        typer.echo(f"page   {path}")
    raise typer.Exit(ExitCode.PARTIAL if unread else ExitCode.OK)
