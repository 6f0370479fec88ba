"""The checkpoints a run leaves: written, found again, and which pictures they have seen."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from iqa_harness.data.image_set import ImageRecord, ImageSet
from iqa_harness.data.public.sets import LAYOUTS
from iqa_harness.errors import TrainingError
from iqa_harness.machine.provenance import installed_versions
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.state import Progress, Training, averaged
from iqa_models import BadCheckpoint, save_checkpoint
from iqa_models.checkpoint import CARD, checked_card, read_card
from iqa_suites import EMBEDDED

LAST: Final = "last"
"""Folder beside the best checkpoint that holds the weights of the last epoch, a checkpoint too."""
_PACKAGES: Final = ("iqa-harness", "torch", "timm", "numpy", "scipy")
_BYTES: Final = 6
"""Of a mark that a card keeps: among a million images two share one with a chance of 1 in 500."""
_HALF: Final = re.compile(
    r"\.(card\.json|model-[0-9a-f]+\.safetensors|training-state\.safetensors|log\.jsonl|steps\.csv|failure\.json"
    r"|figures\.json)\.[^.]+\.part"
)
"""Names of a run's files while they are written."""
_ABANDONED: Final = 60.0
"""Seconds after which a file that is being written belongs to nobody any more."""


def is_finished(out: Path, identity: str, overwrite: bool) -> bool:
    """Return whether a folder holds the checkpoint of a run; of an unfinished run it holds none.

    Raises:
        TrainingError: it holds another run's, and may not be overwritten.
        BadCheckpoint: it is damaged, and may not be overwritten.
    """
    if not (out / CARD).exists():
        return False
    try:
        if read_card(out).training.get("identity") == identity:
            checked_card(out)  # damaged weights are told now, not when they are used
            return True
        if not overwrite:
            raise TrainingError(
                f"{out} holds a checkpoint of other settings or images; overwrite it or train elsewhere"
            )
    except BadCheckpoint:
        if not overwrite:
            raise
    return False


def write_checkpoints(
    out: Path,
    config: TrainConfig,
    training: Training,
    progress: Progress,
    images: tuple[ImageSet, ImageSet],
) -> None:
    """Write the chosen epoch and, below it, the last one.

    Args:
        out: the run's folder.
        config: its settings.
        training: its model, which ends in eval mode on the CPU, and the weights of its best epoch.
        progress: its epochs.
        images: those that were trained on, and those that chose the epoch.
    """
    data, chosen_on = images
    model, warnings = training.model, list(config.warnings())
    if config.keep == "best" and progress.log[progress.best_epoch].val_srocc is None:
        warnings.append(f"no epoch orders the {config.select_on} images: the last one is kept")
    trained = f"trained on {data.card.name} ({data.card.label}), {len(data)} images"
    model.spec = model.spec.replace(notes=(*model.spec.notes, trained, *warnings))
    record: dict[str, JsonValue] = {
        "identity": progress.identity,
        "config": config.record(),
        "data": data.card.name,
        "data_label": data.card.label,
        "data_fingerprint": data.fingerprint,
        "train_images": len(data),
        "val_images": len(chosen_on),
        "pixels": pack_pixels([*data.records, *chosen_on.records]),
        "selected_on": config.select_on,
        "warnings": [*warnings],
        "device": str(training.device),
        "best_epoch": progress.best_epoch,
        "log": [entry.model_dump(mode="json") for entry in progress.log],
        "seconds": round(sum(entry.seconds for entry in progress.log), 1),
        "packages": {**installed_versions(_PACKAGES)},
    }
    model.eval().cpu()
    with averaged(training):
        save_checkpoint(model, out / LAST, training={**record, "epoch": progress.epochs_done})
        if config.keep == "last":
            save_checkpoint(model, out, training={**record, "epoch": progress.epochs_done})
            return
    model.load_state_dict(training.best)
    save_checkpoint(model, out, training={**record, "epoch": progress.best_epoch})


def sweep(out: Path) -> None:
    """Remove what killed runs left half-written in a checkpoint's folder, and nothing else there."""
    before = time.time() - _ABANDONED
    for folder in (out, out / LAST):
        for part in folder.glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):  # its writer has just ended
                if _HALF.fullmatch(part.name) and part.stat().st_mtime < before:
                    part.unlink()


def pack_pixels(records: Iterable[ImageRecord]) -> str:
    """Return a mark of each image's pixels, sorted, as base64: eight signs an image."""
    return base64.b64encode(b"".join(sorted(_marks(records)))).decode()


def _marks(records: Iterable[ImageRecord]) -> set[bytes]:
    """Return short hashes of the pixel hashes, which another package's set may write as it likes."""
    return {hashlib.sha256(r.sha256.encode()).digest()[:_BYTES] for r in records if r.sha256}


def has_seen(training: Mapping[str, JsonValue], images: ImageSet) -> str:
    """Return how images stand to those a checkpoint was made with, by its training record.

    ``this set``: the same images, labels and splits; ``this set, chosen on test`` if its test images chose
    the epoch, as some authors do. ``this set, divided otherwise``: some of their pixels, or another rendition
    of that public or embedded set, may have been trained on. ``another set``: none were. Empty: not known.
    Records without pixel hashes, of earlier versions, are judged by the set's name.
    """
    if training.get("data_fingerprint") == images.fingerprint:
        return "this set, chosen on test" if training.get("selected_on") == "test" else "this set"
    name, packed = training.get("data"), training.get("pixels")
    if not isinstance(name, str):
        return ""
    family = _family(name)
    same = family == _family(images.card.name)
    try:
        seen = base64.b64decode(packed, validate=True) if isinstance(packed, str) else None
    except ValueError:  # no base64, or no ASCII
        seen = None
    if seen is not None:
        known = {seen[at : at + _BYTES] for at in range(0, len(seen), _BYTES)}
        # A file's name is its owner's; a public set is one set whatever size its images have.
        same = same and (family in EMBEDDED or family in LAYOUTS)
        same = same or not known.isdisjoint(_marks(images.records))
    return "this set, divided otherwise" if same else "another set"


def _family(name: str) -> str:
    """Return the name by which sets of the same pictures go."""
    return EMBEDDED[0] if name in EMBEDDED else re.split(r"[/:?@]", name)[0]
