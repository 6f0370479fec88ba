"""`data check`: every kind of fault of a set, all at once, by row."""

import csv
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_harness.data import open_data
from iqa_harness.data.catalogue import check_source
from iqa_harness.data.files.decoding import BadImage, decode
from iqa_harness.data.public.sets import LAYOUTS
from iqa_harness.errors import DataError

Tree = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(0, 256, (8, 10, 3), dtype=np.uint8)


def findings(text: str) -> dict[str, str]:
    """Return row to kind of every finding, and make sure that no row has two.

    A miniature is an incomplete download, which `test_sound_sets_have_no_other_finding` looks at.
    """
    found = [f for f in check_source(text, progress=False).findings if f.kind != "incomplete"]
    assert len({finding.where for finding in found}) == len(found)
    return {finding.where: finding.kind for finding in found}


def test_sound_sets_have_no_other_finding(tree: Tree) -> None:
    """Miniatures of all layouts are sound, originals among the images included, but not whole."""
    for name in ("koniq10k", "tid2013", "kadid10k", "spaq", "agiqa3k", "livec", "csiq", "bid"):
        report = check_source(f"{name}:{tree(name)}", progress=False)
        (finding,) = report.findings
        assert finding.kind == "incomplete"
        assert f"{report.images} labelled images of {LAYOUTS[name].images:,}" in finding.detail
    assert check_source(f"live:{tree('live')}", progress=False).findings == []


def bomb(path: Path) -> None:
    """Write a small PNG that says it is 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, "JPEG", exif=exif)


def transparent(path: Path) -> None:
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 128))
    image.save(path, "PNG")


def truncated(path: Path) -> None:
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-2000])


def animated(path: Path) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, i, axis=0)) for i in range(2)]
    frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])


FAULTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "unreadable": lambda path: path.write_bytes(b"this is no image"),
    "truncated": truncated,
    "cmyk": lambda path: Image.fromarray(PIXELS).convert("CMYK").save(path, "JPEG"),
    "16-bit": lambda path: Image.fromarray(PIXELS[..., 0].astype(np.uint16)).save(path, "PNG"),
    "palette": lambda path: Image.fromarray(PIXELS).convert("P").save(path, "PNG"),
    "alpha": transparent,
    "opaque-alpha": lambda path: Image.fromarray(PIXELS).convert("RGBA").save(path, "PNG"),
    "rotated": rotated,
    "oversized": bomb,
    "frames": animated,
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_image_fault_at_once(tree: Tree) -> None:
    """Twelve images with twelve faults: twelve findings, each with its row; opening refuses nine of them."""
    root = tree("koniq10k")
    with (root / "koniq10k_scores_and_distributions.csv").open(newline="") as file:
        names = [row["image_name"] for row in csv.DictReader(file)]
    for name, make in zip(names, FAULTS.values(), strict=True):
        make(root / "1024x768" / name)
    assert findings(f"koniq10k:{root}") == {f"line {i}": kind for i, kind in enumerate(FAULTS, start=2)}
    with pytest.raises(DataError, match=r"9 problem\(s\)") as error:
        open_data(f"koniq10k:{root}", progress=False)
    assert "get it from" in str(error.value)  # a file is missing


def test_every_label_fault_at_once(tree: Tree) -> None:
    """NaN, text, out of range, a double row and a row of no file are found together, by row."""
    root = tree("kadid10k")
    lines = (root / "dmos.csv").read_text().splitlines()
    for line, old, new in (
        (1, lines[1].split(",")[2], "nan"),
        (2, lines[2].split(",")[2], "four"),
        (3, lines[3].split(",")[2], "5.01"),
        (4, "I02_10_05.png", "I02_10_01.png"),
        (5, "I03_10_01.png", "I03_77_01.png"),
    ):
        lines[line] = lines[line].replace(old, new, 1)
    (root / "dmos.csv").write_text("\n".join(lines) + "\n")
    assert findings(f"kadid10k:{root}") == {
        "line 2": "label",
        "line 3": "label",
        "line 4": "range",
        "line 5": "duplicate",
        "line 6": "missing",
        "images/I02_10_05.png": "unlabelled",
        "images/I03_10_01.png": "unlabelled",
    }


def test_koniq_lists_disagree(tree: Tree) -> None:
    """A set of another name, a double row, a row of no image and an image of no row are found."""
    root = tree("koniq10k")
    path = root / "koniq10k_distributions_sets.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("training", "trainign")
    lines[3] = lines[2]
    lines.append("9999.jpg,0,test")
    path.write_text("\n".join(lines) + "\n")
    assert findings(f"koniq10k:{root}") == {
        f"{path.name} line 2": "split",
        f"{path.name} line 4": "duplicate",
        path.name: "unknown",
        "line 4": "split",
    }


@pytest.mark.parametrize(
    "name", ["../outside.png", "/etc/hostname", "sub/../../outside.png", "link.png", "ln/x.png"]
)
def test_paths_that_leave_the_root(tree: Tree, tmp_path: Path, name: str) -> None:
    """A name that leads out of the folder, by dots, from the root or through a link, is refused unread."""
    root = tree("kadid10k")
    Image.fromarray(PIXELS).save(tmp_path / "outside.png")
    (tmp_path / "far").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "far" / "x.png")
    (root / "images" / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "images" / "ln").symlink_to(tmp_path / "far")
    # From images/ it takes one more step to get out.
    named = f"../{name}" if name.startswith("..") else f"../../{name}" if name.startswith("sub") else name
    with (root / "dmos.csv").open("a") as file:
        file.write(f"{named},I01.png,3,0.1\n")
    report = check_source(f"kadid10k:{root}", progress=False)
    found = [finding for finding in report.findings if finding.kind not in ("unlabelled", "incomplete")]
    expected = "missing" if name == "/etc/hostname" else "outside"  # images//etc/hostname stays inside
    assert [(finding.where, finding.kind) for finding in found] == [("line 14", expected)]


def test_two_files_that_differ_in_case_only(tree: Tree) -> None:
    """Of two files that differ in case alone none is taken for a third spelling."""
    root = tree("tid2013")
    names = [p for p in (root / "distorted_images").iterdir() if p.name.lower() == "i01_01_1.bmp"]
    data = names[0].read_bytes()
    names[0].unlink()
    for spelling in ("i01_01_1.bMp", "i01_01_1.bmP"):
        (root / "distorted_images" / spelling).write_bytes(data)
    found = check_source(f"tid2013:{root}", progress=False).findings
    assert found[0].kind == "missing"
    assert "which is it?" in found[0].detail


def test_csv_is_checked_as_well(tmp_path: Path) -> None:
    """A CSV of one's own: faults of rows and of images together, sound rows unmentioned."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).convert("P").save(tmp_path / "p.png")
    (tmp_path / "e.png").touch()
    (tmp_path / "own.csv").write_text(
        "path,mos\na.png,1\np.png,2\ne.png,3\n../x.png,4\nnone.png,x\na.png,9\n"
    )
    report = check_source(f"{tmp_path / 'own.csv'}?mos_range=1,5", progress=False)
    kinds = sorted((finding.where, finding.kind) for finding in report.findings)
    assert report.images == 6
    assert kinds == [
        ("line 3", "palette"),
        ("line 4", "empty"),
        ("line 5", "outside"),
        ("line 6", "label"),
        ("line 6", "missing"),
        ("line 7", "duplicate"),
        ("line 7", "range"),
    ]


def test_names_no_file_system_takes(tmp_path: Path) -> None:
    """A name of absurd length and a circle of links are rows without a file, not the end of the check."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "x").symlink_to(tmp_path / "y")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    (tmp_path / "own.csv").write_text(f"path,mos\na.png,1\n{'n' * 5000},2\nx,3\nx/../a.png,4\n")
    kinds = {(f.where, f.kind) for f in check_source(str(tmp_path / "own.csv"), progress=False).findings}
    assert kinds == {("line 3", "missing"), ("line 4", "missing"), ("line 5", "missing")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG", "JPEG", "JPEG2000", "BMP"])
def test_random_damage_is_always_a_bad_image(tmp_path: Path, kind: str) -> None:
    """Whatever bytes are changed, an image is read or refused with its path; nothing else comes out."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "x.img"
    Image.fromarray(PIXELS).save(file, kind, **({"exif": exif} if kind in ("WEBP", "PNG", "JPEG") else {}))
    sound, generator, refused = file.read_bytes(), np.random.default_rng(7), 0
    for _ in range(150):
        data = bytearray(sound)
        for place in generator.integers(0, min(len(data), 300), size=4):
            data[place] = generator.integers(0, 256)
        file.write_bytes(data)
        try:
            assert decode(file).ndim == 3
        except BadImage as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 5


def test_check_reads_what_a_cache_would_hide(tree: Tree) -> None:
    """An image damaged after it was opened, hashed and cached is found all the same."""
    root = tree("koniq10k")
    images = open_data(f"koniq10k:{root}", progress=False)
    images.read(0)
    file = root / "1024x768" / images.records[0].image_id
    file.write_bytes(file.read_bytes()[:150])
    finding, incomplete = check_source(f"koniq10k:{root}", progress=False).findings
    assert incomplete.kind == "incomplete"
    assert finding.kind in ("truncated", "unreadable")
    assert file.name in finding.detail


def test_embedded_set_is_checked(smoke_cache: Path) -> None:
    """An embedded set is checked against its records."""
    report = check_source("smoke", cache_dir=smoke_cache, progress=False)
    assert (report.images, report.findings) == (80, [])


def test_command(cli, tree: Tree) -> None:  # type: ignore[no-untyped-def]
    """Exit code 1 with findings and a count by kind; 0 once all kinds are allowed; 3 for a wrong kind.

    What no command opens cannot be allowed, whether the set has it or not.
    """
    root = tree("koniq10k")
    names = sorted((root / "1024x768").iterdir())
    rotated(names[0])
    Image.fromarray(PIXELS).convert("P").save(names[1], "PNG")
    code, out, _ = cli("data", "check", f"koniq10k:{root}")
    assert code == 1
    assert "12 rows, 3 problem(s): 1 incomplete, 1 palette, 1 rotated" in out
    assert names[0].name in out
    allow = [word for kind in ("rotated", "palette", "incomplete") for word in ("--allow", kind)]
    code, out, _ = cli("data", "check", f"koniq10k:{root}", *allow)
    assert code == 0
    assert "(allowed)" in out
    for kind in ("rotten", "leak", "label", "missing"):
        code, _, err = cli("data", "check", f"koniq10k:{root}", "--allow", kind)
        assert code == 3
        assert "no such kind, or one that keeps a set from being opened" in err


def test_info_without_a_folder(cli) -> None:  # type: ignore[no-untyped-def]
    """`data info csiq` says where to get it, what the folder must hold, and how its label runs."""
    code, out, _ = cli("data", "info", "csiq")
    assert code == 0
    for expected in ("s2.smu.edu", "csiq.DMOS.xlsx", "0 to 1, lower is better; it is turned round", "18:6:6"):
        assert expected in out


def test_info_with_a_folder(cli, tree: Tree) -> None:  # type: ignore[no-untyped-def]
    """`data info NAME:FOLDER` prints counts, split rule, and the number the label becomes."""
    code, out, _ = cli("data", "info", f"csiq:{tree('csiq')}?split_seed=2")
    assert code == 0
    for expected in ("1 - dmos", "seed 2", "test         6 images of 1 contents", "sha256"):
        assert expected in out


def test_list_names_all(cli) -> None:  # type: ignore[no-untyped-def]
    """`data list` names embedded and public sets."""
    code, out, _ = cli("data", "list")
    assert code == 0
    assert all(name in out for name in ("demo-core", "koniq10k:FOLDER", "bid:FOLDER", "json:FOLDER"))
