"""`iqa-harness baseline`: keep what a run's models scored, look at it, compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption
from iqa_harness.cli.command import Answer, App
from iqa_harness.cli.printing import comparable, print_figures, print_outcome
from iqa_harness.machine.terminal import say

if TYPE_CHECKING:
    from iqa_results import Baseline

app = App(no_args_is_help=True, help="Baselines: what the gate compares runs with.")

BaselineArgument = Annotated[Path, typer.Argument(help="Folder of the baseline.")]


@app.command()
def save(
    name: Annotated[str, typer.Argument(help="Name of the baseline, its folder.")],
    run: Annotated[str, typer.Option("--run", help="Run to save.")],
    store: ResultsOption = DEFAULT_STORE,
    folder: Annotated[Path, typer.Option("--folder", help="Where baselines are kept.")] = Path(
        "results/baselines"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a baseline of that name.")] = False,
) -> Answer:
    """Save a complete run as a baseline."""
    from iqa_harness.api import gate as api

    where, record = api.save_baseline(name, run, store=store, folder=folder, force=force)
    models = ", ".join(m.name for m in record.models)
    say(f"{where}: {models}; suite {record.suite}, {record.images} images")
    return Answer({"folder": where, "baseline": record})


@app.command()
def show(baseline: BaselineArgument) -> Answer:
    """Print a baseline's record and its values."""
    from iqa_harness.api import gate as api

    found = api.show_baseline(baseline)
    record = found.before.record
    made = record.provenance
    say(f"baseline {record.name}: run {record.run}, suite {record.suite} ({record.suite_sha256[:12]})")
    say(
        f"data {record.data}, {record.split}, {record.images} images, {record.label} "
        f"({record.data_sha256[:12]})"
    )
    say(
        f"made with iqa-harness {made.packages.get('iqa-harness')}, commit {made.commit or 'unknown'}, "
        f"{made.device}"
    )
    say(f"noise floor: {_noise(record)}")
    rows = []
    for c in found.comparisons:
        value = "-" if c.before is None else f"{c.before:.3f}"
        shown = c.reason.partition(" -> ")[0] if c.row == "verdict" else value
        member = f" ({c.attack}/{c.objective})" if c.attack else ""
        rows.append((c.model, c.row + member, c.metric, shown))
    print_figures(("model", "value", "metric", "stored"), rows, names=3)
    return Answer(lambda: {"baseline": record, "values": found.comparisons})


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="Folder of a baseline.")],
    after: Annotated[Path, typer.Argument(help="Folder of another one.")],
) -> Answer:
    """Compare two baselines; exit code 0 whatever changed, 2 if they cannot be compared."""
    from iqa_harness.api import gate as api

    found = comparable(lambda: api.diff_baselines(before, after))
    print_outcome(found)
    return Answer(found.summary)


def _noise(record: Baseline) -> str:
    if not record.noise:
        return "not measured (`iqa-harness gate --calibrate`)"
    largest = max(record.noise, key=lambda f: f.floor)
    return (
        f"at most {largest.floor:.4f} ({largest.model} {largest.row} {largest.metric}), "
        f"from {largest.runs} runs"
    )
