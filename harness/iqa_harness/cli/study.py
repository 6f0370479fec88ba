"""`iqa-harness study`: a grid of training runs and one table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    PluginOption,
    StoreOption,
    run_plugins,
    set_up_torch,
)
from iqa_harness.cli.outputs import require_folder
from iqa_harness.cli.train import (
    DataOption,
    How,
    RangeOption,
    SetOption,
    Source,
    numbers,
    set_name,
    train_config,
)
from iqa_harness.errors import ExitCode, HarnessError
from iqa_harness.training import read_changes

if TYPE_CHECKING:
    import pyarrow as pa

    from iqa_harness.data import ImageSet
    from iqa_harness.studies.study import Study, StudyRow
    from iqa_harness.studies.table import RowResult, Worst


def study(
    name: Annotated[str, typer.Argument(help="Study by name (see --list), or the path of a TOML file.")] = "",
    data: DataOption = None,
    mos_range: RangeOption = None,
    settings: SetOption = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="0,1,2: other seeds than the study's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of runs and table [default: studies/NAME in the store]."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
    device: DeviceOption = "cpu",
    save_every: Annotated[
        int, typer.Option("--save-every", min=0, help="Steps between saved states; 0 saves once an epoch.")
    ] = 200,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Attack suite for the worst cases [default: the study's].")
    ] = None,
    no_attack: Annotated[
        bool, typer.Option("--no-attack", help="Train and score only; run no suite.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the study and its rows; train nothing.")
    ] = False,
    known: Annotated[
        bool, typer.Option("--list", help="Print the studies that ship with the harness.")
    ] = False,
) -> None:
    """Train every point of a study on every seed and print one table; finished runs are kept."""
    from iqa_harness.studies.study import list_studies, load_study, study_rows

    if known or not name:
        for one in list_studies():
            typer.echo(f"{one}: {load_study(one)[0].summary}")
        return
    loaded, text = load_study(name)
    if seeds is not None:
        loaded = loaded.model_copy(update={"seeds": tuple(numbers(seeds))})
    if suite is not None:
        loaded = loaded.model_copy(update={"suite": suite})
    changes = read_changes(settings or [])
    if data is not None:
        changes.setdefault("data", set_name(data))
    run_plugins(plugin)
    rows = study_rows(loaded, changes)
    if show:
        typer.echo(f"{text}\n# {len(rows)} row(s), seeds {', '.join(map(str, loaded.seeds))}")
        for row in rows:
            typer.echo(f"# {row.label}: {row.settings}")
        return
    require_folder(out, "--out")
    require_folder(store, "--store")
    set_up_torch(device, None)
    if loaded.suite is not None and not no_attack:
        from iqa_suites import load_suite

        load_suite(loaded.suite)  # what is wrong with it is known before hours of training
    folder = out or store / "studies" / loaded.name
    how = How(device, save_every, backbone_weights=backbone_weights)
    source = Source(data, mos_range, cache)
    results = [_run_row(row, source, folder, how) for row in rows]
    worst: dict[tuple[str, int], Worst] = {}
    if loaded.suite is not None and not no_attack:
        worst = _worst_cases(loaded, results, folder, source, store, how)
    _write(loaded, results, worst, folder)
    raise typer.Exit(ExitCode.PARTIAL if any(result.failures for result in results) else ExitCode.OK)


def _run_row(row: StudyRow, source: Source, folder: Path, how: How) -> RowResult:
    """Train a row's runs; one that cannot be trained is recorded, the others go on."""
    from iqa_harness.errors import DataError
    from iqa_harness.studies.table import RowResult
    from iqa_harness.training.figures import Figures, figures_of
    from iqa_models.errors import ModelError

    figures: dict[int, Figures] = {}
    failures: dict[int, str] = {}
    data: ImageSet | None = None
    for seed, config in row.configs.items():
        data = data or source.open(config)
        path = run_folder(folder, row.label, seed)
        try:
            train_config(config, data, path, how)
            figures[seed] = figures_of(path, data, how.device)
        except DataError:
            raise  # the images are the same for all rows
        except (HarnessError, ModelError) as error:
            failures[seed] = str(error)
            typer.echo(f"failed: {row.label}, seed {seed}: {error}", err=True)
    return RowResult(row, figures, failures)


def _worst_cases(
    study: Study, results: list[RowResult], folder: Path, source: Source, store: Path, how: How
) -> dict[tuple[str, int], Worst]:
    """Run the study's suite on all checkpoints; return suite_min and composed at its main radius."""
    from iqa_harness.cli.arguments import ModelArgument, load_entrant
    from iqa_harness.cli.attack import run_and_report
    from iqa_harness.reporting.insights import write_frame
    from iqa_results import ResultStore
    from iqa_suites import load_suite

    names = {
        f"{result.row.label}.seed{seed}": (result.row.label, seed)
        for result in results
        for seed in result.figures
    }
    entrants = [
        load_entrant(ModelArgument(label, "", {}, run_folder(folder, *place)))
        for label, place in names.items()
    ]
    suite = str(study.suite)
    run = f"study-{study.name}"
    run_and_report(
        suite, entrants, run=run, data=source.data, mos_range=source.mos_range, store=store,
        device=how.device, chunk=8, max_states=64, cache=source.cache, replace=True,
    )  # fmt: skip
    tested = {figures.data for result in results for figures in result.figures.values()}
    write_frame(folder / f"{study.name}-worst.parquet", _frame_of(store, run, list(names), tested))
    main = float(load_suite(suite).suite.main_epsilon)
    worst: dict[tuple[str, int], Worst] = {}
    table = ResultStore(store).read_table(run).to_pylist()
    for label, place in names.items():
        values: dict[str, float | None] = {}
        for row in table:
            at_main = row["metric"] == "srocc" and abs(row["epsilon"] - main) < 1e-12
            if row["model"] == label and at_main and row["row"] in ("suite_min", "composed"):
                radius = f"{main * 255:.4g}/255" if row["norm"] == "inf" else f"{main:.4g}"
                values.setdefault("attacked set, clean", row["clean"])
                values[f"{row['row']} {row['norm']} {radius}"] = row["value"]
        worst[place] = values
    return worst


def _frame_of(store: Path, run: str, models: Sequence[str], tested: Collection[str]) -> pa.Table:
    """Return what a run found of some models as a frame of results, seeds put together.

    Clean values on sets that the checkpoints were tested on stand beside the checkpoints already.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from iqa_harness.reporting.results import results_frame
    from iqa_harness.reporting.runs import FoundRun, read_run
    from iqa_results import ResultStore

    found = read_run(FoundRun(ResultStore(store), run), intervals=False)
    rows = found.table
    known = pc.and_(
        pc.equal(rows.column("row"), "clean"),
        pc.is_in(rows.column("data"), pa.array(sorted(tested), pa.string())),
    )
    mine = pc.is_in(rows.column("model"), pa.array(models, pa.string()))
    chosen = rows.filter(pc.and_not(mine, known))
    return results_frame([replace(found, table=chosen)])


def _write(study: Study, results: list[RowResult], worst: dict[tuple[str, int], Worst], folder: Path) -> None:
    from iqa_harness.studies.table import study_table
    from iqa_harness.training.tables import print_table, write_table

    table = study_table(results, worst)
    print_table(f"{study.name}: {study.summary}", table)
    data = {figures.data for result in results for figures in result.figures.values()}
    notes = [
        *study.notes,
        f"Data: {', '.join(sorted(data)) or 'none'}; SROCC of raw scores, PLCC after a logistic fitted on "
        "val; mean ± sample deviation over seeds.",
    ]
    for path in write_table(folder / study.name, f"{study.name}: {study.summary}", table, notes):
        typer.echo(str(path))


def run_folder(folder: Path, label: str, seed: int) -> Path:
    """Return the folder of one run of a study."""
    return folder / label / f"seed-{seed}"
