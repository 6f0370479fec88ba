"""`iqa-harness attack`: run a suite on models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    ModelsOption,
    PluginOption,
    StoreOption,
    ThreadsOption,
    load_entrant,
    parse_model,
    run_plugins,
    set_up_torch,
)
from iqa_harness.cli.report import write_report
from iqa_harness.errors import ExitCode, RunError

if TYPE_CHECKING:
    from iqa_harness.plan import Entrant
    from iqa_results import RunManifest


def attack(
    suite: Annotated[str, typer.Option("--suite", "-s", help="Suite by name, or the path of a TOML file.")],
    model: ModelsOption,
    run: Annotated[str | None, typer.Option("--run", help="Name of the run [default: the suite's].")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Other images: demo, koniq10k:/folder, a CSV, ...")
    ] = None,
    mos_range: Annotated[
        tuple[float, float] | None, typer.Option("--mos-range", help="Ends of a CSV's label scale.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    chunk: Annotated[int, typer.Option(min=1, help="Images in one forward or backward pass.")] = 8,
    max_states: Annotated[int, typer.Option(min=1, help="Starts (images x restarts) run together.")] = 64,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed; compute nothing.")
    ] = False,
) -> None:
    """Run a suite on models; cells that are in the store already are not computed again."""
    set_up_torch(device, threads)
    run_plugins(plugin)
    entrants = [load_entrant(parse_model(text), backbone_weights) for text in model]
    code = run_and_report(
        suite, entrants, run=run, data=data, mos_range=mos_range, store=store, device=device, chunk=chunk,
        max_states=max_states, cache=cache, dry_run=dry_run,
    )  # fmt: skip
    raise typer.Exit(code)


def run_and_report(
    suite: str,
    entrants: Sequence[Entrant],
    *,
    run: str | None,
    data: str | None,
    mos_range: tuple[float, float] | None,
    store: Path,
    device: str,
    chunk: int,
    max_states: int,
    cache: Path | None,
    dry_run: bool = False,
) -> ExitCode:
    """Plan and run a suite with progress, then print and write its report."""
    from rich.console import Console

    from iqa_harness.cell import Runtime
    from iqa_harness.data import open_data
    from iqa_harness.plan import plan
    from iqa_harness.run import missing_cells
    from iqa_results import ResultStore
    from iqa_suites import load_suite

    console = Console(stderr=True)
    results = ResultStore(store)
    loaded = load_suite(suite)
    results.run_folder(run or loaded.suite.name)  # refuses a bad name before anything is made
    if mos_range is not None and data is None:
        raise RunError("--mos-range goes with --data; for the suite's own CSV write mos_range in its [data]")
    if data is not None:
        loaded = loaded.on_data(data, mos_range)
    settings = loaded.suite.data
    images = open_data(settings.name, cache_dir=cache, mos_range=settings.mos_range)
    work = plan(loaded.suite, entrants, images)
    missing = missing_cells(work, results)
    console.print(
        f"suite {loaded.suite.name}: {len(entrants)} model(s), {len(work.images)} images of "
        f"{images.card.name}, "
        f"{len(work.cells)} cells, {len(work.cells) - len(missing)} in the store, {len(missing)} to compute",
        highlight=False,
    )
    if dry_run:
        return ExitCode.OK
    runtime = Runtime(device=device, chunk=chunk, max_states=max_states)
    manifest = _run_with_progress(
        console, work, entrants, loaded.text, results, run or loaded.suite.name, runtime
    )
    write_report(results, manifest.run, store / "runs" / manifest.run / "report")
    for cell in manifest.cells:
        if cell.error:
            first = cell.error.split("\n", 1)[0]
            console.print(
                f"failed: {cell.model}, {cell.attack}, images from {cell.first}: {first}", highlight=False
            )
    return ExitCode.OK if manifest.status == "complete" else ExitCode.PARTIAL


def _run_with_progress(console, work, entrants, text, results, run, runtime) -> RunManifest:  # type: ignore[no-untyped-def]
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from iqa_harness.run import run_suite

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("attacking", total=len(work.cells))

        def on_cell(cell, status) -> None:  # type: ignore[no-untyped-def]
            progress.update(task, advance=1, description=f"{cell.label} {cell.attack_name}")

        return run_suite(work, entrants, text, results, run, runtime, on_cell)
