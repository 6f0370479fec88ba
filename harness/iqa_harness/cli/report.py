"""`iqa-harness report`: tables and figures of runs and studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    CacheOption,
    PluginOption,
    ResultsOption,
    report_folder,
    run_plugins,
)
from iqa_harness.cli.outputs import require_folder
from iqa_harness.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from iqa_reports import Inputs
    from iqa_results import ResultStore, RunManifest

BRIEF = ("html", "markdown")
"""What a run's own end writes; `report` writes every format."""


def report(
    run: Annotated[
        list[str] | None, typer.Argument(help="Names of runs in the store; comparable ones are merged.")
    ] = None,
    store: ResultsOption = str(DEFAULT_STORE),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the files [default: report/ in the run's folder]."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="html, markdown, csv, latex, svg or png; repeat [default: all]."),
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
            "--images", min=0, help="Worst images a model in the page; their attacks are run again."
        ),
    ] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Print every table, not the leaderboard alone.")
    ] = False,
    cache: CacheOption = None,
    plugin: PluginOption = None,
) -> None:
    """Compute runs' tables from their rows; print them, write the page, Markdown, CSV, LaTeX and figures."""
    from iqa_reports import FORMATS
    from iqa_results import ResultStore

    unknown = sorted(set(formats or ()) - set(FORMATS))
    if unknown:
        raise RunError(f"--format {', '.join(unknown)}: no such format; there are {', '.join(FORMATS)}")
    runs = list(dict.fromkeys(run or ()))
    if not runs and not inputs:
        raise RunError("nothing to report: name a run, or give files with --input")
    if out is None and len(runs) != 1:
        raise RunError("several runs or none have no folder of their own: say where with --out")
    results = ResultStore(store)
    require_folder(out, "--out")
    if runs:
        require_folder(store, "--store")  # their tables are written there
    out = out or report_folder(results, runs[0])
    run_plugins(plugin)
    manifests = [aggregate(results, name) for name in runs]
    made = gather(
        results,
        manifests,
        inputs or [],
        published=published,
        images=images,
        cache=cache,
        plugged=bool(plugin),
    )
    _write(made, out, formats or FORMATS, full=full)
    _say_tables(results, runs)


def write_report(store: ResultStore, run: str, out: Path, *, full: bool = False) -> None:
    """Aggregate a run, store its tables, print the leaderboard and write the page and Markdown."""
    with store.locked_run(run):  # of two processes the later one sees the cells of both
        _write(gather(store, [aggregate(store, run)], []), out, BRIEF, full=full)
    _say_tables(store, [run])


def aggregate(store: ResultStore, run: str) -> RunManifest:
    """Compute a run's tables from its rows and store them; return its manifest as the store has it now."""
    from iqa_harness.running.run import refreshed
    from iqa_harness.tables.robustness import robustness_table

    manifest = refreshed(store, store.read_manifest(run))
    result = robustness_table(store, manifest)
    result.write(store, run)
    return manifest


def gather(
    store: ResultStore,
    manifests: Sequence[RunManifest],
    inputs: Sequence[Path],
    *,
    published: bool = False,
    images: int = 0,
    cache: Path | None = None,
    plugged: bool = False,
) -> Inputs:
    """Read everything a report shows: runs, other commands' files, worst images; plugins were run before."""
    import dataclasses

    from iqa_harness.reporting.inputs import read_inputs
    from iqa_harness.reporting.results import results_frame
    from iqa_harness.reporting.runs import FoundRun, read_run
    from iqa_reports import Inputs, rows_of
    from iqa_reports.inputs.frames import Cost, Result

    stored = [dataclasses.replace(read_run(FoundRun(store, m.run)), manifest=m) for m in manifests]
    frames = read_inputs(inputs)
    if images:
        from iqa_harness.reporting.worst_images import check_count, worst_images

        check_count(images, stored)
        stored = [
            dataclasses.replace(run, triptychs=worst_images(store, run, images, cache=cache, plugged=plugged))
            for run in stored
        ]
    if inputs or len(stored) > 1:
        more = rows_of(frames["results"], Result) if "results" in frames else []
        costs = rows_of(frames["costs"], Cost) if "costs" in frames else []
        frames["results"] = results_frame(stored, more, costs)
    return Inputs(stored, frames, published=published, explanations=explanations())


def explanations() -> dict[str, str]:
    """Return a paragraph on every flag."""
    from iqa_harness.evidence.flags import FLAGS

    return {name: kind.meaning for name, kind in FLAGS.items()}


def _write(made: Inputs, out: Path, formats: Collection[str], *, full: bool) -> None:
    from rich.console import Console

    from iqa_reports import build_report, print_report, render_report

    report_ = build_report(made)
    written = render_report(report_, out, formats)
    print_report(report_, Console(), full=full)
    page = next((path for path in written if path.suffix == ".html"), None)
    _say_where("page" if page else "files", page or out)


def _say_tables(store: ResultStore, runs: Sequence[str]) -> None:
    for name in runs:
        _say_where("table", store.run_folder(name) / "table.parquet")
    if runs:
        _say_where("rows", store.root / "cells")


def _say_where(what: str, where: object) -> None:
    typer.echo(f"{what:6} {where}")
