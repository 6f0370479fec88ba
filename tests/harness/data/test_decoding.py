"""What is in an image file is what comes out of it, or it is refused by name."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from iqa_harness.data.files.decoding import BadImage, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def refused(path: Path) -> str:
    with pytest.raises(BadImage) as error:
        decode(path)
    return error.value.kind


@pytest.mark.parametrize("largest", [256, 1000, 65535])
@pytest.mark.parametrize("magic", [b"P6", b"P5", b"P3"])
def test_a_deep_ppm_is_refused(tmp_path: Path, largest: int, magic: bytes) -> None:
    """A portable pixmap with more than 8 bits a channel is named so, binary, grey or plain."""
    path = tmp_path / "x.ppm"
    header = magic + b" 2 2 %d\n" % largest
    count = 4 if magic == b"P5" else 12
    path.write_bytes(header + (b"7 " * count if magic == b"P3" else struct.pack(f">{count}H", *range(count))))
    assert refused(path) == "16-bit"


def test_a_shallow_ppm_fills_the_range(tmp_path: Path) -> None:
    """Values up to 15 are scaled to 0..255."""
    (tmp_path / "x.ppm").write_bytes(b"P6 4 1 15\n" + bytes(range(4, 16)))
    assert np.array_equal(decode(tmp_path / "x.ppm").ravel(), 17 * np.arange(4, 16))


@pytest.mark.parametrize(
    ("depth", "kind"), [(0x0F, "16-bit"), (0x09, "16-bit"), (0x03, "mode"), (0x87, "mode"), (0x8F, "mode")]
)
@pytest.mark.parametrize("channel", [0, 2])
def test_jpeg_2000_of_another_depth_is_refused(tmp_path: Path, depth: int, kind: str, channel: int) -> None:
    """A channel of 16, 10 or 4 bits, or a signed one, is seen in the header of the codestream."""
    path = tmp_path / "x.jp2"
    Image.fromarray(PIXELS).save(path, "JPEG2000")
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\x4f\xff\x51") + 4 + 38 + 3 * channel
    assert data[place] == 7  # eight bits, unsigned
    assert np.array_equal(decode(path), PIXELS)
    data[place] = depth
    path.write_bytes(data)
    assert refused(path) == kind


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
def test_tiff(tmp_path: Path, planar: str, compression: str | None, layout: dict[str, object]) -> None:
    """Channels in planes or together, strips or tiles: 8 bits come out as they are, 16 bits are refused."""
    path = tmp_path / "x.tif"
    for dtype in (np.uint8, np.uint16):
        pixels = PIXELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
        tifffile.imwrite(
            path,
            np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels,
            photometric="rgb",
            planarconfig=planar,
            compression=compression,
            **layout,
        )
        if dtype == np.uint8:
            assert np.array_equal(decode(path), PIXELS)
        else:
            assert refused(path) == "16-bit"


def test_a_signed_tiff_is_refused(tmp_path: Path) -> None:
    """Signed bytes, which would be taken for unsigned ones, are named."""
    tifffile.imwrite(tmp_path / "x.tif", (PIXELS[..., 0].astype(np.int16) - 128).astype(np.int8))
    assert refused(tmp_path / "x.tif") == "mode"


def test_of_a_phone_jpeg_the_first_picture_is_read(tmp_path: Path) -> None:
    """A JPEG with a second picture behind it (MPO) shows what a reader of its first picture alone shows."""
    second = Image.fromarray(255 - PIXELS[:8, :8])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(
        tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second], quality=90, exif=exif
    )
    Image.fromarray(PIXELS).save(tmp_path / "first.jpg", "JPEG", quality=90, exif=exif)
    assert np.array_equal(decode(tmp_path / "x.jpg"), decode(tmp_path / "first.jpg"))
    assert decode(tmp_path / "x.jpg").shape == (24, 20, 3)


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
from iqa_harness.data.files.decoding import BadImage, decode
decode(Path({small!r}))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)
try:
    decode(Path({large!r}))
except BadImage as error:
    print(error.kind, error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is read from /proc")
def test_an_image_larger_than_the_memory_is_named(tmp_path: Path) -> None:
    """Where the memory does not suffice for an image, its path is told; a smaller one is read."""
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (64, 64)).save(small)
    Image.new("RGB", (6000, 6000)).save(large)  # 108 MB
    code = LITTLE_MEMORY.format(path=sys.path, small=str(small), large=str(large))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"oversized {large}: too large for the memory that is left"
