"""What can be put under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iqa_errors import IQAError
from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.machine.places import require_new_folder
from iqa_models.registry import describe_model
from iqa_models.registry import list_models as _names

if TYPE_CHECKING:
    from iqa_harness.api.inputs import Model
    from iqa_harness.api.score import Image
    from iqa_harness.evidence.plain_checks import ModelCheck
    from iqa_models import ImportReport, ModelSpec


class ModelInfo(NamedTuple):
    """A model under test."""

    card: ModelSpec
    """What it is, where its weights come from, its scale."""
    parameters: int
    """Count."""
    sha256: str
    """Hash of card and weights, and of the source files of a model that is not one of ours."""


class Imported(NamedTuple):
    """A checkpoint made of somebody else's."""

    folder: Path
    report: ImportReport
    """Whose layout it was, the model it became, how many tensors were converted and filled."""


def list_models(pattern: str = "*", *, plugins: Sequence[Path | str] = ()) -> dict[str, str]:
    """Return the registered models that match a shell pattern: name to what it is.

    Raises:
        RunError: a plugin that is missing or raises.
    """
    for file in plugins:
        run_plugin(Path(file))
    return {name: describe_model(name) for name in _names(pattern)}


def show_model(
    model: Model, *, backbone_weights: Path | str | None = None, plugins: Sequence[Path | str] = ()
) -> ModelInfo:
    """Return what is known of a model.

    Raises:
        RunError: a plugin that is missing or raises, a name that cannot be read.
        ModelError: an unknown name or option, or an unusable checkpoint.
    """
    from iqa_harness.api.inputs import entrants_of, run_plugins

    run_plugins(plugins)
    (entrant,) = entrants_of(model, backbone_weights=backbone_weights, plugins=plugins, tell=False)
    parameters = sum(p.numel() for p in entrant.model.parameters())
    return ModelInfo(entrant.card, parameters, entrant.sha256)


def check_model(
    model: Model,
    images: Image | Sequence[Image] | None = None,
    *,
    device: str = "cpu",
    backbone_weights: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    cache: Path | str | None = None,
) -> ModelCheck:
    """Check on a few images whether a model can be put under test, and say what to do where it cannot.

    Args:
        model: by name, by folder, or an object.
        images: a few image files, a folder, arrays or tensors; embedded ones if left out.
        device: torch device.
        backbone_weights: file of pretrained trunk weights, for a model created by name.
        plugins: Python files of yours that register models; they are run.
        cache: folder of the embedded data.

    Returns:
        A line a check; `usable` is False where `attack` would refuse the model. One that cannot be made is a
        line, too.

    Raises:
        DataError: images that cannot be read.
        RunError: no such device, a plugin that is missing or raises.
    """
    from iqa_harness.api.inputs import entrants_of, set_up
    from iqa_harness.api.score import image_tensors
    from iqa_harness.data.catalogue import open_data
    from iqa_harness.evidence.plain_checks import MOST, check_entrant, not_made

    set_up(device, None, plugins, exact=True)
    if images is None:
        data = open_data("smoke", cache_dir=cache, progress=False)
        chosen = data.split("test").subset(range(MOST))
        pixels = image_tensors([chosen.read(i) for i in range(MOST)], MOST)
        mos = [record.mos for record in chosen.records]
    else:
        pixels, mos = image_tensors(images, MOST), None
    try:
        (entrant,) = entrants_of(model, backbone_weights=backbone_weights, plugins=plugins, tell=False)
    except IQAError as error:
        return not_made(str(model), error)
    return check_entrant(entrant, pixels, mos, device)


def import_model(
    file: Path | str, *, out: Path | str, options: Mapping[str, Any] | Sequence[str] = ()
) -> Imported:
    """Turn somebody else's checkpoint into one of ours; nothing in the file is run.

    Args:
        file: checkpoint of the HyperIQA or SMART-IQA authors, or of pyiqa.
        out: folder for the checkpoint; must not exist.
        options: what leaves no trace in the file, key to value or ``key=value`` texts.

    Raises:
        RunError: `out` exists or cannot be written, or an option that cannot be read.
        ModelError: a file that is no such checkpoint.
    """
    from iqa_harness.entrants.naming import parse_model
    from iqa_models import import_checkpoint, save_checkpoint

    file, out = Path(file), Path(out)
    require_new_folder(out, "--out")
    if not isinstance(options, Mapping):
        options = parse_model("file?" + "&".join(options)).options if options else {}
    model, report = import_checkpoint(file, **options)
    save_checkpoint(model, out, training={"imported_from": file.name, "layout": report.layout})
    return Imported(out, report)
