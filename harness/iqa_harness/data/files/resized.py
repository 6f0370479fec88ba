"""Image sets seen through a resize, each image resized once where a cache holds it."""

from __future__ import annotations

import copy
import re
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.files.pixel_cache import PixelCache
from iqa_harness.data.hashing import json_sha256
from iqa_harness.data.image_set import ImageSet
from iqa_harness.machine.scratch import Scratch

RULES: Final = re.compile(r"keep_aspect|shorter:[1-9]\d{0,4}|[1-9]\d{0,4}x[1-9]\d{0,4}")
"""How a size is written; see `target_size`."""


def target_size(rule: str, height: int, width: int) -> tuple[int, int]:
    """Return (height, width) an image is resized to.

    Args:
        rule: ``keep_aspect`` (shorter side 384), ``shorter:N`` or ``HEIGHTxWIDTH``; the last makes landscape
            images portrait under the authors' ``512x384``, as torchvision's Resize does.
        height: of the image.
        width: of the image.
    """
    if rule == "keep_aspect" or rule.startswith("shorter:"):
        from iqa_models.protocols import SHORTER_SIDE  # loads torch, which a fixed size does not need

        side = SHORTER_SIDE if rule == "keep_aspect" else int(rule.removeprefix("shorter:"))
        short = min(height, width)
        return max(side, round(height * side / short)), max(side, round(width * side / short))
    high, _, wide = rule.partition("x")
    return int(high), int(wide)


class ResizedImageSet(ImageSet):
    """A set seen through a resize (bilinear, antialiased, Pillow's).

    Records are those of the images before the resize; fingerprint and `transform` name the rule as well.
    """

    def __init__(self, source: ImageSet, rule: str, cache: PixelCache | None = None) -> None:
        self.source, self.rule, self.cache = source, rule, cache
        high, by, wide = rule.partition("x")
        how = f"to {high} high x {wide} wide" if by else f"by the rule {rule}"
        note = f"Every image is resized {how} (bilinear, antialiased)."
        self.card = replace(source.card, notes=(*source.card.notes, note))
        self.records = source.records
        self.transform = f"resize:{rule}:bilinear"
        self.fingerprint = json_sha256([source.fingerprint, self.transform])

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a fresh array of the pixels (H, W, 3) of image `index`."""
        return np.array(self.view(index))

    def view(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index` read-only."""
        key = json_sha256([self.records[index].sha256, self.transform])
        held = self.cache.get(key) if self.cache else None
        if held is not None:
            return held
        from PIL import Image

        pixels = self.source.view(index)
        height, width = target_size(self.rule, *pixels.shape[:2])
        if pixels.shape[:2] != (height, width):
            image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(image)
        if self.cache:
            self.cache.put(key, pixels)
        pixels.setflags(write=False)
        return pixels

    def raw_label(self, index: int) -> float:
        """Return the label of image `index` as the set's own file has it."""
        return self.source.raw_label(index)

    def subset(self, indices: Sequence[int]) -> ResizedImageSet:
        """Return the images at `indices`, in that order, with the fingerprint of the whole set."""
        part = copy.copy(self)
        part.source = self.source.subset(indices)
        part.records = part.source.records
        return part


def resized_for_now(source: ImageSet, rule: str) -> ResizedImageSet:
    """Return a set resized by a rule; what was resized waits in a temporary folder, deleted with the set.

    Many crops an image are then cut from one resize, and memory does not grow with the number of images.
    """
    scratch = Scratch()
    # Windows lacks the lock a cache needs: there every image is resized when it is read.
    cache = PixelCache(scratch.path, 0 if sys.platform == "win32" else sys.maxsize)
    weakref.finalize(cache, scratch.close)
    return ResizedImageSet(source, rule, cache)
