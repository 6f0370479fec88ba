"""What a data set is to the harness: records and pixels, nothing hidden."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")
PSEUDO: Final = "pseudo_mos"
"""Column of a table whose labels were computed, not given by people."""


class ImageRecord(NamedTuple):
    """One image of a set and its label."""

    image_id: str
    """Unique within the set and stable across machines: seeds are drawn from it."""
    mos: float
    """Label on the set's own scale, higher is better."""
    split: str
    """``train``, ``val`` or ``test``."""
    reference: str
    """Content the image shows; images of one content never cross splits. The id itself if unknown."""
    distortion: str | None
    """Type of distortion, None if unknown, ``pristine`` for an original."""
    level: int | None
    """Strength 1..5, 0 for an original, None if unknown."""
    sha256: str
    """Of the decoded pixels (height, width and RGB bytes), so that a re-encoded file is the same image."""


@dataclass(frozen=True)
class DataCard:
    """What a reader of a result must know about the images and labels."""

    name: str
    """Name that tables show."""
    label: Literal["MOS", "pseudo-MOS"]
    """Human opinion, or a computed stand-in; every table that shows a pseudo-MOS set says so."""
    mos_range: tuple[float, float]
    """Nominal ends of the label scale; objectives see (mos - low) / (high - low)."""
    summary: str
    """One line."""
    source: str
    """Where the images and labels come from, with licences."""
    notes: tuple[str, ...] = ()
    """Caveats."""
    label_rule: str = ""
    """How the label became `mos` (``100 - dmos_new``); empty if it is the set's own number."""
    split_rule: str = ""
    """Who decided the splits: rule, seed, and hashes of the lists they were read from; empty if embedded."""
    remarks: tuple[str, ...] = ()
    """What the files of this place look like, such as columns that were not read; in no manifest."""

    def as_json(self) -> dict[str, str | list[float] | list[str]]:
        """Return the card as JSON values, for a manifest; the name and label stand beside it there."""
        return {
            "summary": self.summary,
            "source": self.source,
            "mos_range": list(self.mos_range),
            "notes": list(self.notes),
            "label_rule": self.label_rule,
            "split_rule": self.split_rule,
        }


class ImageSet(ABC):
    """Images of one data set (or of one split of it) in a fixed order: the test order.

    Pixels are uint8 RGB (H, W, 3); images of one set may differ in size. Reading an image that
    cannot be decoded, or whose pixels no longer match the record, raises `DataError` with its path.
    """

    card: DataCard
    fingerprint: str
    """sha256 over name, label range and all records (ids, labels, splits, pixel hashes), before `subset`."""
    records: Sequence[ImageRecord]
    transform: str = ""
    """What was done to the recorded pixels, such as a resize; empty if `read` gives them as they are."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def labels(self) -> NDArray[np.float64]:
        """The label of every image (n,)."""
        return np.array([record.mos for record in self.records], dtype=np.float64)

    def summary(self) -> dict[str, Any]:
        """Return what a program wants to know: card, images a split, fingerprint."""
        splits = Counter(record.split for record in self.records)
        return {"card": self.card, "images": dict(splits), "fingerprint": self.fingerprint}

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index`."""

    def view(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index` read-only, uncopied where that is possible.

        For who needs a crop only: of a cached image no more than the crop is fetched from the disk.
        """
        pixels = self.read(index)
        pixels.setflags(write=False)
        return pixels

    def raw_label(self, index: int) -> float:
        """Return the label of image `index` as the set's own file has it (a DMOS is not turned round)."""
        return self.records[index].mos

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> ImageSet:
        """Return the images at `indices`, in that order, with the fingerprint of the whole set."""

    def split(self, name: str) -> ImageSet:
        """Return the images of one split, in the set's order."""
        return self.subset([i for i, record in enumerate(self.records) if record.split == name])
