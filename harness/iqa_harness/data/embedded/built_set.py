"""A built set on disk: a folder with `manifest.json`, `records.json` and memory-mapped `pixels.npy`.

A folder is published whole or not at all, under a name that hashes what decides its content. What is
incomplete (a missing or truncated file) is built again; what is complete but differs from its own
record is damage, and is reported.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.hashing import pixel_sha256, set_fingerprint
from iqa_harness.data.image_set import DataCard, ImageRecord, ImageSet
from iqa_harness.errors import DataError

FORMAT: Final = 1
_PIXELS, _RECORDS, _MANIFEST = "pixels.npy", "records.json", "manifest.json"
_BUILDING = ".building-"
_STALE_SECONDS = 24 * 3600


@dataclass(eq=False, repr=False)
class StoredImageSet(ImageSet):
    """Images of one size in a published folder; pixels are checked against their record when first read."""

    folder: Path
    card: DataCard
    fingerprint: str
    records: Sequence[ImageRecord]
    rows: Sequence[int]
    """Where each image stands in the file."""
    _map: NDArray[np.uint8] | None = field(default=None, init=False)
    _verified: set[int] = field(default_factory=set, init=False)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a fresh array of the pixels (H, W, 3) of image `index`.

        Raises:
            DataError: if the file cannot be mapped or the pixels are not those of the record.
        """
        row, record = self.rows[index], self.records[index]
        if self._map is None:
            self._map = self._open()
        pixels = np.array(self._map[row])
        if row not in self._verified:
            if pixel_sha256(pixels) != record.sha256:
                raise DataError(
                    f"{self.folder / _PIXELS}: image {record.image_id} does not match its record; "
                    f"delete {self.folder} to build it again"
                )
            self._verified.add(row)
        return pixels

    def subset(self, indices: Sequence[int]) -> StoredImageSet:
        """Return the images at `indices`, in that order, with the fingerprint of the whole set."""
        part = copy.copy(self)
        part.records = tuple(self.records[i] for i in indices)
        part.rows = tuple(self.rows[i] for i in indices)
        return part

    def _open(self) -> NDArray[np.uint8]:
        path = self.folder / _PIXELS
        try:
            pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}); delete {self.folder} to build it again"
            ) from error
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] <= max(self.rows, default=0):
            raise DataError(
                f"{path}: holds {pixels.dtype} {pixels.shape}; delete {self.folder} to build it again"
            )
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would pickle as all of its bytes; another process maps the file again.
        return {**self.__dict__, "_map": None}


WriteRow: TypeAlias = "Callable[[int, NDArray[np.uint8]], None]"
"""Writes the pixels (H, W, 3) of one row."""


@contextlib.contextmanager
def pixel_writer(folder: Path, shape: tuple[int, int, int, int]) -> Iterator[WriteRow]:
    """Yield what writes `pixels.npy` row by row, from several threads, through a file rather than a map.

    A full disk is then an error message; writing through a map would end the process.
    """
    lock = threading.Lock()
    with (folder / _PIXELS).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start = file.tell()

        def write(row: int, pixels: NDArray[np.uint8]) -> None:
            if pixels.shape != shape[1:] or pixels.dtype != np.uint8:
                raise ValueError(f"row {row}: expected uint8 {shape[1:]}, got {pixels.dtype} {pixels.shape}")
            with lock:
                file.seek(start + row * pixels.nbytes)
                file.write(np.ascontiguousarray(pixels).data)

        yield write


def write_records(folder: Path, card: DataCard, records: Sequence[ImageRecord], recipe: object) -> None:
    """Write `records.json` and, last, `manifest.json`: card, fingerprint, recipe and file sizes."""
    (folder / _RECORDS).write_text(
        json.dumps([record._asdict() for record in records], indent=0), encoding="utf-8"
    )
    manifest = {
        "format": FORMAT,
        "card": asdict(card),
        "fingerprint": set_fingerprint(card.name, card.mos_range, records),
        "recipe": recipe,
        "bytes": {name: (folder / name).stat().st_size for name in (_PIXELS, _RECORDS)},
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def open_or_build(folder: Path, card: DataCard, build: Callable[[Path], None]) -> StoredImageSet:
    """Return the set in `folder`; if it is not there or incomplete, let `build` fill a new folder first.

    The card is the caller's, so that its wording is never older than the code.
    `build` gets an empty folder beside `folder`, which then takes its name. Of two processes that
    build at once, one publishes and the other takes what was published.

    Raises:
        DataError: if the folder cannot be written, or is complete but damaged.
    """
    if not _is_complete(folder):
        try:
            _build_and_publish(folder, build)
        except OSError as error:
            raise DataError(f"{folder}: cannot build the data set there ({error})") from error
    return _open_folder(folder, card)


def _build_and_publish(folder: Path, build: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    with tempfile.TemporaryDirectory(
        prefix=_BUILDING, dir=folder.parent, ignore_cleanup_errors=True
    ) as temporary:
        built = Path(temporary, folder.name)
        built.mkdir()
        build(built)
        if _is_complete(folder):
            return  # another process was faster
        try:
            if folder.exists():
                folder.rename(Path(temporary, "incomplete"))
            built.rename(folder)
        except OSError:
            if not _is_complete(folder):  # else: another process was faster
                raise


def _sweep(parent: Path) -> None:
    """Remove what killed builds left a day ago or longer."""
    for left in parent.glob(f"{_BUILDING}*"):
        try:
            age = time.time() - left.stat().st_mtime
        except FileNotFoundError:
            continue  # its build has just ended
        if age > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest, None if there is none that can be read: the folder is incomplete."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _is_complete(folder: Path) -> bool:
    manifest = _read_manifest(folder)
    if manifest is None or set(manifest.get("bytes", ())) != {_PIXELS, _RECORDS}:
        return False
    files = ((folder / name, size) for name, size in manifest["bytes"].items())
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _open_folder(folder: Path, card: DataCard) -> StoredImageSet:
    damaged = DataError(
        f"{folder}: the records do not match the manifest; delete the folder to build it again"
    )
    try:
        manifest = _read_manifest(folder) or {}
        entries = json.loads((folder / _RECORDS).read_text(encoding="utf-8"))
        records = tuple(ImageRecord(**entry) for entry in entries)
        fingerprint = set_fingerprint(card.name, card.mos_range, records)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged from error
    if fingerprint != manifest.get("fingerprint"):
        raise damaged
    return StoredImageSet(folder, card, fingerprint, records, range(len(records)))
