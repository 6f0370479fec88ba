"""Image sets that lie in a folder as files: decoded when read, and only once if cached or seen before."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iqa_harness.data.files.decoding import BadImage, read_image
from iqa_harness.data.files.pixel_cache import PixelCache
from iqa_harness.data.hashing import json_sha256, pixel_sha256
from iqa_harness.data.image_set import DataCard, ImageRecord, ImageSet
from iqa_harness.data.listing import Listing
from iqa_harness.errors import DataError
from iqa_harness.machine.cache_folder import cache_root
from iqa_results.storage import write_whole

_PLAIN: Final = frozenset({".bmp", ".ppm"})
"""Files that hold their pixels as they are: nothing is saved by a copy of them."""


@dataclass(eq=False, repr=False)
class FileImageSet(ImageSet):
    """Images in files, decoded when read and checked against the pixels seen at opening.

    With a cache an image is decoded once; what the cache holds is the image of the record, whatever
    happens to the file meanwhile (`data check` reads the files).
    """

    root: Path
    card: DataCard
    fingerprint: str
    records: Sequence[ImageRecord]
    files: Sequence[Path]
    """Where each image lies."""
    raw_labels: Sequence[float]
    cache: PixelCache | None = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a fresh array of the pixels (H, W, 3) of image `index`; see `decoding.read_image`.

        Raises:
            DataError: if the file cannot be decoded or shows other pixels than when the set was opened.
        """
        held = self._cached(index)
        return self._decode(index) if held is None else np.array(held)

    def view(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index` read-only, mapped from the cache if it is there."""
        held = self._cached(index)
        pixels = self._decode(index) if held is None else held
        pixels.setflags(write=False)
        return pixels

    def raw_label(self, index: int) -> float:
        """Return the label of image `index` as the label file has it."""
        return self.raw_labels[index]

    def subset(self, indices: Sequence[int]) -> FileImageSet:
        """Return the images at `indices`, in that order, with the fingerprint of the whole set."""
        part = copy.copy(self)
        part.records = tuple(self.records[i] for i in indices)
        part.files = tuple(self.files[i] for i in indices)
        part.raw_labels = tuple(self.raw_labels[i] for i in indices)
        return part

    def _cached(self, index: int) -> NDArray[np.uint8] | None:
        if self.cache is None or self.files[index].suffix.lower() in _PLAIN:
            return None
        return self.cache.get(self.records[index].sha256)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        record, file = self.records[index], self.files[index]
        pixels = read_image(file).pixels
        if pixel_sha256(pixels) != record.sha256:
            raise DataError(f"{file}: changed since the data set was opened")
        if self.cache is not None and file.suffix.lower() not in _PLAIN:
            self.cache.put(record.sha256, pixels, record.sha256)
        return pixels


_DIGESTS = 1
"""Format of the file of an index."""


class DigestIndex:
    """The pixel hashes of one folder's files.

    Args:
        root: the folder.
        cache_dir: root of the cache; see `cache_root`.
    """

    def __init__(self, root: Path, cache_dir: Path | str | None) -> None:
        self._root = root
        self._path = cache_root(cache_dir) / "digests" / f"{json_sha256(str(root))[:16]}.json"
        self._known = self._load()
        self._changed = False

    def get(self, file: Path) -> str | None:
        """Return the pixel hash of a file that has not changed since it was put, else None."""
        entry = self._known.get(str(file.relative_to(self._root)))
        return str(entry[-1]) if entry and entry[:-1] == _state(file) else None

    def put(self, file: Path, sha256: str) -> None:
        """Remember the pixel hash of a file."""
        self._known[str(file.relative_to(self._root))] = [*_state(file), sha256]
        self._changed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what was put, whole or not at all; of two processes the later one wins."""
        if not self._changed:
            return
        try:
            write_whole(self._path, json.dumps({"format": _DIGESTS, "files": self._known}).encode())
        except OSError as error:
            logging.getLogger(__name__).warning(
                "pixel hashes cannot be kept (%s): the next opening decodes all images again", error
            )

    def _load(self) -> dict[str, Sequence[int | str]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["format"] != _DIGESTS:
                return {}
            files = content["files"].items()
            return {str(name): [*map(int, entry[:3]), str(entry[3])] for name, entry in files}
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
            return {}  # none yet, or damaged: everything is hashed again


def _state(file: Path) -> list[int | str]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def hash_images(listing: Listing, index: DigestIndex | None, advance: Callable[[], None]) -> list[str]:
    """Return the pixel hash of every entry, '' where its file is missing or refused, which is a finding.

    Args:
        listing: gets the findings, and a remark on each file that is not plain 8-bit RGB.
        index: knows files that were seen before, which are not decoded; without it every file is.
        advance: called once a file.
    """

    def look(file: Path | None) -> tuple[str, list[tuple[str, str]]] | BadImage:
        try:
            if file is None:
                return "", []
            if known := index.get(file) if index else None:
                return known, []
            image = read_image(file)
            digest = pixel_sha256(image.pixels)
            if index:
                index.put(file, digest)
            shown = file.relative_to(listing.folder.root)
            return digest, [(kind, f"{shown}: {detail}") for kind, detail in image.conversions]
        except BadImage as error:
            return error
        finally:
            advance()

    digests = []
    # At most a few images are in memory at once. What Pillow warns of is refused, in our own words.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            for entry, found in zip(listing.entries, pool.map(look, listing.files), strict=True):
                if isinstance(found, BadImage):
                    listing.find(entry.where, found.kind, str(found))
                digest, remarks = ("", []) if isinstance(found, BadImage) else found
                digests.append(digest)
                for kind, detail in remarks:
                    listing.remark(entry.where, kind, detail)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return digests
