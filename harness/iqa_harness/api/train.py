"""Train models: what is trained already is kept, what was interrupted goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from iqa_harness.errors import TrainingError
from iqa_harness.machine.places import require_folder
from iqa_harness.training.config import TrainConfig, documented
from iqa_harness.training.sessions import (
    DEMOS,
    Checkpoint,
    Settings,
    TrainSession,
    model_folder,
    read_configs,
    read_seeds,
    train_seeds,
    train_side_by_side,
)

if TYPE_CHECKING:
    import pandas as pd

    from iqa_harness.api.inputs import Data
    from iqa_harness.data.image_set import ImageSet
    from iqa_harness.training.figures import Figures
    from iqa_harness.training.tables import Table
    from iqa_reports import TableView


class SeedTable(NamedTuple):
    """Figures of one model over seeds."""

    title: str
    table: Table
    """A row a seed, then mean and deviation."""
    files: tuple[Path, ...]
    """The same as CSV, Parquet and Markdown."""

    @property
    def view(self) -> TableView:
        """The table as people see it."""
        return self.table.view._replace(caption=self.title)


@dataclass(frozen=True, repr=False)
class Trained:
    """Checkpoints, made now or found finished."""

    checkpoints: tuple[Checkpoint, ...]
    session: TrainSession
    seeds: tuple[SeedTable, ...] = ()
    """One a preset, if seeds were asked for."""

    @property
    def folders(self) -> list[Path]:
        """The checkpoints' folders, each a model for every other verb."""
        return [checkpoint.folder for checkpoint in self.checkpoints]

    @cached_property
    def figures(self) -> list[Figures]:
        """Clean figures of every checkpoint on val and test, read or computed and kept beside it."""
        from iqa_harness.training.figures import figures_of

        session = self.session
        return [figures_of(path, session.open(config), session.device) for config, path in self.checkpoints]

    @property
    def table(self) -> pd.DataFrame:
        """One row a checkpoint: name, seed, its figures by split and metric, epoch, seconds, folder."""
        import pandas as pd

        from iqa_harness.training.tables import METRICS

        return pd.DataFrame(
            [
                {
                    "name": config.name,
                    "seed": config.seed,
                    **{f"{s}_{m}": figures.value(s, m) for s, m in METRICS},
                    "epoch": figures.epoch,
                    "seconds": figures.seconds,
                    "folder": str(folder),
                }
                for (config, folder), figures in zip(self.checkpoints, self.figures, strict=True)
            ]
        )

    def __repr__(self) -> str:
        return "\n".join(["Trained", *(f"  {folder}" for folder in self.folders)])

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


class SessionOptions(TypedDict, total=False):
    """What trainings of one call share, all of it may be left out: see the fields of `TrainSession`."""

    data: Data | None
    mos_range: tuple[float, float] | None
    cache: Path | str | None
    backbone_weights: Path | str | None
    device: str
    save_every: int
    progress: bool


class TrainOptions(SessionOptions, total=False):
    """The same and what holds for models alone."""

    resume: bool
    overwrite: bool
    log_steps: bool
    tensorboard: bool


def train(
    preset: str | Path | TrainConfig,
    *,
    settings: Settings | None = None,
    size: str | None = None,
    seeds: str | Sequence[int] | None = None,
    out: Path | str | None = None,
    store: Path | str = "iqa-store",
    plugins: Sequence[Path | str] = (),
    **options: Unpack[TrainOptions],
) -> Trained:
    """Train models; what is trained already is kept, what was interrupted goes on.

    Every keyword is an option of `iqa-harness train`, hence their number.

    Args:
        preset: a preset's name, the path of a TOML file, settings, ``demo`` or ``demo-full`` for the demo's.
        settings: changes, key to value or ``key=value`` texts; ``options.KEY`` is the model's.
        size: of SMART-IQA: tiny, small or base.
        seeds: one model a seed, then mean and deviation.
        out: the checkpoint's folder, by default ``models/NAME`` in the store.
        store: folder of the checkpoints.
        plugins: Python files of yours that register models; they are run.
        **options: data (images instead of the settings' own, by name or as a set), mos_range (ends of a CSV's
            label scale), cache, backbone_weights, device, save_every (steps), progress, resume, overwrite,
            log_steps, tensorboard; see the fields of `TrainSession`.

    Raises:
        TrainingError: settings that are refused, or a training that cannot go on.
        DataError: images that are not there or cannot be used.
        RunError: a folder that cannot be written, a device that is not there, a plugin that raises.
        ModelError: a model that cannot be built.
    """
    from iqa_harness.api.inputs import set_up

    session = TrainSession.of(**options)
    configs = read_configs(preset, session.data, settings, size)
    if out is not None and len(configs) > 1:
        raise TrainingError("--out names one checkpoint's folder; give a single preset with it")
    require_folder(store, "--store") if out is None else require_folder(out, "--out")
    chosen = None if seeds is None else read_seeds(seeds)
    set_up(session.device, None, plugins)
    # Processes of their own are given the store and the cache, and no other option.
    plain = session == TrainSession(cache=session.cache, progress=session.progress) and not plugins
    if str(preset) in DEMOS and chosen is None and plain and configs == read_configs(preset):
        train_side_by_side(DEMOS[str(preset)], Path(store), session.cache, progress=session.progress)
    found: list[Checkpoint] = []
    tables: list[SeedTable] = []
    for config in configs:
        folder = model_folder(Path(store), config.name) if out is None else Path(out)
        if chosen is None:
            found.append(Checkpoint(config, session.train(config, session.open(config), folder)))
        else:
            own = train_seeds(config, chosen, folder, session)
            tables.append(_seed_table(config, own, folder, session))
            found += own
    return Trained(tuple(found), session, tuple(tables))


def _seed_table(
    config: TrainConfig, checkpoints: Sequence[Checkpoint], folder: Path, session: TrainSession
) -> SeedTable:
    from iqa_harness.training.figures import figures_of
    from iqa_harness.training.tables import seed_table, write_table

    images = session.open(config)
    runs = [(own.seed, figures_of(path, images, session.device)) for own, path in checkpoints]
    table = seed_table(runs, config.warnings())
    title = f"{config.name}, {len(checkpoints)} seed(s)"
    return SeedTable(title, table, tuple(write_table(folder / "seeds", title, table)))


def show_training(
    preset: str | Path | TrainConfig,
    *,
    data: str | Path | ImageSet | None = None,
    settings: Settings | None = None,
    size: str | None = None,
) -> str:
    """Return what `train` would train as TOML with the meaning of every setting; trains nothing.

    Raises:
        TrainingError: no such preset, or a change that is refused.
    """
    return "\n".join(documented(config) for config in read_configs(preset, data, settings, size))
