"""Images that a program holds in memory, as a data set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.hashing import pixel_sha256, set_fingerprint
from iqa_harness.data.image_set import SPLITS, DataCard, ImageRecord, ImageSet
from iqa_harness.data.listing import Entry, Folder, Listing, number, refuse
from iqa_harness.errors import DataError


@dataclass(eq=False, repr=False)
class ArrayImageSet(ImageSet):
    """Images held in memory; `of` makes one of arrays and labels."""

    records: Sequence[ImageRecord]
    pixels: Sequence[NDArray[np.uint8]]
    card: DataCard
    fingerprint: str

    @classmethod
    def of(
        cls,
        images: Sequence[NDArray[np.uint8]],
        mos: Sequence[float] | NDArray[np.floating],
        *,
        ids: Sequence[str] | None = None,
        references: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        mos_range: tuple[float, float] | None = None,
        name: str = "arrays",
    ) -> Self:
        """Return the set of n images; their pixels are copied.

        Args:
            images: uint8 RGB (H, W, 3), sizes may differ.
            mos: label of each image (n,), higher is better.
            ids: a name for each image, unique; by default its number. Seeds are drawn from it.
            references: content of each image, by default its id; images of one content share a split.
            splits: ``train``, ``val`` or ``test`` for each image; by default all are test.
            mos_range: ends of the label scale, by default the lowest and highest label.
            name: what tables call the set.

        Raises:
            DataError: with all problems at once: lists of different lengths, an array that is no uint8 RGB
                image, a label that is not finite or out of range, an id twice, a split that is none, a
                content in two splits, or labels that do not tell their range.
        """
        count = len(images)
        ids = [str(i) for i in (range(count) if ids is None else ids)]
        references = ids if references is None else [str(reference) for reference in references]
        splits = ["test"] * count if splits is None else [str(split) for split in splits]
        lengths = {"images": count, "mos": len(mos), "ids": len(ids), "references": len(references)}
        if len({*lengths.values(), len(splits)}) > 1:
            said = ", ".join(f"{length} {what}" for what, length in lengths.items())
            raise DataError(f"{name}: {said}, {len(splits)} splits: one of each an image is needed")
        listing = Listing(Folder(Path()))
        for i, (image_id, label, reference, split) in enumerate(
            zip(ids, mos, references, splits, strict=True)
        ):
            value = number(label)
            listing.entries.append(Entry(f"image {i}", image_id, "", value, value, reference, split=split))
        low, high = listing.label_range(mos_range)
        _check(listing, images)
        refuse(name, listing.findings)
        pixels = tuple(np.array(image) for image in images)
        for image in pixels:
            image.setflags(write=False)
        records = tuple(
            entry.record(pixel_sha256(image)) for entry, image in zip(listing.entries, pixels, strict=True)
        )
        card = DataCard(
            name=name,
            label="MOS",
            mos_range=(low, high),
            summary=f"{count} images in memory",
            source="images and labels given by a program; licences are the user's to state",
            notes=() if mos_range else ("MOS range taken from the lowest and highest label.",),
            label_rule="mos",
            split_rule="as given",
        )
        return cls(records, pixels, card, set_fingerprint(name, (low, high), records))

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a fresh array of the pixels (H, W, 3) of image `index`."""
        return np.array(self.pixels[index])

    def view(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index` read-only and uncopied."""
        pixels = self.pixels[index].view()
        pixels.setflags(write=False)
        return pixels

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the images at `indices`, in that order, with the fingerprint of the whole set."""
        part = copy.copy(self)
        part.records = tuple(self.records[i] for i in indices)
        part.pixels = tuple(self.pixels[i] for i in indices)
        return part


def _check(listing: Listing, images: Sequence[NDArray[np.uint8]]) -> None:
    """Note what is wrong with images in memory and what is said of them."""
    seen: dict[str, str] = {}
    for entry, image in zip(listing.entries, images, strict=True):
        form = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".strip()
        if getattr(image, "dtype", None) != np.uint8 or np.ndim(image) != 3 or np.shape(image)[2] != 3:
            listing.find(entry.where, "pixels", f"{form} is no uint8 array of (height, width, 3)")
        elif 0 in image.shape:
            listing.find(entry.where, "pixels", f"{form} has no pixel")
        if not np.isfinite(entry.mos):
            listing.find(entry.where, "label", f"mos {entry.mos} is not a finite number")
        if entry.split not in SPLITS:
            listing.find(entry.where, "split", f"split {entry.split!r} is none of {', '.join(SPLITS)}")
        if seen.setdefault(entry.image_id, entry.where) != entry.where:
            listing.find(entry.where, "duplicate", f"id {entry.image_id!r} is that of {seen[entry.image_id]}")
    listing.leaks()
    if not listing.entries:
        listing.find("", "columns", "no images")
