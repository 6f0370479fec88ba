"""`iqa-harness gate`: compare a run with a baseline; exit code 1 if it got worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption
from iqa_harness.cli.baseline import compared, metrics_of, print_gated, side_of_folder, side_of_run
from iqa_harness.cli.outputs import require_file
from iqa_harness.errors import ExitCode, RunError


def gate(
    baseline: Annotated[Path, typer.Option("--baseline", "-b", help="Folder of the baseline.")],
    run: Annotated[
        list[str], typer.Option("--run", "-r", help="Run to compare; with --calibrate, two runs or more.")
    ],
    store: ResultsOption = str(DEFAULT_STORE),
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Fall of a correlation that is let pass.")
    ] = 0.01,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="srocc, plcc; repeat for both [default: srocc].")
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
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here.")] = None,
) -> None:
    """Compare a run with a baseline, image by image.

    Exit codes: 0 no regression, 1 a regression, 2 not comparable (or wrong usage), 3 bad input.
    """
    from iqa_harness.gate import formats as gate_formats
    from iqa_harness.gate.regressions import find_regressions, noise_floors
    from iqa_results import save_baseline

    for option, file in (("--markdown", markdown), ("--junit", junit), ("--json", json_file)):
        require_file(file, option, in_place=True)
    before = side_of_folder(baseline)
    sides = [side_of_run(store, name, name) for name in run]
    if calibrate:
        floors = compared(lambda: noise_floors(sides))
        compared(lambda: find_regressions(before, sides[0], metrics=(), resamples=1))
        record = before.record.model_copy(update={"noise": tuple(floors)})
        save_baseline(baseline, record, None)
        largest = max((f.floor for f in record.noise), default=0.0)
        typer.echo(f"{baseline}: noise floor of {len(record.noise)} values, at most {largest:.4f}")
        return
    if len(sides) != 1:
        raise RunError("the gate compares one run; several are for --calibrate")
    after = sides[0]
    metrics = metrics_of(metric or ["srocc"])
    gated = compared(
        lambda: find_regressions(
            before, after, tolerance=tolerance, metrics=metrics, every_attack=every_attack
        )
    )
    records = (before.record, after.record)
    for path, text in (
        (markdown, gate_formats.markdown(gated, *records)),
        (junit, gate_formats.junit(gated, before.record)),
        (json_file, gate_formats.as_json(gated, *records)),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print_gated(gated, before, after)
    raise typer.Exit(ExitCode.FOUND if gated.regressions else ExitCode.OK)
