"""`iqa-harness train`: make the checkpoints under test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    Changes,
    DeviceOption,
    Making,
    QuietOption,
    SaveOption,
    StoreOption,
)
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_view
from iqa_harness.machine.terminal import say


def train(
    *,
    preset: Annotated[
        str, typer.Argument(help="Preset by name, the path of a TOML file, 'demo' or 'demo-full'.")
    ],
    changes: Changes,
    size: Annotated[str | None, typer.Option("--size", help="Of SMART-IQA: tiny, small or base.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="0,1,2: one model a seed, then mean and deviation.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the checkpoint.", show_default="models/NAME in the store"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    making: Making,
    device: DeviceOption = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with an unfinished run (without it: go on or start).")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint of other settings or images.")
    ] = False,
    save_every: SaveOption = 200,
    log_steps: Annotated[bool, typer.Option("--log-steps", help="Write every step to steps.csv.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's event files too.")
    ] = False,
    quiet: QuietOption = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the settings and what each means; train nothing.")
    ] = False,
) -> Answer:
    """Train models; what is trained already is kept, what was interrupted goes on."""
    from iqa_harness.api import train as api

    if show:
        text = api.show_training(preset, data=changes["data"], settings=changes["settings"], size=size)
        typer.echo(text, nl=False)
        return Answer(text)
    found = api.train(
        preset, size=size, seeds=seeds, out=out, store=store, device=device, resume=resume,
        overwrite=overwrite, save_every=save_every, log_steps=log_steps, tensorboard=tensorboard,
        progress=not quiet, **changes, **making,
    )  # fmt: skip
    say("\n".join(map(str, found.folders)))
    for seeds_table in found.seeds:
        print_view(seeds_table.view)
    return Answer(lambda: {"folders": found.folders, "figures": found.table})
