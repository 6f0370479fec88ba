"""`iqa-harness train`: make the checkpoints under test."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    PluginOption,
    StoreOption,
    run_plugins,
    set_up_torch,
)
from iqa_harness.cli.outputs import require_folder
from iqa_harness.errors import DataError, ExitCode, TrainingError
from iqa_harness.training import (
    TrainConfig,
    changed,
    documented,
    find_config,
    list_presets,
    load_preset,
    read_changes,
)

if TYPE_CHECKING:
    from iqa_harness.data import ImageSet

DEMO = "demo"
SIZES = ("tiny", "small", "base")

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Images: a set's name, koniq10k:/folder and the like, or a CSV [default: the preset's].",
    ),
]
RangeOption = Annotated[
    tuple[float, float] | None, typer.Option("--mos-range", help="Ends of a CSV's label scale.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="key=value of a setting (see --show), options.KEY=value of the model's. Repeat."
    ),
]


def train(
    preset: Annotated[
        str, typer.Argument(help="Preset by name, the path of a TOML file, or 'demo' for all demo presets.")
    ],
    data: DataOption = None,
    mos_range: RangeOption = None,
    settings: SetOption = None,
    size: Annotated[str | None, typer.Option("--size", help="Of SMART-IQA: tiny, small or base.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="0,1,2: one model a seed, then mean and deviation.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the checkpoint [default: models/NAME in the store]."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
    device: DeviceOption = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with an unfinished run (without it: go on or start).")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint of other settings or images.")
    ] = False,
    save_every: Annotated[
        int, typer.Option("--save-every", min=0, help="Steps between saved states; 0 saves once an epoch.")
    ] = 200,
    log_steps: Annotated[bool, typer.Option("--log-steps", help="Write every step to steps.csv.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's event files too.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the settings and what each means; train nothing.")
    ] = False,
) -> None:
    """Train models; what is trained already is kept, what was interrupted goes on."""
    presets = demo_presets() if preset == DEMO else [preset]
    configs = [_config(name, data, settings or [], size) for name in presets]
    if show:
        typer.echo("\n".join(documented(config) for config in configs), nl=False)
        return
    if out is not None and len(configs) > 1:
        raise TrainingError("--out names one checkpoint's folder; give a single preset with it")
    require_folder(out, "--out") if out is not None else require_folder(store, "--store")
    run_plugins(plugin)
    set_up_torch(device, None)
    how = How(device, save_every, log_steps, tensorboard, overwrite, resume, backbone_weights)
    source = Source(data, mos_range, cache)
    plain = not (data or settings or size or seeds or resume or out)
    if preset == DEMO and plain and not overwrite:
        train_side_by_side(demo_presets(), store, cache)
    for config in configs:
        folder = out or _folder(store, config.name)
        if seeds is None:
            typer.echo(str(train_config(config, source.open(config), folder, how)))
        else:
            _train_seeds(config, numbers(seeds), source, folder, how)


@dataclass(frozen=True)
class Source:
    """Where images come from, as the user said it."""

    data: str | None
    """`--data`, None for the settings' own set."""
    mos_range: tuple[float, float] | None
    cache: Path | None

    def open(self, config: TrainConfig) -> ImageSet:
        """Open the images for some settings.

        Raises:
            DataError: there are none of that name; for a preset's own set the message says what to give.
        """
        from iqa_harness.data import open_data

        try:
            return open_data(self.data or config.data, cache_dir=self.cache, mos_range=self.mos_range)
        except DataError as error:
            if self.data is not None:
                raise
            raise DataError(
                f"{config.name} is meant for {config.data!r}; say where it is with --data: {error}"
            ) from error


@dataclass(frozen=True)
class How:
    """How runs are carried out, as the user said it."""

    device: str = "cpu"
    save_every: int = 200
    log_steps: bool = False
    tensorboard: bool = False
    overwrite: bool = False
    resume: bool = False
    backbone_weights: Path | None = None


def demo_presets() -> list[str]:
    """Return the presets of the demo models."""
    return [name for name in list_presets() if name.startswith(DEMO)]


def train_one(config: TrainConfig, store: Path, cache: Path | None, overwrite: bool) -> Path:
    """Train one model on its data set unless its checkpoint is there; return the checkpoint's folder."""
    how = How(overwrite=overwrite)
    return train_config(config, Source(None, None, cache).open(config), _folder(store, config.name), how)


def _config(preset: str, data: str | None, settings: Sequence[str], size: str | None) -> TrainConfig:
    config = find_config(preset)
    changes = read_changes(settings)
    if size is not None:
        if not config.model.startswith("smart_iqa_") or size not in SIZES:
            raise TrainingError(
                f"--size {size}: {', '.join(SIZES)}, for SMART-IQA; {preset} trains {config.model!r}"
            )
        changes.setdefault("model", f"smart_iqa_{size}")
    if data is not None:
        changes.setdefault("data", set_name(data))
    return changed(config, changes, "--set") if changes else config


def train_config(config: TrainConfig, data: ImageSet, folder: Path, how: How) -> Path:
    """Train one model with progress on stderr; return the checkpoint's folder."""
    from iqa_harness.training.loop import RunOptions
    from iqa_harness.training.loop import train as run_training

    run = RunOptions(
        device=how.device,
        save_every=how.save_every,
        log_steps=how.log_steps,
        tensorboard=how.tensorboard,
        progress=True,
        overwrite=how.overwrite,
        resume=how.resume,
    )
    return run_training(config, data, folder, backbone_weights=how.backbone_weights, run=run)


def _train_seeds(config: TrainConfig, seeds: Sequence[int], source: Source, folder: Path, how: How) -> None:
    """Train a model a seed, in folders of their own, and print and write figures with mean and deviation."""
    from iqa_harness.training.figures import figures_of
    from iqa_harness.training.tables import print_table, seed_table, write_table

    runs = []
    data = source.open(config)
    how = replace(how, resume=False)  # of several runs some are through and some were not begun
    for seed in seeds:
        seeded = changed(config, {"seed": seed, "options.seed": seed}, "--seeds")
        path = train_config(seeded, data, folder / f"seed-{seed}", how)
        runs.append((seed, figures_of(path, data, how.device)))
        typer.echo(str(path))
    table = seed_table(runs)
    print_table(f"{config.name}, {len(seeds)} seed(s)", table)
    write_table(folder / "seeds", f"{config.name}, {len(seeds)} seed(s)", table)


def set_name(data: str) -> str:
    """Return the name of a set without its place and options: in a moved folder the run is the same."""
    place = data.partition("?")[0]
    return Path(place).stem if place.endswith(".csv") else place.partition(":")[0]


def numbers(text: str) -> list[int]:
    """Read seeds as a user writes them.

    Raises:
        TrainingError: not different whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise TrainingError(f"--seeds {text!r}: write different whole numbers, as 0,1,2")
    return [int(part) for part in parts]


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
