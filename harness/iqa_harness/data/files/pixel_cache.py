"""Decoded images on disk, memory-mapped, in bounded room: what saves decoding a JPEG a second time.

One file an image, named by a hash of the image's content and the transform, so nothing in it is ever
out of date. A file also holds a hash over its name and its pixels: under another name it counts as damaged.
Files are published whole under a lock, so several processes may share a cache. The limit holds for the sum of
all files at any time.

What has not been used since this process began gives way to what is new, the longest unused first; what has
been used stays. So a set larger than the limit keeps the part that fits, where the usual rule (least recently
used) would throw every image out just before its next turn.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.hashing import pixel_sha256
from iqa_harness.errors import DataError
from iqa_harness.machine.cache_folder import cache_root

LIMIT: Final = "IQA_HARNESS_PIXELS"
"""Environment variable: room of the cache, such as 20G or 500M; 0 turns it off."""
DEFAULT_LIMIT: Final = 4 * 2**30
HEADER: Final = 64
_MAGIC: Final = b"IQAPIX2\n"
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_KEPT: Final = 0.9
"""Share of the limit that is left full when room is made, so that room is not made for every image."""


class PixelCache:
    """A bounded folder of decoded images.

    Args:
        folder: where the files are; made when first written to.
        limit: most bytes of all files together; 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.hits = 0
        self._began = time.time_ns()
        self._full = limit <= 0
        self._verified: set[str] = set()

    def get(self, key: str) -> NDArray[np.uint8] | None:
        """Return the pixels (H, W, 3) of a key, read-only and mapped, or None if they are not there.

        A damaged file is removed and counts as not there.
        """
        if self.limit <= 0:
            return None
        path = self._path(key)
        try:
            with path.open("rb") as file:
                used = os.fstat(file.fileno()).st_mtime_ns
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
            pixels = None
        else:
            pixels = self._unpack(key, mapped)
        if pixels is None:
            with contextlib.suppress(OSError):  # not ours to remove: it stays a miss
                path.unlink()
            return None
        if used < self._began:
            with contextlib.suppress(OSError):  # pushed out by another process meanwhile; the map stays valid
                _touch(path)
        self.hits += 1
        return pixels

    def put(self, key: str, pixels: NDArray[np.uint8], sha256: str | None = None) -> None:
        """Keep the pixels (H, W, 3) of a key if there is or can be made room for them.

        `sha256` is their `pixel_sha256` if it is known already; it need not be computed then.
        A disk that cannot be written to is said once and costs time, never a result.
        """
        size = HEADER + pixels.nbytes
        if self._full or size > self.limit:
            return
        try:
            with self._locked():
                path = self._path(key)
                if path.exists():
                    return
                total = self._total()
                if total + size > self.limit:
                    total = self._make_room(size)
                if total + size > self.limit:
                    self._full = True
                    return
                self._write(path, pixels, _seal(key, sha256 or pixel_sha256(pixels)))
                self._set_total(total + size)
            self._verified.add(key)
        except OSError as error:
            self._full = True
            logging.getLogger(__name__).warning(
                "%s: decoded images cannot be kept (%s); going on without", self.folder, error
            )

    def total(self) -> int:
        """Return the bytes of all files, counted."""
        return sum(size for _, size, _ in self._files())

    def clear(self) -> int:
        """Remove everything; return the bytes that were freed."""
        if not self.folder.is_dir():
            return 0
        with self._locked():
            freed = 0
            for path, size, _ in self._files():
                path.unlink(missing_ok=True)
                freed += size
            self._set_total(0)
        return freed

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.pixels"

    def _unpack(self, key: str, mapped: mmap.mmap) -> NDArray[np.uint8] | None:
        """Return the mapped pixels, None if they are not what was written."""
        height, width = (int.from_bytes(mapped[at : at + 8], "little") for at in (8, 16))
        if mapped[:8] != _MAGIC or len(mapped) != HEADER + height * width * 3:
            return None
        pixels = np.frombuffer(mapped, np.uint8, offset=HEADER).reshape(height, width, 3)
        if key not in self._verified:
            if _seal(key, pixel_sha256(pixels)) != mapped[24:56]:
                return None
            self._verified.add(key)
        return pixels

    def _write(self, path: Path, pixels: NDArray[np.uint8], seal: bytes) -> None:
        sides = b"".join(side.to_bytes(8, "little") for side in pixels.shape[:2])
        header = _MAGIC + sides + seal
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with part.open("wb") as file:
                file.write(header.ljust(HEADER, b"\0"))
                file.write(np.ascontiguousarray(pixels).data)
            _touch(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> int:
        """Remove what this process has not used, the longest unused first; return what is left."""
        files = sorted(self._files(), key=lambda item: item[2])
        total = sum(kept for _, kept, _ in files)
        wanted = max(0, int(self.limit * _KEPT) - size)
        for path, kept, used in files:
            if total <= wanted or used >= self._began:
                break
            path.unlink(missing_ok=True)
            total -= kept
        self._set_total(total)
        return total

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        """Yield path, bytes and time of last use of every file, what a killed process left half included."""
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    yield path, status.st_size, status.st_mtime_ns

    def _total(self) -> int:
        try:
            return int((self.folder / "bytes").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return self.total()

    def _set_total(self, total: int) -> None:
        (self.folder / "bytes").write_text(str(total), encoding="ascii")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock; it goes with the process that holds it, however that ends."""
        if sys.platform == "win32":  # no fcntl: nothing is kept there, see `open_pixel_cache`
            yield
            return
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_verified": set()}


def _seal(key: str, sha256: str) -> bytes:
    """Return what binds pixels of a hash to the name of their file (32 bytes)."""
    return hashlib.sha256(f"{key}/{sha256}".encode()).digest()


def _touch(path: Path) -> None:
    # The clock of the kernel's own time stamps lags behind the one that `_began` was read from.
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def open_pixel_cache(cache_dir: Path | str | None = None) -> PixelCache:
    """Return the cache of decoded images under `cache_root`, as large as `$IQA_HARNESS_PIXELS` says.

    Raises:
        DataError: that is no size.
    """
    text = os.environ.get(LIMIT, "").strip()
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text, re.IGNORECASE)
    if text and parts is None:
        raise DataError(f"{LIMIT}={text!r} is no size; write 20G, 500M or 0")
    limit = int(float(parts[1]) * _UNITS[parts[2].upper()]) if parts else DEFAULT_LIMIT
    if sys.platform == "win32":  # no fcntl: without its lock the limit could not be held
        limit = 0
    return PixelCache(cache_root(cache_dir) / "pixels", limit)
