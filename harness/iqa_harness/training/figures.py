"""Scores of whole images, how well they order a split, and the figures of a finished checkpoint."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from iqa_harness.data.image_set import ImageSet
from iqa_harness.measures.correlation import fit_logistic, krocc, plcc, srocc
from iqa_harness.training.batches import whole_batches
from iqa_models import QualityModel


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


@torch.no_grad()
def score_images(
    model: QualityModel, data: ImageSet, *, batch_size: int = 8, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Return the model's scores of a set's whole images in eval mode, (N,), in the set's order."""
    model.eval()
    parts = [
        model(images.to(device)).to(torch.float64).cpu().numpy() for images in whole_batches(data, batch_size)
    ]
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
