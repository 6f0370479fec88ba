"""The images of a split cut into cells, and how they stand in the cells' keys."""

from __future__ import annotations

import hashlib
import json
from copy import copy
from functools import cached_property

from iqa_harness.data.image_set import ImageSet
from iqa_suites import OwnAttackSettings, Suite


class Ranges:
    """The images of a split, cut into cells; what keys say of them is written once for all models."""

    def __init__(self, suite: Suite, images: ImageSet, split: str) -> None:
        self.images, self.size = images, suite.cell_images
        self.firsts = range(0, len(images), suite.cell_images)
        coupled = split == suite.data.split and any(own.coupled_images for own in suite.own_attacks)
        if coupled and len(self.firsts) > 1 and len(images) - self.firsts[-1] == 1:
            # As in the attack's own batches: one image alone has none to be compared with.
            self.firsts = self.firsts[:-1]
        self.data = canonical([images.card.name, images.fingerprint, images.card.mos_range])
        self._texts: dict[int, str] = {}

    def of(self, settings: OwnAttackSettings | None) -> Ranges:
        """Return the ranges of an attack's cells: these, or all images in one for an attack on the set."""
        if settings is None or not settings.attack_class.whole_set or len(self.firsts) == 1:
            return self
        whole = copy(self)
        whole.firsts, whole._texts = range(1), {}
        return whole

    @cached_property
    def every(self) -> str:
        """Return all images as they stand in a key of what depends on all of them: a hash."""
        text = "".join(self.text(first) for first in self.firsts)
        return hashlib.sha256(text.encode()).hexdigest()

    def count(self, first: int) -> int:
        """Return the number of images in the range that begins at `first`."""
        return len(self.images) - first if first == self.firsts[-1] else self.size

    def text(self, first: int) -> str:
        """Return the images of a range as they stand in a key."""
        if first not in self._texts:
            records = (self.images.records[i] for i in range(first, first + self.count(first)))
            self._texts[first] = canonical(
                [[r.image_id, r.sha256, r.mos, r.split, r.reference, r.distortion, r.level] for r in records]
            )
        return self._texts[first]


def canonical(value: object) -> str:
    """Return a value as the one JSON text that a key is made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
