"""Image files to pixels, refusing what would silently become another image."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from iqa_harness.errors import DataError

# Named rather than everything Pillow knows: some of its readers start other programs.
FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_MODES = frozenset({"RGB", "L", "1", "P", "RGBA", "LA"})
_ORIENTATION: Final = 0x0112


class BadImage(DataError):
    """An image file that is refused, and why in one word."""

    def __init__(self, path: Path, kind: str, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.kind = kind
        """missing, empty, truncated, unreadable, oversized, cmyk, 16-bit, mode, frames or alpha."""


class Conversion(NamedTuple):
    """What was done to a file that is not plain 8-bit RGB; it changes no colour a viewer would show."""

    kind: str
    """palette, opaque-alpha or rotated."""
    detail: str


class DecodedImage(NamedTuple):
    """The pixels of a file and how they were come by."""

    pixels: NDArray[np.uint8]
    """RGB (H, W, 3)."""
    conversions: tuple[Conversion, ...]


def decode(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file as uint8 RGB (H, W, 3); see `read_image`."""
    return read_image(path).pixels


def read_image(path: Path) -> DecodedImage:
    """Decode an image file.

    The EXIF orientation is applied, as every viewer does. Grey and palette images become RGB. An
    embedded colour profile is ignored. Refused, because any conversion would be a choice of ours: an
    alpha channel that is not opaque everywhere, CMYK, more than 8 bits a channel, several frames.

    Raises:
        BadImage: naming the path, if the file is missing, empty, truncated, no image of `FORMATS`,
            refused as above, or larger than Pillow's limit against decompression bombs.
    """
    try:
        if path.stat().st_size == 0:
            raise BadImage(path, "empty", "the file is empty")
        with Image.open(path, formats=FORMATS) as image:
            _refuse(path, image)
            conversions = []
            if image.mode == "P":
                conversions.append(Conversion("palette", "palette colours are read as RGB"))
            turn = image.getexif().get(_ORIENTATION, 1)
            if turn in range(2, 9):
                conversions.append(Conversion("rotated", f"EXIF orientation {turn} is applied"))
            ImageOps.exif_transpose(image, in_place=True)
            if image.has_transparency_data:
                if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                    raise BadImage(
                        path, "alpha", "has transparent pixels; flatten it onto a background first"
                    )
                conversions.append(Conversion("opaque-alpha", "an alpha channel without effect is dropped"))
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            return DecodedImage(np.array(rgb), tuple(conversions))
    except FileNotFoundError as error:
        raise BadImage(path, "missing", "no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(path, "oversized", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadImage(path, "unreadable", f"not an image of {', '.join(FORMATS)}") from error
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow answers damage with almost any exception, TypeError included
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise BadImage(path, kind, f"cannot be decoded ({error})") from error


def _refuse(path: Path, image: ImageFile.ImageFile) -> None:
    """Raise `BadImage` for what the header already tells."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadImage(
            path, "oversized", f"{image.width} x {image.height} exceeds the limit of {limit} pixels"
        )
    # Pillow opens 16-bit RGB as mode RGB and drops the low byte; only the raw mode tells.
    deep = any(";16" in str(tile[3]) for tile in image.tile) or image.mode.startswith("I")
    if image.mode not in _MODES or deep:
        kind = "16-bit" if deep else "cmyk" if image.mode == "CMYK" else "mode"
        raise BadImage(
            path, kind, f"{'16-bit ' if deep else ''}{image.mode} is not supported; convert it to 8-bit RGB"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise BadImage(path, "frames", "holds several frames")
