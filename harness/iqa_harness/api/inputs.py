"""What several verbs begin with: a device that is there, plugins that were run, models and images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from iqa_harness.data.catalogue import Data, open_data
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.naming import Model, as_entrants, notes_on, run_plugins
from iqa_harness.machine.devices import use_devices
from iqa_harness.machine.terminal import say

__all__ = ["Data", "Model", "entrants_of", "placed", "run_plugins", "set_up"]


def set_up(device: str, threads: int | None, plugins: Iterable[str | Path] = ()) -> None:
    """Make sure the device is there, set the number of threads, run the user's own files.

    Raises:
        RunError: no such device; a plugin that is missing or raises.
    """
    use_devices([device], threads)
    run_plugins(plugins)


def placed(
    data: Data | None, mos_range: tuple[float, float] | None, cache: Path | None
) -> tuple[str | Path | ImageSet | None, tuple[float, float] | None]:
    """Return images as a name or an open set, and the label range that is still to be stated.

    Raises:
        DataError: a table or list that cannot be used.
    """
    if data is None or isinstance(data, str | Path | ImageSet):
        return data, mos_range
    return open_data(data, cache_dir=cache, mos_range=mos_range), None


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
    weights = None if backbone_weights is None else Path(backbone_weights)
    entrants = as_entrants(models, backbone_weights=weights, plugins=tuple(Path(file) for file in plugins))
    for note in notes_on(entrants, store) if tell else ():
        say(note, err=True)
    return entrants
