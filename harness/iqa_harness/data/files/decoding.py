"""Image files to pixels, refusing what would silently become another image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from iqa_harness.errors import DataError

# Named rather than everything Pillow knows: some of its readers start other programs.
FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_MODES = frozenset({"RGB", "L", "1", "P", "RGBA", "LA"})
_ORIENTATION: Final = 0x0112
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_SIZ: Final = b"\xff\x4f\xff\x51"
"""Beginning of a JPEG 2000 codestream; its components stand 38 bytes behind it, three bytes each."""


class BadImage(DataError):
    """An image file that is refused, and why in one word."""

    def __init__(self, path: Path, kind: str, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.kind = kind
        """missing, empty, truncated, unreadable, oversized, cmyk, 16-bit, mode, frames or alpha."""


class DecodedImage(NamedTuple):
    """The pixels of a file and how they were come by."""

    pixels: NDArray[np.uint8]
    """RGB (H, W, 3)."""
    conversions: list[tuple[str, str]]
    """What was done to a file that is not plain 8-bit RGB, which changes no colour a viewer would show: in a
    word (palette, opaque-alpha or rotated), and as a sentence."""


def decode(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file as uint8 RGB (H, W, 3); see `read_image`."""
    return read_image(path).pixels


def read_image(path: Path) -> DecodedImage:
    """Decode an image file.

    The EXIF orientation is applied, as every viewer does. Grey and palette images become RGB. An
    embedded colour profile is ignored. Refused, because any conversion would be a choice of ours: an
    alpha channel that is not opaque everywhere, CMYK, other than 8 bits a channel, several frames. Of a
    phone's JPEG with a second picture behind it (MPO) the first is read, as every JPEG reader does.

    Raises:
        BadImage: naming the path, if the file is missing, empty, truncated, no image of `FORMATS`,
            refused as above, larger than Pillow's limit against decompression bombs or than the memory.
    """
    # A plugin or a model's package may have allowed it for all of Pillow: half an image would be grey then.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        if path.stat().st_size == 0:
            raise BadImage(path, "empty", "the file is empty")
        with Image.open(path, formats=FORMATS) as image:
            _refuse(path, image)
            conversions = []
            if image.mode == "P":
                conversions.append(("palette", "palette colours are read as RGB"))
            turn = image.getexif().get(_ORIENTATION, 1)
            if turn in range(2, 9):
                conversions.append(("rotated", f"EXIF orientation {turn} is applied"))
            ImageOps.exif_transpose(image, in_place=True)
            if image.has_transparency_data:
                if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                    raise BadImage(
                        path, "alpha", "has transparent pixels; flatten it onto a background first"
                    )
                conversions.append(("opaque-alpha", "an alpha channel without effect is dropped"))
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            return DecodedImage(np.array(rgb), conversions)
    except FileNotFoundError as error:
        raise BadImage(path, "missing", "no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(path, "oversized", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadImage(path, "unreadable", f"not an image of {', '.join(FORMATS)}") from error
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage(path, "oversized", "too large for the memory that is left") from error
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
    depth = _depth(path, image)
    if image.mode not in _MODES or depth != 8:
        kind = "16-bit" if depth > 8 else "cmyk" if image.mode == "CMYK" else "mode"
        bits = "" if depth == 8 else f"{depth}-bit " if depth else "signed or floating-point "
        raise BadImage(path, kind, f"{bits}{image.mode} is not supported; convert it to 8-bit RGB")
    # The pictures after a phone's first (format MPO) are a depth map or another exposure.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadImage(path, "frames", "holds several frames")


def _depth(path: Path, image: ImageFile.ImageFile) -> int:
    """Return the bits of a channel, 0 if they are no unsigned integers; what Pillow scales to 8 counts as 8.

    Pillow opens deeper RGB as mode RGB and drops the low bits, so the mode alone does not tell.
    """
    if image.format == "TIFF":
        tags: Any = image
        if any(kind != 1 for kind in tags.tag_v2.get(_SAMPLE_FORMAT, (1,))):
            return 0
        return max(8, *map(int, tags.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    if image.format == "JPEG2000":
        with path.open("rb") as file:
            header = file.read(1 << 20)
        at = header.find(_SIZ) + len(_SIZ) + 38
        depths = header[at : at + 3 * int.from_bytes(header[at - 2 : at], "big") : 3]
        if any(depth & 0x80 for depth in depths):
            return 0
        return max((depth + 1 for depth in depths), key=lambda bits: abs(bits - 8), default=8)
    if image.format == "PPM":  # its arguments hold the largest value
        return 16 if image.mode == "I" or any(_largest(tile.args) > 255 for tile in image.tile) else 8
    deep = any(";16" in str(tile.args) for tile in image.tile) or image.mode.startswith("I")
    return 16 if deep else 8


def _largest(arguments: Any) -> int:
    last = arguments[-1] if isinstance(arguments, tuple) and arguments else 0
    return last if isinstance(last, int) else 0
