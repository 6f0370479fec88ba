"""`iqa-harness baseline`: keep what a run's models scored, look at it, compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption
from iqa_harness.cli.outputs import require_folder
from iqa_harness.errors import ExitCode, NotComparable

if TYPE_CHECKING:
    from iqa_harness.gate.baselines import Standpoint
    from iqa_harness.gate.regressions import Gated
    from iqa_harness.measures.correlation import Metric

app = typer.Typer(no_args_is_help=True, help="Baselines: what the gate compares runs with.")

BaselineArgument = Annotated[Path, typer.Argument(help="Folder of the baseline.")]
DEFAULT_FOLDER = Path("results/baselines")


@app.command()
def save(
    name: Annotated[str, typer.Argument(help="Name of the baseline, its folder.")],
    run: Annotated[str, typer.Option("--run", help="Run to save.")],
    store: ResultsOption = str(DEFAULT_STORE),
    folder: Annotated[Path, typer.Option("--folder", help="Where baselines are kept.")] = DEFAULT_FOLDER,
    force: Annotated[bool, typer.Option("--force", help="Replace a baseline of that name.")] = False,
) -> None:
    """Save a complete run as a baseline."""
    from iqa_harness.errors import RunError
    from iqa_harness.gate.regressions import undefined_values
    from iqa_harness.gate.side import require_whole
    from iqa_results import ResultStore, save_baseline

    ResultStore(folder).run_folder(name)  # refuses a name that is no plain file name
    where = folder / name
    if where.exists() and not force:
        raise RunError(f"{where} exists; --force replaces it")
    require_folder(folder, "--folder")
    side = side_of_run(store, run, name)
    require_whole(side, [m.name for m in side.record.models])
    lost = undefined_values(side, ("srocc",))
    if lost:
        raise RunError(f"run {run!r} has no value of {lost[0]}: nothing could be worse than that")
    rows = [{str(k): v for k, v in row.items()} for row in side.scores.to_dict("records")]
    save_baseline(where, side.record, rows)
    models = ", ".join(m.name for m in side.record.models)
    typer.echo(f"{where}: {models}; suite {side.record.suite}, {side.record.images} images")


@app.command()
def show(baseline: BaselineArgument) -> None:
    """Print a baseline's record and its values."""
    from rich.console import Console
    from rich.table import Table

    from iqa_harness.gate.regressions import find_regressions

    side = side_of_folder(baseline)
    record = side.record
    console = Console()
    made = record.provenance
    for line in (
        f"baseline {record.name}: run {record.run}, suite {record.suite} ({record.suite_sha256[:12]})",
        f"data {record.data}, {record.split}, {record.images} images, {record.label} "
        f"({record.data_sha256[:12]})",
        f"made with iqa-harness {made.packages.get('iqa-harness')}, commit {made.commit or 'unknown'}, "
        f"{made.device}",
        f"noise floor: {_noise(side)}",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "value", "metric"):
        table.add_column(heading)
    table.add_column("stored", justify="right")
    for c in find_regressions(
        side, side, metrics=("srocc", "plcc"), resamples=1, undefined_ok=True
    ).comparisons:
        value = "-" if c.before is None else f"{c.before:.3f}"
        shown = c.reason.partition(" -> ")[0] if c.row == "verdict" else value
        member = f" ({c.attack}/{c.objective})" if c.attack else ""
        table.add_row(c.model, c.row + member, c.metric, shown)
    console.print(table)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="Folder of a baseline.")],
    after: Annotated[Path, typer.Argument(help="Folder of another one.")],
) -> None:
    """Compare two baselines; exit code 0 whatever changed, 2 if they cannot be compared."""
    from iqa_harness.gate.regressions import find_regressions

    old, new = side_of_folder(before), side_of_folder(after)
    print_gated(
        compared(lambda: find_regressions(old, new, metrics=metrics_of(None), undefined_ok=True)), old, new
    )


def side_of_run(store: str | Path, run: str, name: str) -> Standpoint:
    """Return a stored run as one side of a comparison."""
    from iqa_harness.gate.baselines import standpoint
    from iqa_harness.running.run import refreshed
    from iqa_harness.tables.robustness import robustness_table
    from iqa_results import ResultStore

    results = ResultStore(store)
    manifest = refreshed(results, results.read_manifest(run))
    # Values and verdicts are computed from the rows; the intervals of single runs are not needed.
    return standpoint(results, manifest, robustness_table(results, manifest, resamples=1), name)


def side_of_folder(folder: Path) -> Standpoint:
    """Return a baseline as one side of a comparison."""
    from iqa_harness.gate.baselines import Standpoint
    from iqa_results import load_baseline

    record, scores = load_baseline(folder)
    return Standpoint(record, scores.to_pandas())


def metrics_of(names: list[str] | None) -> list[Metric]:
    """Return the metrics a user named, SROCC and PLCC without a name.

    Raises:
        RunError: an unknown one.
    """
    from iqa_harness.errors import RunError
    from iqa_harness.measures.correlation import METRICS

    chosen = [m for m in METRICS if names is None or m in names]
    unknown = [n for n in names or () if n not in METRICS]
    if unknown:
        raise RunError(f"no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    return chosen


def compared(compare) -> Gated:  # type: ignore[no-untyped-def]
    """Run a comparison; runs that cannot be compared end in one line and exit code 2."""
    try:
        return compare()  # type: ignore[no-any-return]
    except NotComparable as error:
        typer.echo(f"iqa-harness: not comparable: {error}", err=True)
        raise typer.Exit(ExitCode.NOT_COMPARABLE) from error


def print_gated(gated: Gated, before: Standpoint, after: Standpoint) -> None:
    """Print what was found."""
    from rich.console import Console

    from iqa_harness.gate.formats import headline, sentence, terminal_table

    console = Console()
    console.print(terminal_table(gated))
    for note in gated.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.print(
        headline(gated, before.record, after.record),
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )
    for regression in gated.regressions:
        console.print(
            f"worse: {sentence(regression)}", highlight=False, soft_wrap=True, markup=False, emoji=False
        )


def _noise(side: Standpoint) -> str:
    if not side.record.noise:
        return "not measured (`iqa-harness gate --calibrate`)"
    largest = max(side.record.noise, key=lambda f: f.floor)
    return (
        f"at most {largest.floor:.4f} ({largest.model} {largest.row} {largest.metric}), "
        f"from {largest.runs} runs"
    )
