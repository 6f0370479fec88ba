"""`iqa-harness train`: make the checkpoints under test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, CacheOption, StoreOption
from iqa_harness.training import list_presets, load_preset, load_train_config

DEMO = "demo"


def train(
    preset: Annotated[
        str, typer.Argument(help="Preset by name, the path of a TOML file, or 'demo' for all demo presets.")
    ],
    store: StoreOption = DEFAULT_STORE,
    cache: CacheOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint of other settings or images.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the settings and train nothing.")] = False,
) -> None:
    """Train models; checkpoints go to models/ in the store. What is trained already is kept."""
    presets = demo_presets() if preset == DEMO else [preset]
    for name in presets:
        config = load_train_config(Path(name)) if name.endswith(".toml") else load_preset(name)
        if show:
            typer.echo(config.model_dump_json(indent=1))
            continue
        folder = train_one(Path(name).stem, store, cache, overwrite)
        typer.echo(str(folder))


def demo_presets() -> list[str]:
    """Return the presets of the demo models."""
    return [name for name in list_presets() if name.startswith(DEMO)]


def train_one(name: str, store: Path, cache: Path | None, overwrite: bool) -> Path:
    """Train one preset on its data set unless its checkpoint is there; return the checkpoint's folder."""
    from iqa_harness.data import open_data
    from iqa_harness.training.loop import train as run_training

    config = load_preset(name)
    data = open_data("demo", cache_dir=cache)
    return run_training(config, data, store / "models" / name, progress=True, overwrite=overwrite)
