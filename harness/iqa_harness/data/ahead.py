"""Images decoded ahead of who needs them next, by threads, while a GPU computes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.image_set import ImageSet

AHEAD = 16
"""Images read beyond the one last asked for. Twice as many on both sides are held."""
THREADS = 4
"""Threads that decode."""


class ReadAhead(ImageSet):
    """An image set whose next images are being read already; the pixels are those of the set."""

    def __init__(self, images: ImageSet, ahead: int = AHEAD) -> None:
        """Take a set; the end is followed by the beginning, where the next attack's first cell reads."""
        self.card, self.fingerprint = images.card, images.fingerprint
        self.records, self.transform = images.records, images.transform
        self._images, self._ahead = images, ahead
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images-ahead")
        self._held: dict[int, Future[NDArray[np.uint8]]] = {}

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index`, and let the next ones be read.

        Raises:
            DataError: as the set's own `read`; of an image that nobody asks for, nothing.
        """
        count = len(self)
        near = {(index + step) % count for step in range(-2 * self._ahead, 2 * self._ahead + 1)}
        self._held = {place: pixels for place, pixels in self._held.items() if place in near}
        for step in range(min(self._ahead + 1, count)):
            place = (index + step) % count
            if place not in self._held:
                self._held[place] = self._pool.submit(self._images.read, place)
        return self._held[index].result().copy()

    def raw_label(self, index: int) -> float:
        """Return the label of image `index` as the set's own file has it."""
        return self._images.raw_label(index)

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """Return the images at `indices` of the set itself."""
        return self._images.subset(indices)
