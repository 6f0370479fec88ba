"""`iqa-harness attack`: run a suite on models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    ModelsOption,
    PluginOption,
    ResultsOption,
    ThreadsOption,
    load_entrant,
    parse_model,
    report_folder,
    run_plugins,
    set_up_torch,
    tell_notes,
)
from iqa_harness.cli.executing import (
    AddressOption,
    CpusOption,
    ExecutorOption,
    GpusOption,
    SetOption,
    Where,
    WorkersOption,
    make_executor,
)
from iqa_harness.cli.outputs import require_folder
from iqa_harness.cli.report import write_report
from iqa_harness.cli.verify import judge_run
from iqa_harness.errors import ExitCode, RunError

if TYPE_CHECKING:
    from rich.console import Console

    from iqa_harness.cells.compute import Runtime
    from iqa_harness.cells.plan import Cell, Entrant, Selection, Work
    from iqa_harness.running.executors import Executor
    from iqa_results import ResultStore, RunManifest


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
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Only the first so many images; every table says so."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--images", help="Only the image of this id; every table says so. Repeat for more."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="Compute this attack only (or `clean`); the rest stays to do. Repeat for more."
        ),
    ] = None,
    keep_images: Annotated[
        bool,
        typer.Option(
            "--keep-images", help="Store the attacked images too, bit for bit: new models are tried on them."
        ),
    ] = False,
    store: ResultsOption = str(DEFAULT_STORE),
    device: Annotated[
        str, typer.Option("--device", help="Torch device: cpu, cuda, cuda:1, ...; several as cuda:0,cuda:1.")
    ] = "cpu",
    threads: ThreadsOption = None,
    chunk: Annotated[int, typer.Option(min=1, help="Images in one pass; halved where memory runs out.")] = 8,
    max_states: Annotated[int, typer.Option(min=1, help="Starts (images x restarts) run together.")] = 64,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    address: AddressOption = "local",
    cpus: CpusOption = None,
    gpus: GpusOption = 0.0,
    settings: SetOption = None,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a model's verdict is not sound.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be computed and about what it costs; compute nothing."
        ),
    ] = False,
) -> None:
    """Run a suite on models; cells that are in the store already are not computed again.

    It can be stopped at any moment; the same command goes on from there. A cell that failed is tried again.
    """
    from iqa_harness.cells.plan import Selection

    if not dry_run:
        require_folder(store, "--store")
    where = Where(executor, workers, device, threads, address, cpus, gpus, tuple(settings or ()))
    for name in where.devices:
        set_up_torch(name, threads)
    run_plugins(plugin)
    files = tuple(plugin or ())
    entrants = [load_entrant(parse_model(text), backbone_weights, files) for text in model]
    tell_notes(entrants, store)
    code = run_and_report(
        suite, entrants, run=run, data=data, mos_range=mos_range, store=store, device=where.devices[0],
        chunk=chunk, max_states=max_states, cache=cache, dry_run=dry_run, where=where,
        selection=Selection(limit, tuple(image or ())), only=only, keep_images=keep_images,
    )  # fmt: skip
    if strict and code == ExitCode.OK and not dry_run:
        code = judge_run(store, suite, run)
    raise typer.Exit(code)


def run_and_report(
    suite: str,
    entrants: Sequence[Entrant],
    *,
    run: str | None,
    data: str | None,
    mos_range: tuple[float, float] | None,
    store: Path | str,
    device: str,
    chunk: int,
    max_states: int,
    cache: Path | None,
    dry_run: bool = False,
    where: Where | None = None,
    selection: Selection | None = None,
    only: Sequence[str] | None = None,
    keep_images: bool = False,
    replace: bool = False,
) -> ExitCode:
    """Plan and run a suite with progress, then print and write its report.

    With `replace` a model that was trained again takes its name in the run from the former one, and says so.
    """
    from rich.console import Console

    from iqa_harness.cells.compute import Runtime
    from iqa_harness.cells.plan import Selection, plan
    from iqa_harness.data import open_data
    from iqa_harness.running.run import replaced_models
    from iqa_results import ResultStore
    from iqa_suites import load_suite

    console = Console(stderr=True)
    results = ResultStore(store)
    chosen = make_executor(where or Where(), results)
    loaded = load_suite(suite)
    results.run_folder(run or loaded.suite.name)  # refuses a bad name before anything is made
    if mos_range is not None and data is None:
        raise RunError("--mos-range goes with --data; for the suite's own CSV write mos_range in its [data]")
    if data is not None:
        loaded = loaded.on_data(data, mos_range)
    settings = loaded.suite.data
    images = open_data(settings.name, cache_dir=cache, mos_range=settings.mos_range)
    work = plan(loaded.suite, entrants, images, selection or Selection())
    _refuse_unknown(only, work)
    _tell_plan(console, work, entrants, results, only)
    if dry_run:
        return ExitCode.OK
    runtime = Runtime(device=device, chunk=chunk, max_states=max_states)
    for label in replaced_models(results, run or loaded.suite.name, work) if replace else ():
        console.print(
            f"{label} is another model than the run held; cells of the former one are of no run now "
            "(`iqa-harness runs gc`)",
            highlight=False,
            markup=False,
            emoji=False,
        )
    manifest = _run_with_progress(
        console,
        work,
        entrants,
        loaded.text,
        results,
        run or loaded.suite.name,
        runtime,
        chosen,
        only,
        keep_images,
        replace,
    )
    write_report(results, manifest.run, report_folder(results, manifest.run))
    state = {cell.key: cell for cell in manifest.cells}
    for cell in manifest.cells:
        if cell.error:
            first = cell.error.split("\n", 1)[0]
            console.print(
                f"failed: {cell.model}, {cell.attack}, images from {cell.first}: {first}",
                highlight=False,
                markup=False,
                emoji=False,
            )
    # Not only what was missing: a stored part may have been found damaged and failed to be made again.
    asked = [state[cell.key] for cell in work.cells if not only or cell.family in only]
    return ExitCode.OK if all(c.status == "done" and not c.error for c in asked) else ExitCode.PARTIAL


def _refuse_unknown(only: Sequence[str] | None, work: Work) -> None:
    known = list(dict.fromkeys(cell.family for cell in work.cells))
    for name in only or ():
        if name not in known:
            raise RunError(f"--only {name}: no attack of the suite; there are {', '.join(known)}")


def _tell_plan(
    console: Console, work: Work, entrants: Sequence[Entrant], store: ResultStore, only: Sequence[str] | None
) -> None:
    """Say what is there, what is to do and about what it costs."""
    from iqa_harness.cells.estimate import Experience, by_model_and_attack
    from iqa_harness.running.run import missing_cells
    from iqa_harness.wording import in_words

    missing = missing_cells(work, store)
    todo = [cell for cell in missing if not only or cell.family in only]
    left = f", {len(missing) - len(todo)} left out by --only" if len(todo) < len(missing) else ""
    console.print(
        f"suite {work.suite.name}: {len(entrants)} model(s), {len(work.images)} images of "
        f"{work.images.card.name}, "
        f"{len(work.cells)} cells, {len(work.cells) - len(missing)} in the store, "
        f"{len(todo)} to compute{left}",
        highlight=False,
        markup=False,
        emoji=False,
    )
    if work.selection:
        console.print(f"only {work.selection}", highlight=False, markup=False, emoji=False)
    if not todo:
        return
    experience = Experience(_readable(store))
    sha256 = work.suite.sha256
    for (label, attack), cells in by_model_and_attack(todo).items():
        each = experience.of(cells, sha256)
        time = f", about {in_words(each.seconds)}" if each.seconds is not None else ""
        console.print(
            f"  {label} {attack}: {each.cells} cells, about {each.backwards:,.0f} gradients and "
            f"{each.forwards:,.0f} evaluations{time}",
            highlight=False,
            markup=False,
            emoji=False,
        )
    whole = experience.of(todo, sha256)
    time = "not known before the first cells" if whole.seconds is None else f"about {in_words(whole.seconds)}"
    console.print(
        f"  together about {whole.backwards:,.0f} gradients; time on one worker: {time}", highlight=False
    )


def _readable(store: ResultStore) -> Iterator[RunManifest]:
    """Yield the manifests of a store; one that is damaged is no reason not to run."""
    from iqa_results import BadManifest

    for name in store.list_runs():
        with suppress(BadManifest):
            yield store.read_manifest(name)


def _run_with_progress(
    console: Console,
    work: Work,
    entrants: Sequence[Entrant],
    text: str,
    results: ResultStore,
    run: str,
    runtime: Runtime,
    executor: Executor,
    only: Sequence[str] | None,
    keep_images: bool,
    replace: bool,
) -> RunManifest:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from iqa_harness.running.run import missing_cells, run_suite

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        left = sum(cell.family not in only for cell in missing_cells(work, results)) if only else 0
        task = progress.add_task("attacking", total=len(work.cells) - left)

        def on_cell(cell: Cell, status: str) -> None:
            progress.update(task, advance=1, description=f"{cell.label} {cell.attack_name}")

        return run_suite(
            work, entrants, text, results, run, runtime, on_cell,
            executor=executor, only=only or None, keep_images=keep_images, replace=replace,
        )  # fmt: skip
