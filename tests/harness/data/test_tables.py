"""Tables as people write them: spreadsheets of other countries, other names, and tables in Python."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import iqa_models.entry_points
from iqa_harness.data import ArrayImageSet, ImageSet, catalogue, check_data, open_data
from iqa_harness.data.catalogue import check_source, list_layouts, parse
from iqa_harness.data.hashing import pixel_sha256
from iqa_harness.data.image_set import ImageRecord
from iqa_harness.data.public.sets import LAYOUTS
from iqa_harness.errors import DataError

NAMES = ("a.png", "b.png", "sub/c.png")


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        Image.fromarray(picture(seed)).save(folder / name)
    return folder


def opened(root: Path, text: str, query: str = "") -> ImageSet:
    path = root / "set.csv"
    path.write_text(text, encoding="utf-8")
    return open_data(f"{path}{query}", progress=False)


def core(images: ImageSet) -> list[tuple[object, ...]]:
    return [tuple(record[:4]) for record in images.records]


PLAIN = "path,mos,split\na.png,1.5,train\nb.png,2.25,val\nsub/c.png,3.0,test\n"


@pytest.mark.parametrize(
    "text",
    [
        "path;mos;split\na.png;1,5;train\nb.png;2,25;val\nsub/c.png;3;test\n",
        "path\tmos\tsplit\na.png\t1.5\ttrain\nb.png\t2,25\tval\nsub/c.png\t3\ttest\n",
        " path , mos\u00a0, split\n a.png\u00a0, 1.5 ,train\n"
        "b.png,\u202f2.25,\u200bval\nsub/c.png,3,test\ufeff\n",
        "\ufeffpath,mos,split\r\na.png,1.5,train\r\n\r\nb.png,2.25,val\r\nsub\\c.png,3,test\r\n",
        "path,dmos,mos,split\na.png,9,1.5,train\nb.png,8,2.25,val\nsub/c.png,7,3,test\n",
    ],
    ids=["semicolon", "tab", "blanks", "windows", "dmos beside mos"],
)
def test_one_table_in_many_spellings(root: Path, text: str) -> None:
    """Dividers, decimal commas, kinds of blanks, backslashes and further columns change no record."""
    expected = opened(root, PLAIN)
    found = opened(root, text)
    assert core(found) == core(expected)
    assert found.fingerprint == expected.fingerprint


def test_a_decimal_comma_goes_with_another_divider_only(root: Path) -> None:
    """Between commas a quoted 1,234 may be a thousand: it is no number."""
    with pytest.raises(DataError, match="line 2: mos '1,234' is not a finite number"):
        opened(root, 'path,mos\na.png,"1,234"\nb.png,2\n')


def test_the_set_says_which_columns_it_saw(root: Path) -> None:
    """Columns that were read and those that were not are on the card, the latter by name."""
    images = opened(root, "path,mos,dmos,comment\na.png,1,5,x\nb.png,2,4,y\n")
    assert images.card.remarks == ("Columns read: path, mos; not read: dmos, comment.",)


def test_columns_of_other_names(root: Path) -> None:
    """`path=`, `label=` and `split=` choose columns; a rule's name after `split=` stays a rule."""
    text = "file,score,part\na.png,1.5,train\nb.png,2.25,val\nsub/c.png,3,test\n"
    images = opened(root, text, "?path=file&label=score&split=part")
    assert core(images) == core(opened(root, PLAIN))
    assert images.card.label_rule == "score"
    everything = opened(root, text, "?path=file&label=score&split=all")
    assert {record.split for record in everything.records} == {"test"}
    same = open_data(root / "set.csv", progress=False, path="file", label="score", split="part")
    assert same.fingerprint == opened(root, PLAIN.replace("mos,split", "mos,split")).fingerprint
    for query, message in (("?path=flie&label=score", "no column flie"), ("?split=parts", "neither a rule")):
        with pytest.raises(DataError, match=message):
            opened(root, text, query)


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [
        (unicodedata.normalize("NFC", "Größe é.png"), unicodedata.normalize("NFD", "Größe é.png")),
        (unicodedata.normalize("NFD", "Größe é.png"), unicodedata.normalize("NFC", "Größe é.png")),
        ("shot 10.00 PM.png", "shot\u00a010.00\u202fPM.png"),
        ("Sub/C.PNG", "sub/c.png"),
        ("zero.png", "zero\u200b.png"),
    ],
)
def test_names_that_look_alike_are_one(root: Path, written: str, on_disk: str) -> None:
    """Unicode form, kind of blank, invisible signs and case, in folders too, do not hide a file."""
    Image.fromarray(picture(9)).save(root / on_disk)
    images = opened(root, f"path,mos\n{written},1\na.png,2\n")
    assert images.records[0].image_id == written
    assert np.array_equal(images.read(0), picture(9))


def test_a_name_with_a_backslash_is_found_as_it_is(root: Path) -> None:
    """Where a file has a backslash in its name, it is that file."""
    Image.fromarray(picture(9)).save(root / "x\\y.png")
    images = opened(root, "path,mos\nx\\y.png,1\na.png,2\n")
    assert images.records[0].image_id == "x\\y.png"
    for name in ("..\\out.png", "sub\\..\\..\\out.png"):
        with pytest.raises(DataError, match="leaves the folder"):
            opened(root, f"path,mos\n{name},1\na.png,2\n")


def test_pixels_in_two_splits(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of other bytes and the same pixels in another split is a finding, and told at opening."""
    Image.fromarray(picture(0)).save(root / "copy.bmp")
    text = "path,mos,split\na.png,1,train\nb.png,2,train\ncopy.bmp,3,test\nsub/c.png,4,test\n"
    images = opened(root, text)
    assert any("1 images show the pixels of an image in another split" in r for r in images.card.remarks)
    (finding,) = check_source(root / "set.csv", progress=False).findings
    assert (finding.where, finding.kind) == ("line 4", "copy")
    assert "a.png (line 2) in train" in finding.detail
    open_data(root / "set.csv")
    assert "pixels of an image in another split" in capsys.readouterr().err
    assert check_source(root / "set.csv", allowed=["copy"], progress=False).counted == []


def test_findings_are_in_file_order(root: Path) -> None:
    """Faults of rows and of images come in the order of the rows, what belongs to no row around them."""
    (root / "e.png").touch()
    text = "path,mos,mso\ne.png,1,0\na.png,x,0\nnone.png,3,0\ne.png,4,0\nb.png,nan,0\n"
    (root / "set.csv").write_text(text.replace(",mso", ",refrence"))
    found = check_source(root / "set.csv", progress=False).findings
    assert [finding.where for finding in found] == ["", *(f"line {i}" for i in range(2, 7))]
    with pytest.raises(DataError) as error:
        open_data(root / "set.csv", progress=False)
    lines = [line.strip().split(":")[0] for line in str(error.value).splitlines()[2:]]
    assert lines == [f"line {i}" for i in range(2, 7)]


def test_an_image_listed_twice_is_told(
    tree: Callable[..., Path], scored_list: Callable[..., Path], tmp_path: Path
) -> None:
    """A list that holds an image twice is taken with it once, and `data check` and the card say so."""
    root = tree("kadid10k")
    path = scored_list(tmp_path / "test.json", {"I01_10_01.png": 1, "I02_10_01.png": 2, "I03_10_01.png": 3})
    path.write_text(path.read_text().replace("I03", "I01"))
    name = f"kadid10k:{root}?test={path}"
    images = open_data(name, progress=False)
    assert len(images) == 2
    assert "1 images are listed twice and taken once; data check names them." in images.card.remarks
    kinds = [(f.where, f.kind) for f in check_source(name, progress=False).findings]
    assert ("test.json item 2", "listed-twice") in kinds


def test_lists_name_images_that_look_alike(root: Path, scored_list: Callable[..., Path]) -> None:
    """JSON lists find images whose names differ in Unicode form, as labels and as splits; exact names win."""
    decomposed, composed = (unicodedata.normalize(form, "Größe.png") for form in ("NFD", "NFC"))
    Image.fromarray(picture(9)).save(root / "sub" / decomposed)
    Image.fromarray(picture(8)).save(root / "B.png")
    path = scored_list(root / "test.json", {composed: 1, "b.png": 2, "C.png": 3})
    images = open_data(f"json:{root}?test={path.name}&mos_range=0,5", progress=False)
    for index, seed in enumerate((9, 1, 2)):
        assert np.array_equal(images.read(index), picture(seed))
    text = f"path,mos\nsub/{decomposed},1\nb.png,2\nB.png,3\nsub/c.png,4\n"
    divided = opened(root, text, "?test=test.json")
    assert [r.image_id for r in divided.records] == [f"sub/{decomposed}", "b.png", "sub/c.png"]


# In Python --------------------------------------------------------------------------------------


def test_an_image_set_is_returned_as_it_is(root: Path) -> None:
    """It is opened already, and takes no options."""
    images = opened(root, PLAIN)
    assert open_data(images) is images
    with pytest.raises(DataError, match="takes no options"):
        open_data(images, mos_range=(1, 5))
    with pytest.raises(DataError, match="takes no options"):
        open_data(images, split="all")


def test_a_frame_is_a_csv(root: Path) -> None:
    """A DataFrame gives the records of the CSV file with its content, missing cells included."""
    text = (
        "path,mos,split,reference,distortion,level\n"
        "a.png,1.5,train,r,jpeg,2\nb.png,2.25,,,,\nsub/c.png,3,val,q,pristine,0\n"
    )
    expected = opened(root, text)
    frame = pd.read_csv(root / "set.csv")
    assert frame["level"].dtype == float  # because of the missing one
    found = open_data(frame, root=str(root), name="set", progress=False)
    assert found.records == expected.records
    assert found.fingerprint == expected.fingerprint
    renamed = frame.rename(columns={"path": "file", "mos": "score", "split": "part"})
    options = {"path": "file", "label": "score", "split": "part", "root": str(root), "name": "set"}
    assert open_data(renamed, progress=False, **options).fingerprint == expected.fingerprint


def test_paths_of_a_frame_may_lie_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a root, absolute paths and those from the working directory name the same set."""
    monkeypatch.chdir(root.parent)
    absolute = open_data([(root / name, i) for i, name in enumerate(NAMES)], progress=False)
    relative = open_data([(f"set/{name}", i) for i, name in enumerate(NAMES)], progress=False)
    assert [record.image_id for record in absolute.records] == list(NAMES)
    assert absolute.fingerprint == relative.fingerprint
    assert {record.split for record in absolute.records} == {"test"}
    assert check_data(absolute) == []


def test_what_a_table_lacks_is_said(root: Path) -> None:
    """Missing columns, files, scale and options that are none end in one error each."""
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "score": [1, 1]})
    for options, message in (
        ({}, "the table: no column mos; found: path, score; say which are yours with path=, label="),
        ({"label": "score"}, "all labels are 1.0: state the MOS range"),
        ({"label": "score", "spilt": "all"}, "no option 'spilt', did you mean 'split'"),
    ):
        with pytest.raises(DataError, match=message):
            open_data(frame, root=str(root), progress=False, **options)
    with pytest.raises(DataError, match=r"row 2: none\.png: no such file"):
        open_data([(root / "a.png", 1), (root / "none.png", 2)], progress=False)
    for nothing in (3, [1, 2], [("a.png", 1, 2)]):
        with pytest.raises(DataError, match="is no data set"):
            open_data(nothing, progress=False)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="row 2: path is empty"):
        open_data([(root / "a.png", 1), ("", 2)], progress=False)
    with pytest.raises(DataError, match="no rows"):
        open_data([], progress=False, mos_range=(0, 1))


def test_arrays(root: Path) -> None:
    """Arrays are a set with the hashes of their pixels, whose splits and subsets read what was given."""
    images = [picture(i) for i in range(3)]
    found = ArrayImageSet.of(images, [1, 2.5, 3], splits=["train", "val", "test"], mos_range=(0, 5))
    assert found.records[1] == ImageRecord("1", 2.5, "val", "1", None, None, pixel_sha256(images[1]))
    assert check_data(found) == []
    images[1][:] = 0  # the set has its own
    assert np.array_equal(found.split("val").read(0), picture(1))
    found.read(0)[:] = 0
    assert found.read(0).any()
    with pytest.raises(ValueError, match="read-only"):
        found.view(0)[:] = 0
    assert found.subset([2, 0]).fingerprint == found.fingerprint
    assert open_data(found) is found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mos": [1, 1, 1]}, "all labels are 1.0: state the MOS range"),
        ({"mos": [1, 2]}, "2 mos"),
        ({"mos": [1, float("nan"), 2]}, "image 1: mos nan is not a finite number"),
        ({"mos": [1, "two", [3]]}, "image 2: mos nan is not a finite number"),
        ({"mos": [1, "1_0", 2]}, "image 1: mos nan is not a finite number"),
        ({"mos_range": (2, 5)}, "image 0: mos 1.0 is outside the MOS range"),
        ({"ids": ["a", "b", "a"]}, "image 2: id 'a' is that of image 0"),
        ({"splits": ["train", "tset", "test"]}, "image 1: split 'tset'"),
        (
            {"splits": ["train", "val", "test"], "references": ["r", "s", "r"]},
            "image 2: reference 'r' is in test",
        ),
        (
            {"images": [picture(0), picture(1)[..., 0], picture(2)]},
            r"image 1: uint8 \(8, 10\) is no uint8 array",
        ),
        ({"images": [picture(0).astype(float), picture(1), picture(2)]}, "image 0: float64"),
        ({"images": [], "mos": [], "mos_range": (0, 1)}, "no images"),
    ],
)
def test_arrays_that_are_no_set(changes: dict[str, object], message: str) -> None:
    """Every fault is named with its place."""
    given = {"images": [picture(i) for i in range(3)], "mos": [1, 2, 3], **changes}
    with pytest.raises(DataError, match=message):
        ArrayImageSet.of(given.pop("images"), given.pop("mos"), **given)  # type: ignore[arg-type]


# Sets of other packages --------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed for one test: a layout, a function, and one that gives no set."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    info = tmp_path / "site" / "own_sets-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-sets\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[iqa_harness.data]\nmine = own_sets:LAYOUT\nmade = own_sets:make\nwrong = own_sets:wrong\n"
        "demo = own_sets:wrong\n"
    )
    (tmp_path / "site" / "own_sets.py").write_text(
        """
from dataclasses import replace
import numpy as np
from iqa_harness.data import ArrayImageSet
from iqa_harness.data.public.sets import LAYOUTS

LAYOUT = replace(LAYOUTS["kadid10k"], name="mine", title="Mine", images=12)

def make(root=None, count="3"):
    pixels = [np.full((4, 4, 3), i, np.uint8) for i in range(int(count))]
    return ArrayImageSet.of(pixels, range(int(count)), name=f"made at {root}")

def wrong():
    return 3
"""
    )
    iqa_models.entry_points.load_group.cache_clear()
    yield
    iqa_models.entry_points.load_group.cache_clear()


def test_sets_of_other_packages(package: None, tree: Callable[..., Path]) -> None:
    """An installed layout opens like a shipped one, a function is called with folder and options."""
    root = tree("kadid10k", "mine")
    assert set(list_layouts()) == {*LAYOUTS, "mine"}
    images = open_data(f"mine:{root}", progress=False)
    assert (images.card.name, len(images), images.card.notes) == ("mine", 12, ())
    assert check_source(f"mine:{root}", progress=False).findings == []
    made = open_data("made:/somewhere?count=5")
    assert (made.card.name, len(made)) == ("made at /somewhere", 5)
    assert check_source("made", progress=False).findings == []
    with pytest.raises(DataError, match="cannot be made"):
        open_data("made?cuont=5")
    with pytest.raises(DataError, match="gives int, no ImageSet"):
        open_data("wrong")
    assert parse("demo").name == "demo"  # what ships keeps its name
    assert catalogue._installed().keys() == {"mine", "made", "wrong"}
