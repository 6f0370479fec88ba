"""What several verbs begin with: a device that is there, plugins that were run, models and images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from iqa_harness.cells.selection import recorded_data
from iqa_harness.data.catalogue import Data, open_data
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.foreign import as_recorded
from iqa_harness.entrants.naming import Model, as_entrants, from_record, notes_on, run_plugins
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import usable_cores, use_devices
from iqa_harness.machine.terminal import say
from iqa_harness.verification.run import require_entrants
from iqa_results import ModelRecord, RunManifest

__all__ = [
    "Data", "Model", "compute_as", "entrants_of", "entrants_of_run", "images_of_run", "run_plugins",
    "set_up",
]  # fmt: skip


def set_up(
    device: str, threads: int | None, plugins: Iterable[str | Path] = (), *, exact: bool = False
) -> None:
    """Make sure the device is there, set the number of threads, run the user's own files.

    Args:
        device: as torch names it.
        threads: within one operation; None for torch's own number.
        plugins: the user's files.
        exact: the device is to attack.

    Raises:
        RunError: no such device, or one that cannot do it; a plugin that is missing or raises.
    """
    use_devices([device], threads, exact=exact)
    run_plugins(plugins)


def entrants_of(
    models: Model | Mapping[str, Any] | Iterable[Model],
    store: Path | str = "iqa-store",
    *,
    backbone_weights: Path | str | None = None,
    plugins: Iterable[str | Path] = (),
    tell: bool = True,
) -> list[Entrant]:
    """Return models under test with their names; `tell` says on stderr whose weights are random.

    Raises:
        RunError: a name that cannot be read.
        ModelError: an unknown name or option, or an unusable checkpoint.
    """
    files = tuple(Path(file) for file in plugins)
    entrants = as_entrants(models, backbone_weights=backbone_weights, plugins=files)
    for note in notes_on(entrants, store) if tell else ():
        say(note, err=True)
    return entrants


def entrants_of_run(
    manifest: RunManifest,
    models: Model | Mapping[str, Any] | Iterable[Model] = (),
    *,
    plugged: bool = False,
    backbone_weights: Path | str | None = None,
    same: bool = True,
    wanted: Callable[[ModelRecord], bool] = lambda record: True,
) -> list[Entrant]:
    """Return the models of a run: where they are now, the others as the manifest says, in its order.

    Args:
        manifest: the run's.
        models: where some of its models are now, by the run's names.
        plugged: whether the user's own plugins were run.
        backbone_weights: file for the trunks of models created by name, if it has moved.
        same: refuse a model that is another one now.
        wanted: which of the models that are not given to make.

    Raises:
        RunError: a model the run does not have, one that cannot be made again, or is another one now.
    """
    given = as_entrants(models, backbone_weights=backbone_weights)
    require_entrants(manifest, given)
    here = {entrant.label: entrant for entrant in given}
    found = []
    for record in manifest.models:
        if record.name in here:
            entrant = as_recorded(here[record.name], record)
        elif wanted(record):
            entrant = from_record(record, plugged=plugged, backbone_weights=backbone_weights)
        else:
            continue
        if same and entrant.sha256 != record.sha256:
            raise RunError(
                f"model {record.name!r} is another one than run {manifest.run!r} was of: sha256 "
                f"{record.sha256[:12]} was attacked, {entrant.sha256[:12]} is here"
            )
        found.append(entrant)
    return found


def images_of_run(
    manifest: RunManifest, data: Any, cache: Path | str | None, *, same: bool = True
) -> ImageSet:
    """Return the images a run was of.

    Args:
        manifest: the run's.
        data: where they are now, a name or an image set; as the suite says if left out.
        cache: of the embedded data.
        same: refuse other ones.

    Raises:
        RunError: they are others.
        DataError: there are no such images here.
    """
    if data is None or isinstance(data, str | Path):
        found = recorded_data(manifest, cache, name=None if data is None else str(data))
    else:
        found = open_data(data, cache_dir=cache)
    if same and found.fingerprint != manifest.data.sha256:
        raise RunError(
            f"data {manifest.data.name!r}: sha256 {manifest.data.sha256[:12]} was attacked, "
            f"{found.fingerprint[:12]} is here"
        )
    return found


def compute_as(manifest: RunManifest, device: str = "cpu", threads: int | None = None) -> None:
    """Set so many threads, or those of most of a run's cells, and make sure the device is there."""
    cells: Counter[int] = Counter()
    for worker in manifest.workers:
        cells[worker.threads] += worker.cells
    if threads is None and cells:
        threads = min(cells.most_common(1)[0][0], usable_cores())
    use_devices([device], threads, exact=True)
