"""Images and labels: what there is, what a set must hold, what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iqa_harness.data.catalogue import CheckReport, Data, check_source, find_layout, list_layouts, open_data
from iqa_harness.data.catalogue import list_data as _cards
from iqa_harness.data.files.pixel_cache import LIMIT, open_pixel_cache
from iqa_harness.data.image_set import ImageSet
from iqa_harness.data.public.layout import Layout
from iqa_harness.data.public.source import find_root
from iqa_harness.machine.places import require_new_folder
from iqa_harness.machine.terminal import progress_bar


class KnownData(NamedTuple):
    """A data set that can be named."""

    name: str
    """What to write after `--data`; FOLDER, LIST and FILE stand for the user's own."""
    labels: str
    """Column or kind of the labels."""
    summary: str
    """What it is."""


class DataInfo(NamedTuple):
    """What is known of a set."""

    layout: Layout | None
    """Of a public set named without its folder: where to get it and what it must hold."""
    images: ImageSet | None
    """The set, None if its folder was not named."""


class CacheUse(NamedTuple):
    """Room that decoded images take, in bytes."""

    folder: Path
    used: int
    limit: int
    variable: str
    """Environment variable that sets the limit."""
    freed: int
    """By clearing, 0 without."""


def list_data() -> list[KnownData]:
    """Return the data sets there are: embedded ones, public ones, and how to name your own."""
    known = [KnownData(card.name, card.label, f"embedded: {card.summary}") for card in _cards()]
    known += [
        KnownData(f"{one.name}:FOLDER", one.labels[0].column, f"{one.title}, {one.images:,} images")
        for one in list_layouts().values()
    ]
    return [
        *known,
        KnownData("json:FOLDER?test=LIST", "score", "images below FOLDER in JSON lists of {image, score}"),
        KnownData("FILE.csv", "mos", "your own images: columns path, mos, split, reference, ..."),
    ]


def describe_data(data: Data, *, cache: Path | str | None = None, progress: bool = True) -> DataInfo:
    """Return what is known of a set; an embedded one is made if it is not there.

    Raises:
        DataError: no such set, or files with problems.
    """
    layout = find_layout(str(data)) if isinstance(data, str | Path) else None
    if layout is not None and find_root(layout.name) is None:
        return DataInfo(layout, None)
    return DataInfo(layout, open_data(data, cache_dir=cache, progress=progress))


def prepare_data(
    data: Data, *, cache: Path | str | None = None, pixels: bool = False, progress: bool = True
) -> ImageSet:
    """Make an embedded set, or read another one through once, so that later openings are quick.

    Args:
        data: the set.
        cache: root of the cache of data.
        pixels: decode every image into the cache of decoded images, too.
        progress: report on stderr.

    Raises:
        DataError: no such set, or files with problems.
    """
    images = open_data(data, cache_dir=cache, progress=progress)
    if pixels:
        with progress_bar(f"Decoding {images.card.name}", len(images), show=progress) as advance:
            for index in range(len(images)):
                images.view(index)
                advance()
    return images


def export_data(
    data: Data,
    out: Path | str,
    *,
    limit: int | None = None,
    cache: Path | str | None = None,
    progress: bool = True,
) -> str:
    """Write a set as PNG files with a CSV beside them; return what to write after ``--data`` to use those.

    What decides an embedded set's bytes are the packages that build it; a written one is the same everywhere.
    Its ids, and with them the random draws of attacks, are others than the set's own.

    Args:
        data: the set.
        out: folder for it; must not exist.
        limit: of each split only the first so many images, a fair draw in a set of ours.
        cache: root of the cache of data.
        progress: report on stderr.

    Raises:
        DataError: no such set, or files with problems.
        RunError: the folder exists or cannot be written.
    """
    from iqa_harness.data.export import export_set

    out = Path(out)
    require_new_folder(out, "--out")
    images = open_data(data, cache_dir=cache, progress=progress)
    seen: Counter[str] = Counter()
    chosen = []
    for index, record in enumerate(images.records):
        seen[record.split] += 1
        if limit is None or seen[record.split] <= limit:
            chosen.append(index)
    return export_set(images.subset(chosen), out)


def check_data(
    data: str | Path, *, cache: Path | str | None = None, allow: Sequence[str] = (), progress: bool = True
) -> CheckReport:
    """Read every row and every image afresh and return all that is wrong.

    Args:
        data: the set.
        cache: root of the cache of data.
        allow: kinds of findings that are all right, see `iqa_harness.data.catalogue.ALLOWABLE`.
        progress: report on stderr.

    Raises:
        DataError: the set cannot be opened at all, or there is no such kind of finding.
    """
    return check_source(data, allowed=allow, cache_dir=cache, progress=progress)


def pixel_cache(*, cache: Path | str | None = None, clear: bool = False) -> CacheUse:
    """Return how much room decoded images take, and of how much; `clear` frees it first."""
    held = open_pixel_cache(cache)
    freed = held.clear() if clear else 0
    return CacheUse(held.folder, held.total(), held.limit, LIMIT, freed)
