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


class Sample(NamedTuple):
    """One crop to be taken."""

    image: int
    """Index in its set."""
    patch: int
    """Which of the image's crops, counted from 0."""


class Batch(NamedTuple):
    """What one step works on."""

    crops: Tensor | tuple[Tensor, ...]
    """(B, 3, crop, crop) float32 in [0, 1], or what a frozen trunk made of them."""
    samples: list[Sample]
    """Where they come from."""

    @property
    def indices(self) -> list[int]:
        """Indices of the images in their set."""
        return [sample.image for sample in self.samples]


def epoch_order(
    records: Sequence[ImageRecord], seed: int, epoch: int, count: int | None, patches: int = 1
) -> list[Sample]:
    """Return one epoch's crops, `patches` an image, shuffled together; the first `count`, None for all."""
    keyed = [
        (_draw("order", seed, epoch, record.image_id, patch), Sample(index, patch))
        for index, record in enumerate(records)
        for patch in range(patches)
    ]
    return [sample for _, sample in sorted(keyed)][:count]


def draw_view(
    seed: int, epoch: int, image_id: str, height: int, width: int, crop: int, flip: bool, patch: int = 0
) -> View:
    """Draw where a square crop of side `crop` lies in an image, and whether it is mirrored.

    Raises:
        TrainingError: the image is smaller than the crop.
    """
    if min(height, width) < crop:
        raise TrainingError(f"image {image_id!r} has {height}x{width} pixels, the crop needs {crop}")
    bits = _draw("view", seed, epoch, image_id, patch)
    top, left = bits[0] % (height - crop + 1), bits[1] % (width - crop + 1)
    return View(top, left, flip and bits[2] % 2 == 1)


def to_batch(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack uint8 images (H, W, 3) into floats (B, 3, H, W) in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    return stacked.to(torch.float32) / 255


def unit_labels(data: ImageSet) -> Tensor:
    """Return the labels of a set, scaled so that its MOS range becomes [0, 1], (N,)."""
    low, high = data.card.mos_range
    mos = np.array([record.mos for record in data.records], dtype=np.float64)
    return torch.from_numpy(((mos - low) / (high - low)).astype(np.float32))


def train_batches(
    data: ImageSet,
    order: Sequence[Sample],
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    crop: int,
    flip: bool,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of an epoch in order, the first `skip` left out (a resumed epoch's)."""
    for start in range(skip * batch_size, len(order), batch_size):
        samples = list(order[start : start + batch_size])
        crops = []
        for index, patch in samples:
            pixels = data.view(index)  # only the crop is read of an image that is mapped
            height, width = pixels.shape[:2]
            view = draw_view(seed, epoch, data.records[index].image_id, height, width, crop, flip, patch)
            square = pixels[view.top : view.top + crop, view.left : view.left + crop]
            crops.append(square[:, ::-1] if view.flip else square)
        yield Batch(to_batch(crops), samples)


def whole_batches(data: ImageSet, batch_size: int) -> Iterator[Tensor]:
    """Yield whole images (B, 3, H, W) in [0, 1] in the set's order; neighbours of one size share a batch."""
    waiting: list[NDArray[np.uint8]] = []
    for index in range(len(data)):
        pixels = data.read(index)
        if waiting and (len(waiting) == batch_size or pixels.shape != waiting[0].shape):
            yield to_batch(waiting)
            waiting = []
        waiting.append(pixels)
    if waiting:
        yield to_batch(waiting)


def _draw(purpose: str, seed: int, epoch: int, image_id: str, patch: int = 0) -> tuple[int, int, int, int]:
    text = f"{purpose}/{seed}/{epoch}/{image_id}" + (f"\0{patch}" if patch else "")
    digest = hashlib.sha256(text.encode()).digest()
    a, b, c, d = (int.from_bytes(digest[i : i + 8], "big") for i in (0, 8, 16, 24))
    return a, b, c, d
