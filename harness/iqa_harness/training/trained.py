"""What a finished checkpoint amounts to on clean images: computed once, kept beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from iqa_harness.data.image_set import ImageSet
from iqa_harness.training.figures import SplitFigures, split_figures
from iqa_models import load_checkpoint
from iqa_models.checkpoint import read_card, write_atomically

FIGURES = "figures.json"
"""Name of the file beside the checkpoint."""


class Figures(BaseModel):
    """Clean figures of one checkpoint on one data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights_sha256: str
    """Of the checkpoint."""
    data: str
    """Name of the set."""
    data_fingerprint: str
    """Of the set."""
    epoch: int
    """Epoch whose weights these are."""
    seconds: float
    """Wall-clock time of the training."""
    splits: tuple[SplitFigures, ...]
    """On val and test, as far as the set has them."""

    def value(self, split: str, metric: str) -> float | None:
        """Return one figure, None if it does not exist."""
        for part in self.splits:
            if part.split == split:
                found = getattr(part, metric)
                return None if found is None else float(found)
        return None


def figures_of(checkpoint: Path, data: ImageSet, device: str = "cpu") -> Figures:
    """Return the figures of a checkpoint on val and test, read from its folder if they are there.

    The test split is read here, after training, and decides nothing.

    Raises:
        BadCheckpoint: the checkpoint is missing or damaged.
    """
    card = read_card(checkpoint)
    path = checkpoint / FIGURES
    try:
        known = Figures.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        known = None
    if known is not None and (known.weights_sha256, known.data_fingerprint) == (
        card.weights_sha256,
        data.fingerprint,
    ):
        return known
    model = load_checkpoint(checkpoint).to(torch.device(device))
    training = card.training
    figures = Figures(
        weights_sha256=card.weights_sha256,
        data=data.card.name,
        data_fingerprint=data.fingerprint,
        epoch=int(str(training.get("epoch", training.get("best_epoch", 0)))),
        seconds=float(str(training.get("seconds", 0))),
        splits=tuple(split_figures(model, data, device)),
    )
    write_atomically(path, figures.model_dump_json(indent=1).encode())
    return figures
