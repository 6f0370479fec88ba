"""Scores of whole images, how well they order a split, and the figures of a finished checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from iqa_harness.data.image_set import ImageSet
from iqa_harness.measures.correlation import fit_logistic, krocc, plcc, srocc
from iqa_harness.training.batches import whole_batches
from iqa_models import QualityModel, load_checkpoint
from iqa_models.checkpoint import read_card
from iqa_results.storage import write_whole

FIGURES = "figures.json"
"""Name of the file beside a checkpoint that keeps its figures."""


class SplitFigures(BaseModel):
    """Agreement of a model's scores with the labels of a split; None where a value does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["val", "test"]
    images: int
    srocc: float | None
    """Of raw scores."""
    krocc: float | None
    """Of raw scores."""
    plcc: float | None
    """After the five-parameter logistic fitted on val; of raw scores where none could be fitted."""
    plcc_raw: float | None
    """Of raw scores, as the authors of SMART-IQA report it."""
    rmse: float | None
    """Root mean square error of raw scores, in shares of the score and label ranges."""

    @property
    def plcc_is_raw(self) -> bool:
        """Whether no logistic could be fitted: both values of PLCC are then one."""
        return self.plcc is not None and self.plcc == self.plcc_raw


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


@torch.no_grad()
def score_images(
    model: QualityModel, data: ImageSet, *, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Return the model's scores of a set's whole images in eval mode, (N,), in the set's order."""
    model.eval()
    parts = [model(images.to(device)).cpu().to(torch.float64).numpy() for images in whole_batches(data, 8)]
    return np.concatenate(parts) if parts else np.empty(0)


def split_srocc(model: QualityModel, data: ImageSet, device: torch.device | str = "cpu") -> float | None:
    """Return the Spearman correlation of scores and labels, None if it does not exist."""
    return srocc(score_images(model, data, device=device), data.labels).value


def split_figures(
    model: QualityModel, data: ImageSet, device: torch.device | str = "cpu"
) -> list[SplitFigures]:
    """Return the figures on val and test, as far as the set has them; the logistic is fitted on val."""
    figures: list[SplitFigures] = []
    logistic = None
    low, high = data.card.mos_range
    ends = model.spec.score_range
    for name in ("val", "test"):
        part = data.split(name)
        if not len(part):
            continue
        scores, labels = score_images(model, part, device=device), part.labels
        if name == "val":
            logistic = fit_logistic(scores, labels).logistic
        mapped = logistic(scores) if logistic is not None else scores
        error = (scores - ends[0]) / (ends[1] - ends[0]) - (labels - low) / (high - low)
        figures.append(
            SplitFigures(
                split="val" if name == "val" else "test",
                images=len(part),
                srocc=srocc(scores, labels).value,
                krocc=krocc(scores, labels).value,
                plcc=plcc(mapped, labels).value,
                plcc_raw=plcc(scores, labels).value,
                rmse=float(np.sqrt(np.mean(error**2))),
            )
        )
    return figures


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
    write_whole(path, figures.model_dump_json(indent=1).encode())
    return figures
