"""Image files to pixels, refusing what would silently become another image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from iqa_harness.errors import DataError

# Named rather than everything Pillow knows: some of its readers start other programs.
FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_MODES = frozenset({"RGB", "L", "1", "P", "RGBA", "LA"})


def decode(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file as uint8 RGB (H, W, 3).

    The EXIF orientation is applied, as every viewer does. Grey and palette images become RGB. An
    embedded colour profile is ignored. Refused, because any conversion would be a choice of ours: an
    alpha channel that is not opaque everywhere, CMYK, more than 8 bits a channel, several frames.

    Raises:
        DataError: naming the path, if the file is missing, empty, truncated, no image of `FORMATS`,
            refused as above, or larger than Pillow's limit against decompression bombs.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        with Image.open(path, formats=FORMATS) as image:
            _refuse(path, image)
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data and upright.convert("RGBA").getchannel("A").getextrema() != (
                255,
                255,
            ):
                raise DataError(f"{path}: has transparent pixels; flatten it onto a background first")
            return np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image of {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports damage by any of these
        raise DataError(f"{path}: cannot be decoded ({error})") from error


def _refuse(path: Path, image: ImageFile.ImageFile) -> None:
    """Raise `DataError` for what the header already tells."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise DataError(f"{path}: {image.width} x {image.height} exceeds the limit of {limit} pixels")
    # Pillow opens 16-bit RGB as mode RGB and drops the low byte; only the raw mode tells.
    deep = any(";16" in str(tile[3]) for tile in image.tile)
    if image.mode not in _MODES or deep:
        raise DataError(
            f"{path}: {'16-bit ' if deep else ''}{image.mode} is not supported; convert it to 8-bit RGB"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: holds several frames")
