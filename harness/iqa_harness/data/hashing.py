"""Hashes that tell whether an image, a photograph or a whole set is still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.image_set import ImageRecord


def pixel_sha256(pixels: NDArray[np.uint8]) -> str:
    """Return the hex sha256 of uint8 pixels (H, W, 3): height and width in 8 bytes each, then the values."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(height.to_bytes(8, "little") + width.to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: object) -> str:
    """Return the hex sha256 of `value` as canonical JSON (sorted keys, shortest exact floats)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def set_fingerprint(name: str, mos_range: tuple[float, float], records: Iterable[ImageRecord]) -> str:
    """Return the hex sha256 that identifies a set: its name, label range and every record, in order."""
    return json_sha256([name, [float(end) for end in mos_range], [list(record) for record in records]])
