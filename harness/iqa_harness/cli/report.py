"""`iqa-harness report` and `leaderboard`: tables and figures of runs and studies, of one store or many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, CacheOption, PluginOption, ResultsOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_written, say_where
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import console


def report(
    run: Annotated[
        list[str] | None, typer.Argument(help="Names of runs in the store; comparable ones are merged.")
    ] = None,
    store: ResultsOption = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the files.", show_default="report/ in the run's folder"),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="html, markdown, csv, latex, svg or png; repeat for more.", show_default="all"
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            help="Parquet of evaluate, diagnose or profile, or a folder of them, of studies and of training "
            "folders, for the papers' tables and figures. Repeat.",
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show values the papers print beside ours, named as such.")
    ] = False,
    images: Annotated[
        int,
        typer.Option(
            "--images", min=0, help="Images a model in the page, worst first; attacked again unless kept."
        ),
    ] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Print every table, not the leaderboard alone.")
    ] = False,
    cache: CacheOption = None,
    plugin: PluginOption = [],  # noqa: B006 - only read
) -> Answer:
    """Compute runs' tables from their rows; print them, write the page, Markdown, CSV, LaTeX and figures."""
    from iqa_harness.api.report import report as write

    written = write(
        run or (), store=store, out=out, formats=formats or None, inputs=inputs or (), published=published,
        images=images, cache=cache, plugins=plugin,
    )  # fmt: skip
    print_written(written, full=full)
    return Answer(written.summary)


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
