"""From an image set to tensors: order, crops and flips drawn from (seed, epoch, image id) alone.

A draw is a hash, not a step of a generator, so it depends neither on the draws before it nor on
the number of workers, and a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqa_harness.data.image_set import ImageRecord, ImageSet
from iqa_harness.errors import TrainingError


class View(NamedTuple):
    """What training sees of an image in one epoch."""

    top: int
    """First row of the crop."""
    left: int
    """First column of the crop."""
    flip: bool
    """Whether the crop is mirrored left to right."""


def epoch_order(records: Sequence[ImageRecord], seed: int, epoch: int, count: int | None) -> list[int]:
    """Return the indices of one epoch's images, shuffled; the first `count`, None for all."""
    keys = [_draw("order", seed, epoch, record.image_id) for record in records]
    return sorted(range(len(records)), key=keys.__getitem__)[:count]


def draw_view(seed: int, epoch: int, image_id: str, height: int, width: int, crop: int, flip: bool) -> View:
    """Draw where a square crop of side `crop` lies in an image, and whether it is mirrored.

    Raises:
        TrainingError: the image is smaller than the crop.
    """
    if min(height, width) < crop:
        raise TrainingError(f"image {image_id!r} has {height}x{width} pixels, the crop needs {crop}")
    bits = _draw("view", seed, epoch, image_id)
    top, left = bits[0] % (height - crop + 1), bits[1] % (width - crop + 1)
    return View(top, left, flip and bits[2] % 2 == 1)


def to_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack uint8 images (H, W, 3) into floats (B, 3, H, W) in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    return stacked.to(torch.float32) / 255


def unit_labels(data: ImageSet) -> Tensor:
    """Return the labels of a set, scaled so that its MOS range becomes [0, 1], (N,)."""
    low, high = data.card.mos_range
    mos = np.array([record.mos for record in data.records], dtype=np.float64)
    return torch.from_numpy(((mos - low) / (high - low)).astype(np.float32))


def train_batches(
    data: ImageSet, order: Sequence[int], *, seed: int, epoch: int, batch_size: int, crop: int, flip: bool
) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield cropped images (B, 3, crop, crop) in [0, 1] and their indices in the set, in that order."""
    for start in range(0, len(order), batch_size):
        indices = list(order[start : start + batch_size])
        crops = []
        for index in indices:
            pixels = data.read(index)
            height, width = pixels.shape[:2]
            view = draw_view(seed, epoch, data.records[index].image_id, height, width, crop, flip)
            square = pixels[view.top : view.top + crop, view.left : view.left + crop]
            crops.append(square[:, ::-1] if view.flip else square)
        yield to_tensor(crops), indices


def whole_batches(data: ImageSet, batch_size: int) -> Iterator[Tensor]:
    """Yield whole images (B, 3, H, W) in [0, 1] in the set's order; neighbours of one size share a batch."""
    waiting: list[NDArray[np.uint8]] = []
    for index in range(len(data)):
        pixels = data.read(index)
        if waiting and (len(waiting) == batch_size or pixels.shape != waiting[0].shape):
            yield to_tensor(waiting)
            waiting = []
        waiting.append(pixels)
    if waiting:
        yield to_tensor(waiting)


def _draw(purpose: str, seed: int, epoch: int, image_id: str) -> tuple[int, int, int, int]:
    digest = hashlib.sha256(f"{purpose}/{seed}/{epoch}/{image_id}".encode()).digest()
    a, b, c, d = (int.from_bytes(digest[i : i + 8], "big") for i in (0, 8, 16, 24))
    return a, b, c, d
