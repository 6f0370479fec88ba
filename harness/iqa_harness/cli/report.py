"""`iqa-harness report`: tables and figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption, report_folder

if TYPE_CHECKING:
    from iqa_results import ResultStore


def report(
    run: Annotated[str, typer.Argument(help="Name of the run in the store.")],
    store: ResultsOption = str(DEFAULT_STORE),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the files [default: report/ in the run's folder]."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print every table, not the leaderboard alone.")
    ] = False,
) -> None:
    """Compute a run's tables from its stored rows, print them and write Markdown, HTML and figures."""
    from iqa_results import ResultStore

    results = ResultStore(store)
    write_report(results, run, out or report_folder(results, run), full=full)


def write_report(store: ResultStore, run: str, out: Path, *, full: bool = False) -> None:
    """Aggregate a run, store its tables, print the leaderboard and write the report's files."""
    from rich.console import Console

    from iqa_harness.aggregate import robustness_table
    from iqa_harness.run import refreshed
    from iqa_reports import print_leaderboard, print_report, render_report

    manifest = refreshed(store, store.read_manifest(run))
    result = robustness_table(store, manifest)
    result.write(store, run)
    table = store.run_folder(run) / "table.parquet"
    written = render_report(manifest, result.table, result.intervals, out)
    console = Console()
    (print_report if full else print_leaderboard)(manifest, result.table, console)
    page = next(path for path in written if path.suffix == ".html")
    for what, where in (("page", page), ("table", table), ("rows", store.root / "cells")):
        console.print(f"{what:6} {where}", highlight=False, soft_wrap=True)
