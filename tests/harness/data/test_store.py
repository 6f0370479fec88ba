import json
import os
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqa_harness.data.catalogue import check_data
from iqa_harness.data.embedded import built_set as store
from iqa_harness.data.embedded import recipes as demo
from iqa_harness.data.embedded.built_set import StoredImageSet
from iqa_harness.errors import DataError
from iqa_harness.machine.cache_folder import cache_root


def reopen(cache: Path) -> StoredImageSet:
    """Open twenty images of 32 x 32, built if they are not there."""
    recipe = replace(demo.embedded_recipe("smoke"), types=("jpeg",), size=32)
    return demo.open_embedded(recipe, cache_dir=cache, progress=False)


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small-cache")


@pytest.fixture(scope="session")
def small(small_cache: Path) -> StoredImageSet:
    return reopen(small_cache)


@pytest.fixture
def copy(small: StoredImageSet, small_cache: Path, tmp_path: Path) -> Path:
    """A cache of one's own to damage."""
    shutil.copytree(small_cache, tmp_path / "cache")
    return tmp_path / "cache"


def folder_of(cache: Path) -> Path:
    (folder,) = (cache / "data").iterdir()
    return folder


def no_build(*_: object) -> None:
    raise AssertionError("the set was built again")


def test_second_opening_builds_nothing(
    small: StoredImageSet, small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete folder is opened as it is."""
    monkeypatch.setattr(demo, "_build", no_build)
    again = reopen(small_cache)
    assert again.fingerprint == small.fingerprint
    assert again.records == small.records
    assert again.card == small.card


@pytest.mark.parametrize("name", ["pixels.npy", "records.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_incomplete_folder_is_built_again(name: str, damage: str, small: StoredImageSet, copy: Path) -> None:
    """A missing, truncated or empty file leads to a new build with the same fingerprint."""
    path = folder_of(copy) / name
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size - 7)
    again = reopen(copy)
    assert again.fingerprint == small.fingerprint
    assert check_data(again) == []
    assert folder_of(copy) == again.folder


def test_changed_pixel_is_reported(copy: Path) -> None:
    """One changed byte makes reading that image a DataError with file and id; the others still read."""
    path = folder_of(copy) / "pixels.npy"
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    damaged = reopen(copy)
    damaged.read(0)
    with pytest.raises(DataError, match=r"pixels\.npy") as error:
        damaged.read(19)
    assert damaged.records[19].image_id in str(error.value)
    assert len(check_data(damaged)) == 1


@pytest.mark.parametrize("old", ['"mos": 0.', '"split": "t', "["])
def test_changed_record_is_reported(old: str, copy: Path) -> None:
    """A label, a split or the syntax changed at equal file size is a DataError that says what to do."""
    path = folder_of(copy) / "records.json"
    text = path.read_text()
    path.write_text(text.replace(old, old[:-1] + "9", 1))
    with pytest.raises(DataError, match="delete the folder"):
        reopen(copy)


def test_changed_header_is_reported(copy: Path) -> None:
    """A pixel file that is no array any more is a DataError on reading."""
    path = folder_of(copy) / "pixels.npy"
    with path.open("r+b") as file:
        file.write(b"garbage")
    with pytest.raises(DataError, match=r"pixels\.npy"):
        reopen(copy).read(0)


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """An error while building is passed on, and neither the folder nor a temporary one stays."""

    def fail(into: Path) -> None:
        (into / "pixels.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.open_or_build(tmp_path / "data" / "x", demo.embedded_recipe("smoke").card(), fail)
    assert list((tmp_path / "data").iterdir()) == []


def test_of_two_builders_the_first_publishes(smoke: StoredImageSet, tmp_path: Path) -> None:
    """A build that ends after another one has published takes what is there."""
    target = tmp_path / "data" / "x"

    def slow(into: Path) -> None:
        shutil.copytree(smoke.folder, target)
        (into / "pixels.npy").write_bytes(b"the slower one")

    opened = store.open_or_build(target, smoke.card, slow)
    assert opened.fingerprint == smoke.fingerprint
    assert np.array_equal(opened.read(3), smoke.read(3))
    assert list(target.parent.iterdir()) == [target]


def test_old_leftovers_are_swept(tmp_path: Path, smoke: StoredImageSet) -> None:
    """What a killed build left two days ago goes, what may still be written stays."""
    for name, age in (("old", 48 * 3600), ("new", 60)):
        left = tmp_path / f".building-{name}"
        left.mkdir()
        os.utime(left, (time.time() - age,) * 2)

    def fill(into: Path) -> None:
        shutil.copytree(smoke.folder, into, dirs_exist_ok=True)

    store.open_or_build(tmp_path / "x", smoke.card, fill)
    assert {path.name for path in tmp_path.iterdir()} == {".building-new", "x"}


def test_unwritable_cache(tmp_path: Path) -> None:
    """A cache folder that cannot be made is a DataError with its path."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="cannot build"):
        reopen(tmp_path / "file")


def test_cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins over IQA_HARNESS_CACHE, that over XDG_CACHE_HOME, that over ~/.cache."""
    monkeypatch.setenv("IQA_HARNESS_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root(tmp_path) == tmp_path
    assert cache_root() == Path("/own")
    monkeypatch.delenv("IQA_HARNESS_CACHE")
    assert cache_root() == Path("/xdg/iqa-harness")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path("/home/someone/.cache/iqa-harness")


def test_subset_keeps_order_and_fingerprint(smoke: StoredImageSet) -> None:
    """A subset of a split has the asked-for images in the asked-for order and the whole set's fingerprint."""
    test = smoke.split("test")
    part = test.subset([5, 2])
    assert [r.image_id for r in part.records] == [test.records[5].image_id, test.records[2].image_id]
    assert np.array_equal(part.read(1), test.read(2))
    assert part.fingerprint == test.fingerprint == smoke.fingerprint
    assert len(smoke.subset([])) == 0


def test_reading_gives_a_fresh_array(smoke: StoredImageSet) -> None:
    """Writing into what was read changes neither the file nor the next reading."""
    pixels = smoke.read(0)
    pixels[:] = 0
    assert smoke.read(0).any()


def test_pickle_carries_no_pixels(smoke: StoredImageSet) -> None:
    """A set sent to another process is small and reads the same there."""
    smoke.read(0)
    data = pickle.dumps(smoke)
    assert len(data) < 100_000
    assert np.array_equal(pickle.loads(data).read(7), smoke.read(7))  # noqa: S301 - our own bytes


def test_writer_refuses_other_shapes(tmp_path: Path) -> None:
    """A row of another shape or dtype raises ValueError."""
    with store.pixel_writer(tmp_path, (1, 4, 4, 3)) as write, pytest.raises(ValueError, match="row 0"):
        write(0, np.zeros((4, 5, 3), np.uint8))


def test_manifest_explains_itself(smoke: StoredImageSet) -> None:
    """The manifest names recipe, splits, versions and the hash of every photograph."""
    manifest = json.loads((smoke.folder / "manifest.json").read_text())
    assert manifest["fingerprint"] == smoke.fingerprint
    assert set(manifest["recipe"]["photographs"]) == set(manifest["recipe"]["splits"])
    assert {"numpy", "pillow", "scipy", "jpg", "jpg_2000"} <= set(manifest["recipe"]["versions"])
