"""Trainings as a user asks for them: settings put together, images opened, runs one by one or side by side.

Importing this module loads no torch, so that settings can be shown at once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import JsonValue

from iqa_harness.errors import DataError, ExitCode, TrainingError
from iqa_harness.machine.terminal import say
from iqa_harness.training.config import (
    TrainConfig,
    changed,
    find_config,
    load_preset,
    read_changes,
)
from iqa_harness.training.options import RunOptions

if TYPE_CHECKING:
    from iqa_harness.data.catalogue import Data
    from iqa_harness.data.image_set import ImageSet

DEMOS = {
    "demo": ("demo_plain", "demo_srm", "demo_hyperiqa"),
    "demo-full": ("demo_lite0", "demo_resnet10t"),
}
"""Names that stand for several presets: heads on one frozen trunk, and models trained whole."""
SIZES = ("tiny", "small", "base")
Settings = Mapping[str, JsonValue] | Sequence[str]
"""Changes to settings, key to value or as ``key=value`` texts."""


@dataclass(frozen=True)
class TrainSession(RunOptions):
    """What the trainings of one call share: their images, and how they are carried out."""

    data: str | Path | ImageSet | None = None
    """Images by name or as a set, None for the settings' own set."""
    mos_range: tuple[float, float] | None = None
    """Ends of the label scale of a CSV."""
    cache: Path | str | None = None
    """Root of the cache of data."""
    backbone_weights: Path | str | None = None
    """File the trunks start from, instead of what the settings say."""
    progress: bool = True
    """Whether to report on stderr."""

    @classmethod
    def of(
        cls, data: Data | None = None, mos_range: tuple[float, float] | None = None, **options: Any
    ) -> TrainSession:
        """Return a session on images given as anything; a table or list is opened, its label range read.

        Raises:
            DataError: a table or list that cannot be used.
        """
        from iqa_harness.data import ImageSet, open_data

        if not (data is None or isinstance(data, str | Path | ImageSet)):
            shown = options.get("progress", True)
            data = open_data(data, cache_dir=options.get("cache"), progress=shown, mos_range=mos_range)
            mos_range = None
        return cls(data=data, mos_range=mos_range, **options)

    def open(self, config: TrainConfig) -> ImageSet:
        """Open the images for some settings.

        Raises:
            DataError: there are none of that name; for a preset's own set the message says what to give.
        """
        from iqa_harness.data import open_data

        name = config.data if self.data is None else self.data
        try:
            return open_data(name, cache_dir=self.cache, mos_range=self.mos_range, progress=self.progress)
        except DataError as error:
            if self.data is not None:
                raise
            raise DataError(
                f"{config.name} is meant for {config.data!r}; say where it is with --data: {error}"
            ) from error

    def train(self, config: TrainConfig, images: ImageSet, folder: Path) -> Path:
        """Train one model, unless its checkpoint is there; return the checkpoint's folder."""
        from iqa_harness.training.loop import train as run_training

        return run_training(config, images, folder, backbone_weights=self.backbone_weights, run=self)


class Checkpoint(NamedTuple):
    """A training's settings and the folder of its checkpoint."""

    config: TrainConfig
    folder: Path


def read_configs(
    preset: str | Path | TrainConfig,
    data: str | Path | ImageSet | None = None,
    settings: Settings | None = None,
    size: str | None = None,
) -> list[TrainConfig]:
    """Return the settings a user means: of one preset, or of several for a name of `DEMOS`.

    Args:
        preset: a preset's name, the path of a TOML file, a name of `DEMOS`, or settings.
        data: the images, which the settings then name.
        settings: changes.
        size: of SMART-IQA, one of `SIZES`.

    Raises:
        TrainingError: no such preset or file, or a change that is refused.
    """
    if isinstance(preset, TrainConfig):
        found = [preset]
    else:
        names = DEMOS.get(str(preset), (str(preset),))
        found = [find_config(name) for name in names]
    return [_changed(config, data, settings, size) for config in found]


def _changed(
    config: TrainConfig, data: str | Path | ImageSet | None, settings: Settings | None, size: str | None
) -> TrainConfig:
    changes = read_settings(settings, data)
    if size is not None:
        if not config.model.startswith("smart_iqa_") or size not in SIZES:
            raise TrainingError(
                f"--size {size}: {', '.join(SIZES)}, for SMART-IQA; {config.name} trains {config.model!r}"
            )
        model = changes.setdefault("model", f"smart_iqa_{size}")
        if model != f"smart_iqa_{size}":
            raise TrainingError(f"--size {size} and --set model={model} are two models; give one of them")
    return changed(config, changes, "--set") if changes else config


def read_settings(
    settings: Settings | None, data: str | Path | ImageSet | None = None
) -> dict[str, JsonValue]:
    """Return changes to settings as a mapping, the name of the images among them.

    Raises:
        TrainingError: a text that is not ``key=value``, a key given twice, or a value nested too deeply.
    """
    changes = dict(settings) if isinstance(settings, Mapping) else read_changes(settings or ())
    if data is not None:
        changes.setdefault("data", set_name(data))
    return changes


def set_name(data: str | Path | ImageSet) -> str:
    """Return the name of a set without its place and options: in a moved folder the run is the same."""
    if not isinstance(data, str | Path):
        return data.card.name
    place = str(data).partition("?")[0]
    is_table = place.lower().endswith(".csv") or Path(place).is_file()
    return Path(place).stem if is_table else place.partition(":")[0]


def read_seeds(seeds: str | Sequence[int]) -> list[int]:
    """Return seeds, which a user may write as ``0,1,2``.

    Raises:
        TrainingError: not different whole numbers of at most 18 digits.
    """
    parts = [part.strip() for part in seeds.split(",")] if isinstance(seeds, str) else [str(s) for s in seeds]
    fit = all(part.isdecimal() and len(part) <= 18 for part in parts)
    found = [int(part) for part in parts] if fit else []
    if not found or len(set(found)) != len(found):
        shown = str(seeds) if len(str(seeds)) < 80 else f"{str(seeds)[:80]}..."
        raise TrainingError(f"--seeds {shown!r}: write different whole numbers, as 0,1,2")
    return found


def seeded(config: TrainConfig, seed: int) -> TrainConfig:
    """Return settings with another seed, of the training and of the model's random weights."""
    return changed(config, {"seed": seed, "options.seed": seed}, "--seeds")


def train_seeds(
    config: TrainConfig, seeds: Sequence[int], folder: Path, session: TrainSession
) -> list[Checkpoint]:
    """Train a model a seed, each in ``seed-N`` of a folder."""
    images = session.open(config)
    session = replace(session, resume=False)  # of several runs some are through and some were not begun
    found = []
    for seed in seeds:
        own = seeded(config, seed)
        found.append(Checkpoint(own, session.train(own, images, folder / f"seed-{seed}")))
    return found


def model_folder(store: Path, name: str) -> Path:
    """Return where a store keeps the checkpoint of some settings."""
    return store / "models" / name


def train_side_by_side(
    presets: Sequence[str], store: Path, cache: Path | str | None, *, progress: bool = True
) -> None:
    """Train the presets that have no checkpoint yet in processes of their own, if there are cores for it.

    A model trains on one thread, so that its weights do not depend on the machine; as many are trained at
    once as there are cores.

    Raises:
        TrainingError: one of them failed; the message holds what each said last.
    """
    from iqa_harness.data import open_data
    from iqa_harness.machine.devices import usable_cores

    pending = [name for name in presets if not (model_folder(store, name) / "card.json").is_file()]
    cores = usable_cores()
    if len(pending) < 2 or cores < 2:
        return
    for name in pending:
        # Made once, here, not by each of them.
        open_data(load_preset(name).data, cache_dir=cache, progress=progress)
    train_in_processes(pending, store, cache, cores=cores, progress=progress)


def train_in_processes(
    presets: Sequence[str], store: Path, cache: Path | str | None, *, cores: int, progress: bool = True
) -> None:
    """Train every preset in a process of its own, `cores` at once, and wait for them.

    Raises:
        TrainingError: one of them failed; the message holds what each said last.
        KeyboardInterrupt: one of them was interrupted.
    """
    base = [sys.executable, "-m", "iqa_harness", "train"]
    options = ["--store", str(store), *(["--cache", str(cache)] if cache else [])]
    last = dict.fromkeys(presets, "")
    codes: dict[str, int] = {}

    def run(name: str) -> None:
        """Train one and pass on what it says, line by line, so that two do not break each other's lines."""
        with subprocess.Popen(  # noqa: S603 - our own command line
            [*base, name, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stderr is not None  # noqa: S101 - opened as a pipe
            for line in child.stderr:
                last[name] = line.rstrip("\n")
                if progress:
                    say(last[name], err=True)
        codes[name] = child.returncode

    with ThreadPoolExecutor(max_workers=cores) as pool:
        jobs = [pool.submit(run, name) for name in presets]
        try:
            for job in jobs:
                job.result()
        except KeyboardInterrupt:
            # Ctrl-C reaches the children too; each leaves its state and ends by itself.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if ExitCode.INTERRUPTED in codes.values():
        raise KeyboardInterrupt
    failed = [name for name, code in codes.items() if code != ExitCode.OK]
    if failed:
        said = "; ".join(f"{name}: {last[name].removeprefix('iqa-harness: ')}" for name in failed)
        raise TrainingError(f"training of {', '.join(failed)} failed: {said}")
