"""Decoded images on disk: found again, in bounded room, shared by processes, never wrong."""

import hashlib
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iqa_harness.data import ImageSet, open_data
from iqa_harness.data.files import decoding, file_set
from iqa_harness.data.files.decoding import DecodedImage
from iqa_harness.data.files.file_set import FileImageSet
from iqa_harness.data.files.pixel_cache import DEFAULT_LIMIT, HEADER, PixelCache, open_pixel_cache
from iqa_harness.data.files.resized import ResizedImageSet
from iqa_harness.errors import DataError

SIDE = 16
BYTES = HEADER + SIDE * SIDE * 3


def pixels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def key(seed: int) -> str:
    return hashlib.sha256(str(seed).encode()).hexdigest()


def many(folder: Path, count: int) -> Path:
    """Write a CSV set of small JPEGs."""
    folder.mkdir()
    for i in range(count):
        Image.fromarray(pixels(i)).save(folder / f"{i}.jpg")
    rows = "".join(f"{i}.jpg,{i}\n" for i in range(count))
    (folder / "set.csv").write_text("path,mos\n" + rows)
    return folder / "set.csv"


def test_round_trip(tmp_path: Path) -> None:
    """What was put is got back, read-only, by another object as well; an unknown key is None."""
    cache = PixelCache(tmp_path / "c", 10 * BYTES)
    assert cache.get(key(0)) is None
    cache.put(key(0), pixels(0))
    for again in (cache, PixelCache(tmp_path / "c", 10 * BYTES), pickle.loads(pickle.dumps(cache))):  # noqa: S301
        found = again.get(key(0))
        assert found is not None
        assert np.array_equal(found, pixels(0))
        assert not found.flags.writeable
    assert cache.total() == BYTES


def test_room_is_bounded_at_every_moment(tmp_path: Path) -> None:
    """A hundred images through room for twenty: never more than twenty on disk, and those stay useful."""
    cache = PixelCache(tmp_path / "c", 20 * BYTES)
    for seed in range(100):
        cache.put(key(seed), pixels(seed))
        assert cache.total() <= 20 * BYTES
    assert sum(cache.get(key(seed)) is not None for seed in range(100)) == 20


def test_the_longest_unused_gives_way(tmp_path: Path) -> None:
    """A later process makes room by what it has not used, the longest unused first."""
    first = PixelCache(tmp_path / "c", 10 * BYTES)
    for seed in range(10):
        first.put(key(seed), pixels(seed))
    second = PixelCache(tmp_path / "c", 10 * BYTES)
    assert second.get(key(0)) is not None  # the oldest, but in use now
    second.put(key(10), pixels(10))
    held = [seed for seed in range(11) if second.get(key(seed)) is not None]
    assert held == [0, *range(3, 11)]  # room is made to nine tenths: 1 and 2 went
    assert second.total() == 9 * BYTES


def test_a_set_larger_than_the_cache_keeps_the_part_that_fits(tmp_path: Path) -> None:
    """Over 60 images with room for 30, half of the readings are hits from the second epoch on."""
    path = many(tmp_path / "set", 60)
    images = open_data(path, progress=False)
    assert isinstance(images, FileImageSet)
    images.cache = PixelCache(tmp_path / "c", 30 * BYTES)
    for _ in range(4):
        for index in range(60):
            images.read(index)
    assert images.cache.hits == 3 * 30
    assert images.cache.total() == 30 * BYTES


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note the files that are decoded from now on."""
    decoded: list[Path] = []

    def read_image(path: Path) -> DecodedImage:
        decoded.append(path)
        return decoding.read_image(path)

    monkeypatch.setattr(file_set, "read_image", read_image)
    return decoded


def test_a_second_epoch_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and the first epoch decode every image, the second epoch and opening none."""
    path = many(tmp_path / "set", 20)
    decoded = counted(monkeypatch)
    images = open_data(path, progress=False)
    assert len(decoded) == 20
    first = [images.read(index) for index in range(20)]
    assert len(decoded) == 40
    second = [images.read(index) for index in range(20)]
    again = open_data(path, progress=False)
    third = [again.subset([index]).view(0) for index in range(20)]
    assert len(decoded) == 40
    assert again.fingerprint == images.fingerprint
    for a, b, c in zip(first, second, third, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def test_a_changed_file_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rewritten image of twenty is decoded at the next opening, the others are not."""
    path = many(tmp_path / "set", 20)
    before = open_data(path, progress=False)
    Image.fromarray(pixels(99)).save(tmp_path / "set" / "7.jpg")
    decoded = counted(monkeypatch)
    after = open_data(path, progress=False)
    assert [file.name for file in decoded] == ["7.jpg"]
    assert after.records[7].sha256 != before.records[7].sha256
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(after.read(7), decoding.decode(tmp_path / "set" / "7.jpg"))


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "magic"])
def test_damage_is_never_served(tmp_path: Path, damage: str) -> None:
    """A file of the cache that was emptied, cut or changed is removed, and the image decoded again."""
    path = many(tmp_path / "set", 1)
    (tmp_path / "set" / "set.csv").write_text("path,mos\n0.jpg,1\n")
    images = open_data(path, progress=False, mos_range=(0, 5))
    expected = images.read(0)
    (held,) = open_pixel_cache().folder.glob("*/*.pixels")
    data = bytearray(held.read_bytes())
    data[-1 if damage == "bit" else 0] ^= 1
    held.write_bytes(b"" if damage == "empty" else data[:-5] if damage == "cut" else data)
    again = open_data(path, progress=False, mos_range=(0, 5))
    assert np.array_equal(again.read(0), expected)
    assert held.stat().st_size == BYTES
    assert np.array_equal(again.read(0), expected)


def test_a_file_under_another_name_is_never_served(tmp_path: Path) -> None:
    """A file of the cache copied over another image's counts as damaged: each image keeps its pixels."""
    images = open_data(many(tmp_path / "set", 4), progress=False)
    small = ResizedImageSet(images, "6x9", open_pixel_cache())
    plain, resized = [images.read(i) for i in range(4)], [small.read(i) for i in range(4)]
    held = sorted(open_pixel_cache().folder.glob("*/*.pixels"))
    assert len(held) == 8
    for size in {path.stat().st_size for path in held}:
        same = [path for path in held if path.stat().st_size == size]
        contents = [path.read_bytes() for path in same]
        for path, content in zip(same, [*contents[1:], contents[0]], strict=True):
            path.write_bytes(content)
    again = open_data(tmp_path / "set" / "set.csv", progress=False)
    small = ResizedImageSet(again, "6x9", open_pixel_cache())
    for i in range(4):
        assert np.array_equal(again.read(i), plain[i])
        assert np.array_equal(small.read(i), resized[i])


def test_reading_gives_a_fresh_array_and_a_view_none(tmp_path: Path) -> None:
    """What `read` returns may be written to without effect; a view may not."""
    images = open_data(many(tmp_path / "set", 2), progress=False)
    for _ in range(2):
        read = images.read(0)
        read[:] = 0
        assert images.read(0).any()
        with pytest.raises(ValueError, match="read-only"):
            images.view(0)[:] = 0


def test_resized_images_are_kept_apart(tmp_path: Path) -> None:
    """A resize has entries of its own, as Pillow resizes; a subset follows; the original stays what it is."""
    source = open_data(many(tmp_path / "set", 4), progress=False)
    cache = PixelCache(tmp_path / "c", 10**6)
    small: ImageSet = ResizedImageSet(source, "6x9", cache)
    expected = np.array(Image.fromarray(source.read(2)).resize((9, 6), Image.Resampling.BILINEAR))
    for _ in range(2):
        assert np.array_equal(small.read(2), expected)
        assert np.array_equal(small.subset([2]).view(0), expected)
    assert cache.hits == 3
    assert small.fingerprint != source.fingerprint
    assert small.fingerprint != ResizedImageSet(source, "9x6", cache).fingerprint
    assert source.read(2).shape == (SIDE, SIDE, 3)


FILL = """
import hashlib, pathlib, sys
sys.path[:0] = {path!r}
import numpy as np
from iqa_harness.data.files.pixel_cache import PixelCache
cache, room, wrong = PixelCache(pathlib.Path({folder!r}), {room}), {room}, 0
for seed in range({start}, {start} + 60):
    pixels = np.random.default_rng(seed).integers(0, 256, ({side}, {side}, 3), dtype=np.uint8)
    key = hashlib.sha256(str(seed).encode()).hexdigest()
    cache.put(key, pixels)
    found = cache.get(key)
    wrong += found is not None and not np.array_equal(found, pixels)
    wrong += int((cache.folder / "bytes").read_text() or 0) > room
sys.exit(wrong)
"""


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    """Two processes that fill one cache with overlapping images stay within its room and read right."""
    folder, room = tmp_path / "c", 50 * BYTES
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                FILL.format(path=sys.path, folder=str(folder), room=room, start=start, side=SIDE),
            ]
        )
        for start in (0, 30)
    ]
    most = 0
    while any(worker.poll() is None for worker in workers):
        most = max(most, PixelCache(folder, room).total())
    assert [worker.returncode for worker in workers] == [0, 0]
    assert 0 < most <= room + 2 * BYTES  # counted while files come and go
    assert 0 < PixelCache(folder, room).total() <= room
    assert int((folder / "bytes").read_text()) == PixelCache(folder, room).total()


def test_an_unwritable_cache_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If nothing can be kept, it is said once and the images are read all the same."""
    path = many(tmp_path / "set", 3)
    images = open_data(path, progress=False)
    assert isinstance(images, FileImageSet)
    (tmp_path / "file").write_text("no folder")
    images.cache = PixelCache(tmp_path / "file" / "c", 10**6)
    for index in (0, 1, 0):
        assert images.read(index).shape == (SIDE, SIDE, 3)
    assert len([r for r in caplog.records if "cannot be kept" in r.message]) == 1


@pytest.mark.parametrize(
    ("text", "limit"), [("", DEFAULT_LIMIT), ("0", 0), ("20G", 20 * 2**30), ("1.5 MiB", 3 * 2**19), ("7", 7)]
)
def test_limit(monkeypatch: pytest.MonkeyPatch, text: str, limit: int) -> None:
    """The room is what IQA_HARNESS_PIXELS says."""
    monkeypatch.setenv("IQA_HARNESS_PIXELS", text)
    assert open_pixel_cache().limit == limit


def test_limit_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that is none is refused."""
    monkeypatch.setenv("IQA_HARNESS_PIXELS", "much")
    with pytest.raises(DataError, match="no size"):
        open_pixel_cache()


def test_without_room_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room of 0 turns the cache off: no file, the same pixels."""
    monkeypatch.setenv("IQA_HARNESS_PIXELS", "0")
    images = open_data(many(tmp_path / "set", 2), progress=False)
    assert np.array_equal(images.read(1), images.read(1))
    assert not open_pixel_cache().folder.exists()


def test_command(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """`data prepare --pixels` fills the cache, `data cache` says how much it holds, `--clear` empties it."""
    path = many(tmp_path / "set", 5)
    cache = ("--cache", str(tmp_path / "held"))
    assert cli("data", "prepare", str(path), "--pixels", *cache)[0] == 0
    assert PixelCache(tmp_path / "held" / "pixels", 1).total() == 5 * BYTES
    assert "of 4096.0 MB" in cli("data", "cache", *cache)[1]
    assert "freed" in cli("data", "cache", "--clear", *cache)[1]
    assert PixelCache(tmp_path / "held" / "pixels", 1).total() == 0


def test_memory_of_an_epoch_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """Reading four times as many images, first decoded, then from the cache, peaks at the same few images."""
    side, peaks = 64, []
    for count in (40, 160):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            Image.fromarray(np.full((side, side, 3), i % 256, np.uint8)).save(folder / f"{i}.png")
        (folder / "set.csv").write_text("path,mos\n" + "".join(f"{i}.png,{i}\n" for i in range(count)))
        images = open_data(folder / "set.csv", progress=False)
        tracemalloc.start()
        for _ in range(2):
            for index in range(count):
                images.view(index)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    bytes_of_an_image = side * side * 3
    assert max(peaks) < 30 * bytes_of_an_image
    assert peaks[1] - peaks[0] < 10 * bytes_of_an_image
