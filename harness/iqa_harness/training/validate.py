"""Scores of whole images, and how well they order a split."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_harness.data.image_set import ImageSet
from iqa_harness.metrics import srocc
from iqa_harness.training.batches import whole_batches
from iqa_models import QualityModel


@torch.no_grad()
def score_images(model: QualityModel, data: ImageSet, *, batch_size: int = 8) -> NDArray[np.float64]:
    """Return the model's scores of a set's whole images in eval mode, (N,), in the set's order."""
    model.eval()
    parts = [model(images).to(torch.float64).numpy() for images in whole_batches(data, batch_size)]
    return np.concatenate(parts) if parts else np.empty(0)


def split_srocc(model: QualityModel, data: ImageSet) -> float | None:
    """Return the Spearman correlation of scores and labels, None if it does not exist."""
    labels = np.array([record.mos for record in data.records], dtype=np.float64)
    return srocc(score_images(model, data), labels).value
