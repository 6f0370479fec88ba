"""`iqa-harness score`: what a model says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import (
    BackboneOption,
    DeviceOption,
    PluginOption,
    ThreadsOption,
)
from iqa_harness.entrants.naming import load_entrant, notes_on, parse_model, run_plugins


def score(
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
) -> None:
    """Print the score of image files, one line each: score, tab, file; higher is better."""
    from iqa_attacks import score as score_images
    from iqa_harness.cells.compute import to_tensor
    from iqa_harness.data.files.decoding import decode
    from iqa_harness.machine.devices import use_devices

    use_devices([device], threads)
    run_plugins(plugin)
    entrant = load_entrant(parse_model(model), backbone_weights)
    for note in notes_on([entrant], "iqa-store"):
        typer.echo(note, err=True)
    entrant.model.to(device)
    for path in images:
        pixels = to_tensor(decode(path), device).unsqueeze(0)
        typer.echo(f"{float(score_images(entrant.model, pixels, chunk=1)):.6f}\t{path}")
