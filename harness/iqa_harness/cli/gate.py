"""`iqa-harness gate`: compare a run with a baseline; exit code 1 if it got worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import comparable, print_outcome
from iqa_harness.errors import ExitCode, RunError
from iqa_harness.machine.terminal import say


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
