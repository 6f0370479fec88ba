"""Images resized before they are cropped, each once: kept in a file that is mapped, not in memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iqa_harness.data.image_set import ImageSet
from iqa_models.protocols import SHORTER_SIDE


def target_size(rule: str, height: int, width: int) -> tuple[int, int]:
    """Return (height, width) an image is resized to.

    Args:
        rule: ``none``, ``keep_aspect``, ``shorter:N`` or ``HEIGHTxWIDTH``; the last makes landscape images
            portrait under the authors' ``512x384``, as torchvision's Resize does.
        height: of the image.
        width: of the image.
    """
    if rule == "none":
        return height, width
    if rule == "keep_aspect" or rule.startswith("shorter:"):
        side = SHORTER_SIDE if rule == "keep_aspect" else int(rule.removeprefix("shorter:"))
        short = min(height, width)
        return max(side, round(height * side / short)), max(side, round(width * side / short))
    high, _, wide = rule.partition("x")
    return int(high), int(wide)


def resized(data: ImageSet, rule: str) -> ImageSet:
    """Return a set whose images are resized by a rule; the set itself if there is nothing to do."""
    return data if rule == "none" else ResizedSet(data, rule)


class ResizedSet(ImageSet):
    """Another set's images, resized (Pillow, bilinear) when first read.

    What was resized is kept in a temporary file, deleted with the set, so that an epoch of many crops an
    image decodes and resizes each once, and memory does not grow with the number of images. Records keep
    the hashes of the images as they came.
    """

    def __init__(self, data: ImageSet, rule: str) -> None:
        self.card, self.fingerprint, self.records = data.card, data.fingerprint, data.records
        self.rule = rule
        self._data = data
        self._places: dict[int, tuple[int, int, int]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="iqa-harness-resized-"))
        self._file = self._folder / "pixels"
        self._file.touch()
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the resized pixels (H, W, 3) of image `index`."""
        if index in self._places:
            offset, height, width = self._places[index]
            with self._file.open("rb") as file:
                file.seek(offset)
                raw = np.fromfile(file, dtype=np.uint8, count=height * width * 3)
            return raw.reshape(height, width, 3)
        pixels = self._data.view(index)
        height, width = target_size(self.rule, *pixels.shape[:2])
        if pixels.shape[:2] != (height, width):
            small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(small)
        with self._file.open("ab") as file:
            offset = file.tell()
            file.write(np.ascontiguousarray(pixels).data)
        self._places[index] = (offset, height, width)
        return pixels

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """Return the images at `indices`, in that order, resized by the same rule."""
        return ResizedSet(self._data.subset(indices), self.rule)
