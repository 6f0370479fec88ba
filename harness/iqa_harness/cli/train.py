"""`iqa-harness train`: make the checkpoints under test."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, CacheOption, StoreOption
from iqa_harness.errors import ExitCode, TrainingError
from iqa_harness.training import TrainConfig, list_presets, load_preset, load_train_config

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
    if preset == DEMO:
        configs = [load_preset(name) for name in demo_presets()]
    else:
        configs = [load_train_config(Path(preset)) if preset.endswith(".toml") else load_preset(preset)]
    if show:
        for config in configs:
            typer.echo(config.model_dump_json(indent=1))
        return
    if preset == DEMO and not overwrite:
        train_side_by_side(demo_presets(), store, cache)
    for config in configs:
        typer.echo(str(train_one(config, store, cache, overwrite)))


def demo_presets() -> list[str]:
    """Return the presets of the demo models."""
    return [name for name in list_presets() if name.startswith(DEMO)]


def train_one(config: TrainConfig, store: Path, cache: Path | None, overwrite: bool) -> Path:
    """Train one model on its data set unless its checkpoint is there; return the checkpoint's folder."""
    from iqa_harness.data import open_data
    from iqa_harness.training.loop import train as run_training

    data = open_data(config.data, cache_dir=cache)
    return run_training(config, data, _folder(store, config.name), progress=True, overwrite=overwrite)


def train_side_by_side(presets: Sequence[str], store: Path, cache: Path | None) -> None:
    """Train the presets that have no checkpoint yet in processes of their own, if there are cores for it.

    A model trains on one thread, so that its weights do not depend on the machine; two models on two
    cores take the time of the slower one.

    Raises:
        TrainingError: one of them failed; its message is on stderr.
    """
    from iqa_harness.data import open_data

    pending = [name for name in presets if not (_folder(store, name) / "card.json").is_file()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(pending) < 2 or cores < 2:
        return
    for name in pending:
        open_data(load_preset(name).data, cache_dir=cache)  # made once, here, not by each of them
    for first in range(0, len(pending), cores):
        _train_in_processes(pending[first : first + cores], store, cache)


def _train_in_processes(presets: Sequence[str], store: Path, cache: Path | None) -> None:
    base = [sys.executable, "-m", "iqa_harness", "train"]
    options = ["--store", str(store), *(["--cache", str(cache)] if cache else [])]
    children = {
        name: subprocess.Popen(  # noqa: S603 - our own command line
            [*base, name, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for name in presets
    }
    readers = [threading.Thread(target=_forward, args=(child,)) for child in children.values()]
    try:
        for reader in readers:
            reader.start()
        codes = {name: child.wait() for name, child in children.items()}
    except KeyboardInterrupt:
        # Ctrl-C reaches the children too; each leaves its state and ends by itself.
        for child in children.values():
            child.wait()
        raise
    finally:
        for reader in readers:
            reader.join()
    if ExitCode.INTERRUPTED in codes.values():
        raise KeyboardInterrupt
    failed = [name for name, code in codes.items() if code != ExitCode.OK]
    if failed:
        raise TrainingError(f"training of {', '.join(failed)} failed; the reason stands above")


def _forward(child: subprocess.Popen[str]) -> None:
    """Pass on what a child says, line by line, so that two children do not break each other's lines."""
    assert child.stderr is not None  # noqa: S101 - opened as a pipe
    with child.stderr:
        for line in child.stderr:
            typer.echo(line, err=True, nl=False)


def _folder(store: Path, name: str) -> Path:
    return store / "models" / name
