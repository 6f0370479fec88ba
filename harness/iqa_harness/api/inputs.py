"""What the verbs take: models and images by name, by path, or as objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from iqa_harness.cells.plan import Entrant
from iqa_harness.cli.arguments import load_entrant, parse_model, run_plugins, set_up_torch, tell_notes
from iqa_harness.data.image_set import ImageSet
from iqa_models import QualityModel

__all__ = ["Data", "Model", "entrants_of", "parse_model", "run_plugins", "set_up"]

Model = str | Path | QualityModel | Entrant
"""``[LABEL=]NAME[?option=value&...]``, a checkpoint's folder, or a model."""
Data = str | Path | ImageSet
"""What every `--data` takes, or an image set."""


def set_up(device: str, threads: int | None, plugins: Iterable[str | Path] = ()) -> None:
    """Make sure the device is there, set the number of threads, run the user's own files.

    Raises:
        RunError: no such device; a plugin that is missing or raises.
    """
    set_up_torch(device, threads)
    run_plugins([Path(file) for file in plugins])


def entrants_of(
    models: Model | Sequence[Model],
    store: Path | str,
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
    files = tuple(Path(file) for file in plugins)
    given = [models] if isinstance(models, str | Path | QualityModel | Entrant) else models
    entrants = [_entrant(model, weights, files) for model in given]
    if tell:
        tell_notes(entrants, store)
    return entrants


def _entrant(model: Model, weights: Path | None, plugins: tuple[Path, ...]) -> Entrant:
    if isinstance(model, Entrant):
        return model
    if isinstance(model, QualityModel):
        return Entrant(model.spec.name, model)
    # A path is a checkpoint's folder, even one that is called like a model.
    text = model if isinstance(model, str) else str(model.absolute())
    return load_entrant(parse_model(text), weights, plugins)
