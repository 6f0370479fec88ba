"""`iqa-harness gate` and `baseline`: keep what a run's models scored; did a run get worse than that?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption
from iqa_harness.cli.command import Answer, App
from iqa_harness.cli.printing import comparable, print_figures, print_outcome
from iqa_harness.errors import ExitCode, RunError
from iqa_harness.machine.terminal import say

if TYPE_CHECKING:
    from iqa_results import Baseline

baseline_app = App(no_args_is_help=True, help="Baselines: what the gate compares runs with.")
BaselineArgument = Annotated[Path, typer.Argument(help="Folder of the baseline.")]


def gate(
    baseline: Annotated[Path, typer.Option("--baseline", "-b", help="Folder of the baseline.")],
    run: Annotated[
        list[str], typer.Option("--run", "-r", help="Run to compare; with --calibrate, two runs or more.")
    ],
    store: ResultsOption = DEFAULT_STORE,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Fall of a correlation that is let pass.")
    ] = 0.01,
    must_detect: Annotated[
        float | None,
        typer.Option(
            "--must-detect",
            min=0,
            help="Fall that must not be missed: exit code 2 where images and noise hide it.",
            show_default="0.1, or the tolerance if that is more",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="srocc, plcc; repeat for both.", show_default="srocc"),
    ] = None,
    every_attack: Annotated[
        bool, typer.Option("--every-attack", help="Gate every attack by itself, not the worst cases alone.")
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure the noise floor from runs of the same models trained again and store it in the "
            "baseline; nothing is gated.",
        ),
    ] = False,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a summary here.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", help="Write everything here as JSON.")
    ] = None,
) -> Answer:
    """Compare a run with a baseline, image by image.

    Exit codes: 0 no regression, 1 a regression, or a rise that the same model cannot have, 2 not
    comparable, too few images to see a fall that must not be missed (or wrong usage), 3 bad input.
    """
    from iqa_harness.api import gate as api
    from iqa_harness.machine.places import require_file

    for option, file in (("--markdown", markdown), ("--junit", junit), ("--json-file", json_file)):
        require_file(file, option, in_place=True)
    if calibrate and (markdown or junit or json_file):
        raise typer.BadParameter("--calibrate gates nothing: there is nothing to write to a file")
    if calibrate:
        record = comparable(lambda: api.calibrate(baseline, run, store=store))
        largest = max((f.floor for f in record.noise), default=0.0)
        say(f"{baseline}: noise floor of {len(record.noise)} values, at most {largest:.4f}")
        return Answer(record.noise)
    if len(run) != 1:
        raise RunError("the gate compares one run; several are for --calibrate")
    found = comparable(
        lambda: api.gate(
            baseline, run[0], store=store, tolerance=tolerance, must_detect=must_detect,
            metrics=metric or ["srocc"], every_attack=every_attack,
        )
    )  # fmt: skip
    for path, text in ((markdown, found.markdown), (junit, found.junit), (json_file, found.json)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(), encoding="utf-8")
    print_outcome(found)
    undecided = ExitCode.OK if found.passed else ExitCode.NOT_COMPARABLE
    return Answer(found.summary, ExitCode.FOUND if found.regressions or found.unexplained else undecided)


@baseline_app.command()
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


@baseline_app.command()
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


@baseline_app.command()
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
