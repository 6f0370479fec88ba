"""Public sets in the layouts their authors ship: names, labels, directions, splits."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from iqa_harness.data import ImageSet, check_data, open_data
from iqa_harness.data.public import label_files as tables
from iqa_harness.data.public.label_files import read_mat
from iqa_harness.data.public.sets import LAYOUTS
from iqa_harness.errors import DataError

Tree = Callable[..., Path]


def opened(text: str) -> ImageSet:
    return open_data(text, progress=False)


def splits(images: ImageSet) -> dict[str, int]:
    return dict(Counter(record.split for record in images.records))


@pytest.mark.parametrize(
    ("name", "count", "mos_range", "rule", "counts"),
    [
        ("koniq10k", 12, (0, 100), "official", {"train": 7, "val": 2, "test": 3}),
        ("tid2013", 20, (0, 9), "references: 3/1/1", {"train": 12, "val": 4, "test": 4}),
        ("kadid10k", 12, (1, 5), "references: 4/1/1", {"train": 8, "val": 2, "test": 2}),
        ("spaq", 12, (0, 100), "random: 10/1/1", {"train": 10, "val": 1, "test": 1}),
        ("agiqa3k", 12, (0, 5), "references: 4/1/1", {"train": 8, "val": 2, "test": 2}),
        ("livec", 12, (0, 100), "random: 10/1/1", {"train": 10, "val": 1, "test": 1}),
        ("csiq", 24, (0, 1), "references: 2/1/1", {"train": 12, "val": 6, "test": 6}),
        ("bid", 12, (0, 5), "random: 10/1/1", {"train": 10, "val": 1, "test": 1}),
    ],
)
def test_layout(tree: Tree, name: str, count: int, mos_range: object, rule: str, counts: object) -> None:
    """A miniature in the official layout opens with the official range and splits, and no problem."""
    images = opened(f"{name}:{tree(name)}")
    assert len(images) == count
    assert images.card.name == name
    assert images.card.label == "MOS"
    assert images.card.mos_range == mos_range
    assert images.card.split_rule.startswith(rule)
    assert splits(images) == counts
    assert check_data(images) == []
    assert any(f"the official release has {LAYOUTS[name].images}" in note for note in images.card.notes)


def test_koniq_labels(tree: Tree) -> None:
    """Labels are MOS_zscore, or MOS if asked for; splits are those of the sets file."""
    root = tree("koniq10k")
    zscore, mos = opened(f"koniq10k:{root}"), opened(f"koniq10k:{root}?label=MOS")
    by_id = {record.image_id: record for record in zscore.records}
    assert by_id["1037.jpg"].mos == 16.5
    assert by_id["1037.jpg"].split == "train"
    assert by_id["1296.jpg"].split == "val"
    assert {r.image_id: r.mos for r in mos.records}["1037.jpg"] == 1.3
    assert (mos.card.name, mos.card.mos_range) == ("koniq10k/MOS", (1, 5))
    assert zscore.fingerprint != mos.fingerprint


def test_tid_ignores_case(tree: Tree) -> None:
    """Reference, type and level come from the name, whatever its case in the list and on the disk."""
    images = opened(f"tid2013:{tree('tid2013')}")
    record = next(r for r in images.records if r.image_id == "i02_09_5.bmp")
    assert (record.reference, record.distortion, record.level) == ("i02", "09", 5)
    assert record.mos == pytest.approx(0.5 + 0.3 * 7)


def test_kadid_dmos_is_no_dmos(tree: Tree) -> None:
    """The column dmos of KADID-10k is higher for better and stays as it is."""
    images = opened(f"kadid10k:{tree('kadid10k')}")
    by_id = {r.image_id: r for r in images.records}
    assert by_id["I01_10_01.png"].mos == 4.35 > by_id["I01_10_05.png"].mos
    assert by_id["I01_10_05.png"].reference == "I01.png"
    assert images.card.label_rule == "dmos"


def test_csiq_both_layouts_are_one_set(tree: Tree) -> None:
    """DMOS is turned round and kept; the Excel sheet and the flat text layout give the same records."""
    release, flat = opened(f"csiq:{tree('csiq')}"), opened(f"csiq:{tree('csiq_flat')}")
    assert release.records == flat.records
    assert release.fingerprint == flat.fingerprint
    assert release.card.label_rule == "1 - dmos"
    for index, record in enumerate(release.records):
        assert record.mos == 1 - release.raw_label(index)
    part = release.split("test")
    assert part.raw_label(0) == pytest.approx(1 - part.records[0].mos)
    assert next(r.mos for r in release.records if r.image_id == "1600.AWGN.1.png") == pytest.approx(0.98)


def test_live(tree: Tree) -> None:
    """Originals are left out, 779 images stay, matched by place, and labels run upwards."""
    root = tree("live")
    images = opened(f"live:{root}")
    assert len(images) == 779
    assert images.card.notes == ()
    assert images.card.label_rule == "100 - dmos_new"
    assert images.card.split_rule == "references: 17/6/6 references for train/val/test, seed 0"
    dmos = scipy.io.loadmat(root / "dmos_realigned.mat")["dmos_new"][0]
    by_id = {r.image_id: r for r in images.records}
    first_jpeg = next(i for i in range(1, 234) if f"jpeg/img{i}.bmp" in by_id)
    record = by_id[f"jpeg/img{first_jpeg}.bmp"]
    assert record.mos == 100 - dmos[226 + first_jpeg]
    assert record.reference == f"ref{(226 + first_jpeg) % 29:02}.bmp"
    assert record.distortion == "jpeg"
    index = images.records.index(record)
    expected = np.array(Image.open(root / "jpeg" / f"img{first_jpeg}.bmp"))
    assert np.array_equal(images.read(index), expected)


def test_live_challenge_leaves_the_raters_training_out(tree: Tree) -> None:
    """The first seven names are no part of the set, and their labels do not shift the others."""
    images = opened(f"livec:{tree('livec')}")
    assert "t1.bmp" not in {r.image_id for r in images.records}
    mos = np.linspace(5, 90, 19)
    assert {r.image_id: r.mos for r in images.records}["3.bmp"] == mos[7]


def test_spaq_attribute(tree: Tree) -> None:
    """Another column of the sheet can be the label."""
    images = opened(f"spaq:{tree('spaq')}?label=Sharpness")
    assert sorted(r.mos for r in images.records) == [54 + i for i in range(12)]


def test_a_sheet_saved_as_csv_will_do(tree: Tree) -> None:
    """A CSV of the same name beside the Excel file is read in its place."""
    root = tree("bid")
    before = opened(f"bid:{root}").fingerprint
    rows = "\n".join(f"{i},{0.25 * i},0.1" for i in range(1, 13))
    (root / "DatabaseGrades.csv").write_text(f"Image Number,Average Subjective Grade,std\n{rows}\n")
    (root / "DatabaseGrades.xlsx").unlink()
    assert opened(f"bid:{root}").fingerprint == before


def test_cell_arrays_of_matlab(tmp_path: Path) -> None:
    """Names come as text and numbers as Python numbers, however deep MATLAB has wrapped them."""
    cells = np.empty((1, 2), dtype=object)
    cells[0] = ["a.bmp", "b c.bmp"]
    scipy.io.savemat(tmp_path / "x.mat", {"names": cells, "value": np.array([[1.5, 2.5]])})
    assert read_mat(tmp_path / "x.mat", "names") == ["a.bmp", "b c.bmp"]
    assert read_mat(tmp_path / "x.mat", "value") == [1.5, 2.5]


@pytest.mark.parametrize("name", ["koniq10k", "tid2013", "csiq", "spaq", "livec", "live"])
def test_a_directory_has_no_order(
    tree: Tree, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies in two folders, made and listed in opposite orders, are one set with the same splits."""
    root = tree(name)
    first = opened(f"{name}:{root}")
    copy = tmp_path / "copy"
    for file in sorted((p for p in root.rglob("*") if p.is_file()), reverse=True):
        (copy / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, copy / file.relative_to(root))
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": listed(path)[::-1])
    second = opened(f"{name}:{copy}")
    assert second.records == first.records
    assert second.fingerprint == first.fingerprint


def test_rows_of_the_label_file_may_be_in_any_order(tree: Tree) -> None:
    """Sorting the label file otherwise changes neither order nor splits nor fingerprint."""
    root = tree("tid2013")
    before = opened(f"tid2013:{root}")
    lines = (root / "mos_with_names.txt").read_text().splitlines()
    (root / "mos_with_names.txt").write_text("\n".join(lines[::-1]) + "\n")
    after = opened(f"tid2013:{root}")
    assert after.records == before.records
    assert after.fingerprint == before.fingerprint


def test_split_seed(tree: Tree) -> None:
    """Another seed divides the references otherwise, the same one in the same way; none is torn apart."""
    root = tree("kadid10k")
    sets = [opened(f"kadid10k:{root}?split_seed={seed}") for seed in (0, 1, 2, 1)]
    homes = [{r.reference: r.split for r in images.records} for images in sets]
    assert homes[1] == homes[3]
    assert len({tuple(sorted(home.items())) for home in homes}) > 1
    assert sets[1].fingerprint == sets[3].fingerprint
    assert "seed 1" in sets[1].card.split_rule
    for images, home in zip(sets, homes, strict=True):
        assert all(home[r.reference] == r.split for r in images.records)


def test_found_in_the_users_data_folder(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder a set is looked for under its name in the folders of IQA_HARNESS_DATA."""
    root = tree("bid", "second/bid")
    (tmp_path / "first").mkdir()
    monkeypatch.setenv("IQA_HARNESS_DATA", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    assert opened("bid").fingerprint == opened(f"bid:{root}").fingerprint


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_folder(name: str, tmp_path: Path) -> None:
    """A set that is nowhere answers with where to get it and what its folder must hold."""
    for text in (name, f"{name}:{tmp_path / 'none'}", f"{name}:{tmp_path}"):
        with pytest.raises(DataError) as error:
            opened(text)
        assert LAYOUTS[name].url in str(error.value)
        assert all(line in str(error.value) for line in LAYOUTS[name].holds)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("koniq10k", "koniq10k_distributions_sets.csv"),
        ("koniq10k", "1024x768"),
        ("tid2013", "mos_with_names.txt"),
        ("livec", "Data/AllMOS_release.mat"),
        ("live", "refnames_all.mat"),
        ("live", "gblur"),
        ("csiq", "csiq.DMOS.xlsx"),
    ],
)
def test_missing_part(tree: Tree, name: str, gone: str) -> None:
    """A label file or image folder that is missing is named, with what the folder must hold."""
    root = tree(name)
    target = root / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(DataError, match=r"get it from") as error:
        opened(f"{name}:{root}")
    assert Path(gone).name in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{root}?splitseed=1", "did you mean 'split_seed'"),
        ("{root}?split_seed=-1", "whole number"),
        ("{root}?split_seed=1&split_seed=2", "given twice"),
        ("{root}?split_seed", "not key=value"),
        ("{root}?split=official", "this set has references, all"),
        ("{root}?split=all&split_seed=1", "no effect"),
        ("{root}?val_share=0.1", "goes with a list"),
        ("{root}?label=MOS", "no label 'MOS'"),
        ("{root}?resize=512", "write HEIGHTxWIDTH"),
        ("", "folder must follow"),
    ],
)
def test_bad_option(tree: Tree, text: str, expected: str) -> None:
    """An option that is misspelt, doubled, out of range or without effect is refused."""
    with pytest.raises(DataError, match=expected):
        opened("tid2013:" + text.format(root=tree("tid2013")))


def test_part_of_live_cannot_be_matched(tree: Tree) -> None:
    """LIVE matches labels to images by place: a shortened label file is refused, not shifted."""
    root = tree("live")
    short = {"dmos_new": np.zeros((1, 10)), "orgs": np.zeros((1, 10))}
    scipy.io.savemat(root / "dmos_realigned.mat", short)
    names = np.empty((1, 10), dtype=object)
    names[0] = ["a.bmp"] * 10
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": names})
    with pytest.raises(DataError, match="matched by place"):
        opened(f"live:{root}")


@pytest.mark.parametrize("damage", [b"", b"MATLAB 5.0 MAT-file" + b"\0" * 40, b"\x80\x04pickled"])
def test_damaged_matlab_file(tree: Tree, damage: bytes) -> None:
    """What is no MATLAB file is one error with its path; nothing in it is run."""
    root = tree("livec")
    (root / "Data" / "AllMOS_release.mat").write_bytes(damage)
    with pytest.raises(DataError, match=r"AllMOS_release\.mat: cannot be read"):
        opened(f"livec:{root}")


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x05\x06" + bytes(18), "cut"])
def test_damaged_excel_file(tree: Tree, damage: bytes | str) -> None:
    """What is no Excel file, or half of one, is one error with its path."""
    root = tree("bid")
    sheet = root / "DatabaseGrades.xlsx"
    sheet.write_bytes(sheet.read_bytes()[:2000] if isinstance(damage, str) else damage)
    with pytest.raises(DataError, match=r"DatabaseGrades\.xlsx: cannot be read"):
        opened(f"bid:{root}")


def test_absurd_tables_are_not_unpacked(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label file that would unpack to more than a limit is refused by what its header says."""
    livec, bid = tree("livec"), tree("bid")
    monkeypatch.setattr(tables, "_MOST_VALUES", 10)
    with pytest.raises(DataError, match="19 values; that is no label file"):
        opened(f"livec:{livec}")
    monkeypatch.setattr(tables, "_MOST_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to over"):
        opened(f"bid:{bid}")


def test_resize(tree: Tree) -> None:
    """`resize=HEIGHTxWIDTH` resizes every image, says so on the card, and is another set."""
    root = tree("spaq")
    plain, small = opened(f"spaq:{root}"), opened(f"spaq:{root}?resize=6x5")
    assert small.split("train").read(0).shape == (6, 5, 3)
    assert small.split("train").raw_label(0) == plain.split("train").raw_label(0)
    assert "6 high x 5 wide" in small.card.notes[-1]
    assert small.fingerprint == small.split("train").fingerprint != plain.fingerprint
    assert small.records == plain.records
