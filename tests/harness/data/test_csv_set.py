import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from iqa_harness.data.catalogue import check_data
from iqa_harness.data.catalogue import open_data as open_csv
from iqa_harness.data.files.decoding import decode
from iqa_harness.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    for name, shift in (("a.png", 0), ("b.png", 1), ("sub/c.png", 2)):
        Image.fromarray(np.roll(PIXELS, shift, axis=1)).save(folder / name)
    return folder


def table(root: Path, text: str) -> Path:
    path = root / "set.csv"
    path.write_text(text, encoding="utf-8")
    return path


def problems(root: Path, text: str, **options: tuple[float, float]) -> str:
    with pytest.raises(DataError) as error:
        open_csv(table(root, text), **options)
    return str(error.value)


def test_all_columns(root: Path) -> None:
    """Ids are paths, cells become the record, empty optional cells are unknown."""
    text = (
        "path,mos,split,reference,distortion,level,comment\n"
        "a.png,3.5,train,ref1,jpeg,2,x\nb.png,1,,,,,\nsub/c.png,4e0,val,ref2,pristine,0,\n"
    )
    images = open_csv(table(root, text), mos_range=(1, 5))
    first, second, third = images.records
    assert first[:6] == ("a.png", 3.5, "train", "ref1", "jpeg", 2)
    assert second[:6] == ("b.png", 1.0, "test", "b.png", None, None)
    assert third[:6] == ("sub/c.png", 4.0, "val", "ref2", "pristine", 0)
    assert np.array_equal(images.read(0), PIXELS)
    assert images.card.mos_range == (1.0, 5.0)
    assert images.card.label == "MOS"
    assert check_data(images) == []


def test_range_defaults_to_the_labels(root: Path) -> None:
    """Without a stated range the lowest and highest label are its ends, and the card says so."""
    images = open_csv(table(root, "path,mos\na.png,20\nb.png,80\n"))
    assert images.card.mos_range == (20.0, 80.0)
    assert "lowest and highest" in images.card.notes[0]


def test_fingerprint_is_of_pixels_and_labels(root: Path) -> None:
    """A lossless re-encoding keeps the fingerprint; another label or range changes it."""
    text = "path,mos\na.png,1\nb.png,2\n"
    before = open_csv(table(root, text)).fingerprint
    Image.fromarray(PIXELS).save(root / "a.png", compress_level=0)
    assert open_csv(table(root, text)).fingerprint == before
    assert open_csv(table(root, text), mos_range=(1, 5)).fingerprint != before
    assert open_csv(table(root, text.replace("b.png,2", "b.png,3"))).fingerprint != before


def test_subset_keeps_the_fingerprint(root: Path) -> None:
    """A split of the set reads its own images and carries the whole set's fingerprint."""
    images = open_csv(table(root, "path,mos,split\na.png,1,train\nb.png,2,test\n"))
    test = images.split("test")
    assert [record.image_id for record in test.records] == ["b.png"]
    assert np.array_equal(test.read(0), np.roll(PIXELS, 1, axis=1))
    assert test.fingerprint == images.fingerprint


def test_byte_order_mark_and_crlf(root: Path) -> None:
    """A file saved by a spreadsheet reads the same."""
    assert len(open_csv(table(root, "\ufeffpath,mos\r\na.png,1\r\nb.png,2\r\n"))) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,score\na.png,1\n", "no column mos"),
        ("", "no column path and no column mos"),
        ("path,mos\n", "no rows"),
        ("path,mos,refrence\na.png,1,x\nb.png,2,x\n", "'refrence': did you mean 'reference'"),
        ("path,mos,mos\na.png,1,2\n", "'mos' appears twice"),
        ("path,mos\na.png,1\nb.png,nan\n", "line 3: mos 'nan'"),
        ("path,mos\na.png,1\nb.png,inf\n", "line 3: mos 'inf'"),
        ("path,mos\na.png,1\nb.png,\n", "line 3: mos ''"),
        ("path,mos\na.png,1\nb.png,2,3\n", "line 3: expected 2 cells"),
        ("path,mos\na.png,1\nb.png\n", "line 3: expected 2 cells"),
        ("path,mos\na.png,1\na.png,2\n", "line 3: a.png: the same file as line 2"),
        ("path,mos\na.png,1\nsub/../a.png,2\n", "line 3: sub/../a.png: the same file as line 2"),
        ("path,mos\na.png,1\nz.png,2\n", "line 3: z.png: no such file"),
        ("path,mos\na.png,1\nsub,2\n", "line 3: sub: no such file"),
        ("path,mos\na.png,1\n,2\n", "line 3: path is empty"),
        ("path,mos\na.png,1\n../outside.png,2\n", "line 3: ../outside.png: leaves the folder"),
        ("path,mos\na.png,1\n/etc/hostname,2\n", "line 3: /etc/hostname: leaves the folder"),
        ("path,mos,split\na.png,1,tset\nb.png,2,\n", "line 2: split 'tset'"),
        ("path,mos,level\na.png,1,6\nb.png,2,1.5\n", "line 3: level '1.5'"),
        (
            "path,mos,split,reference\na.png,1,train,r\nb.png,2,test,r\n",
            "reference 'r' is in test, but on line 2 in train",
        ),
        ("path,mos\na.png,1\nb.png,1\n", "all labels are 1.0: state the MOS range"),
        ('path,mos\n"a.png,1\n', "cannot be read as a UTF-8 CSV file"),
    ],
)
def test_problem(root: Path, text: str, expected: str) -> None:
    """Each kind of problem is named with its line."""
    assert expected in problems(root, text)


def test_all_problems_at_once(root: Path) -> None:
    """One error lists every bad row, image damage included."""
    (root / "empty.png").touch()
    (root / "text.png").write_text("no image")
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:-60])
    message = problems(
        root, "path,mos\nempty.png,1\na.png,x\ntext.png,2\ncut.png,3\nz.png,4\nb.png,99\n", mos_range=(0, 5)
    )
    assert "6 problem(s)" in message
    for expected in (
        *(
            "line 2: ",
            "empty",
            "line 3: mos 'x'",
            "line 4: ",
            "not an image",
            "line 5: ",
            "cannot be decoded",
        ),
        *("line 6: z.png: no such file", "line 7: mos 99.0 is outside the MOS range 0.0..5.0"),
    ):
        assert expected in message


@pytest.mark.parametrize("ends", [(5.0, 1.0), (1.0, 1.0), (0.0, float("nan"))])
def test_range_must_be_a_range(root: Path, ends: tuple[float, float]) -> None:
    """Ends in the wrong order, equal or not finite are refused."""
    assert "the first end must be the lower one" in problems(root, "path,mos\na.png,1\n", mos_range=ends)


def test_link_out_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    """A link inside the folder to a file outside of it leaves the folder."""
    Image.fromarray(PIXELS).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    assert "line 2: link.png: leaves the folder" in problems(root, "path,mos\nlink.png,1\na.png,2\n")


def test_not_text(root: Path) -> None:
    """A file that is not UTF-8 is a DataError, and so is one that is not there."""
    (root / "set.csv").write_bytes(b"path,mos\n\xff\xfe.png,1\n")
    for path in (root / "set.csv", root / "none.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            open_csv(path)


def test_image_changed_after_opening(root: Path) -> None:
    """Reading an image that was replaced since the set was opened is a DataError."""
    images = open_csv(table(root, "path,mos\na.png,1\nb.png,2\n"))
    Image.fromarray(255 - PIXELS).save(root / "a.png")
    with pytest.raises(DataError, match="changed since"):
        images.read(0)
    (root / "b.png").unlink()
    with pytest.raises(DataError, match="no such file"):
        images.read(1)


def save(path: Path, mode: str) -> NDArray[np.uint8]:
    """Write PIXELS in a mode and return what they are as RGB."""
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(path)
    return np.array(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
def test_modes_that_are_rgb(tmp_path: Path, mode: str) -> None:
    """Grey, palette and opaque alpha images become RGB."""
    expected = save(tmp_path / "x.png", mode)
    assert np.array_equal(decode(tmp_path / "x.png"), expected)


def transparent(path: Path) -> None:
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 254))
    image.save(path, "PNG")


def deep_grey(path: Path) -> None:
    Image.fromarray(PIXELS[..., 0].astype(np.uint16)).save(path, "PNG")


def deep_rgb(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS)
    header = struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def frames(path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.save(path, "TIFF", save_all=True, append_images=[image])


def cmyk(path: Path) -> None:
    Image.fromarray(PIXELS).convert("CMYK").save(path, "JPEG")


def postscript(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, "EPS")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (transparent, "transparent"),
        (deep_grey, "16-bit"),
        (deep_rgb, "16-bit"),
        (frames, "several frames"),
        (cmyk, "CMYK"),
        (postscript, "not an image of"),
    ],
)
def test_refused_images(tmp_path: Path, write: Callable[[Path], None], expected: str) -> None:
    """What a conversion would silently change is refused with its path."""
    write(tmp_path / "x.img")
    with pytest.raises(DataError, match=expected) as error:
        decode(tmp_path / "x.img")
    assert "x.img" in str(error.value)


def test_truncation_is_refused_whatever_another_package_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code for image quality often lets Pillow fill what a file lacks with grey: here it is still refused."""
    save(tmp_path / "x.png", "RGB")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match=r"x\.png: cannot be decoded"):
        decode(tmp_path / "x.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [191, 50])
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """An image over Pillow's limit is refused, whether Pillow warns of it or refuses it itself."""
    save(tmp_path / "x.png", "RGB")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"exceeds"):
        decode(tmp_path / "x.png")


def test_an_oversized_image_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """By its row; Pillow's own warning, with a line of its source, is not shown beside."""
    save(tmp_path / "x.png", "RGB")
    (tmp_path / "set.csv").write_text("path,mos\nx.png,1\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 191)
    warnings.simplefilter("always")
    with pytest.raises(DataError, match=r"line 2: .*x\.png: .* exceeds the limit of 191 pixels"):
        open_csv(f"{tmp_path / 'set.csv'}?mos_range=1,5", cache_dir=tmp_path / "cache", progress=False)
    assert not recwarn.list


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """A photograph marked as turned is decoded upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "x.png"), np.rot90(PIXELS, -1))
