"""`iqa-harness score`: what a model says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import Files, Place, QuietOption
from iqa_harness.cli.command import Answer
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say


def score(
    *,
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    place: Place,
    eot_samples: Annotated[
        int | None, typer.Option("--eot-samples", min=1, help="Draws averaged for a stochastic model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of such draws.")] = 0,
    files: Files,
    quiet: QuietOption = False,
) -> Answer:
    """Print the score of image files, one line each: score, tab, file; higher is better.

    The scale, and files that have no score, are told on standard error.
    """
    from iqa_harness.api import score as api

    found = api.score(model, images, eot_samples=eot_samples, seed=seed, progress=not quiet, **place, **files)
    scored = [
        (name, value) for name, value in zip(found.ids, found.values, strict=True) if name not in found.errors
    ]
    for name, value in scored:
        say(f"{value:.6f}\t{name}")
    for name, reason in found.errors.items():
        say(f"no score of {name}: {reason}", err=True)
    if scored:
        say(found.scale, err=True)
    failed = ExitCode.PARTIAL if scored else ExitCode.BAD_INPUT
    result = {
        "model": found.model, "score_range": found.score_range, "scores": dict(scored), "errors": found.errors
    }  # fmt: skip
    return Answer(result, failed if found.errors else ExitCode.OK)
