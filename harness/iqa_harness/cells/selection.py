"""What a manifest says was run, made again: its suite, its images, its choice of images."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from iqa_harness.data import ArrayImageSet, DataCard, ImageRecord, ImageSet, open_data
from iqa_harness.errors import DataError
from iqa_results import RunManifest, Selection
from iqa_suites import Suite, parse_suite

MANY = 1_000_000
"""Images that a manifest may name without as many rows: parts may be lost, and a set is not larger."""

_RANGE = re.compile(r"[?&]mos_range=([-+.\deE]+),([-+.\deE]+)(?:&|$)")
_MOVED = re.compile(r'# data\.name = ("(?:[^"\\]|\\.)*"), all images, by the command line')
"""First line of a suite that the first edition moved to other images."""


def recorded_suite(manifest: RunManifest) -> Suite:
    """Return the suite a run was of.

    Raises:
        BadSuite: its text is no suite.
    """
    suite = parse_suite(manifest.suite_text, f"suite of run {manifest.run!r}")
    moved = _MOVED.match(manifest.suite_text)
    if moved is None or suite.sha256 == manifest.suite_sha256:
        return suite
    # First edition: only that line says so, and not with which label range. The hash tells.
    for mos_range in (None, _mos_range(manifest)):
        new = {"name": json.loads(moved[1]), "images": None, "mos_range": mos_range}
        other = suite.model_copy(update={"data": suite.data.model_copy(update=new)})
        if other.sha256 == manifest.suite_sha256:
            return other
    return suite


def _mos_range(manifest: RunManifest) -> tuple[float, float] | None:
    ends = manifest.data.card.get("mos_range")
    return (float(str(ends[0])), float(str(ends[1]))) if isinstance(ends, list) and len(ends) == 2 else None


def recorded_data(manifest: RunManifest, cache: Path | str | None, *, name: str | None = None) -> ImageSet:
    """Open the images a run was of, as its suite names them.

    Args:
        manifest: the run's.
        cache: of the embedded data.
        name: where they are now, if they have moved.

    Raises:
        BadSuite: its text is no suite.
        DataError: there are no such images here.
    """
    settings = recorded_suite(manifest).data
    if name is None or "mos_range=" in name:
        stated = settings.mos_range if name is None else None
        return open_data(name or settings.name, cache_dir=cache, mos_range=stated)
    return open_data(name, cache_dir=cache, mos_range=settings.mos_range or _range_in(settings.name))


def _range_in(name: str) -> tuple[float, float] | None:
    """Return the ends of the label scale in a data set's name, `FILE.csv?mos_range=LOW,HIGH`."""
    found = _RANGE.search(name)
    return (float(found[1]), float(found[2])) if found else None


def recorded_selection(
    manifest: RunManifest, data: ImageSet, stored: Collection[str] = frozenset()
) -> Selection:
    """Return the choice of images a run was made with.

    Args:
        manifest: the run's.
        data: the images it was chosen from.
        stored: ids in the run's rows, for a manifest of the first edition: it joined ids by ', ', which
            an id may hold itself.
    """
    chosen = manifest.data.chosen or Selection()
    known = {record.image_id for record in data.split(manifest.data.split).records}
    if known.issuperset(chosen.images):
        return chosen
    return Selection(images=tuple(sorted(known.intersection(stored))))


def remembered_images(manifest: RunManifest, split: str, parts: Collection[pa.Table]) -> ArrayImageSet:
    """Return the images of a split as a run's first rows of each describe them: records without pixels.

    There are as many as the manifest's cells hold; one that no row describes has an empty id.

    Raises:
        DataError: a cell says to hold more images than there are rows, by far.
    """
    count = max((c.first + c.count for c in manifest.cells if c.split == split), default=0)
    rows = sum(len(part) for part in parts)
    if count > max(MANY, rows):
        raise DataError(
            f"run {manifest.run!r}: cells of split {split!r} go up to image {count:,}, and the store has "
            f"{rows:,} rows; its manifest is damaged"
        )
    records = [ImageRecord("", 0.0, split, "", None, None, "")] * count
    names = ("position", "image_id", "mos", "reference", "distortion", "level")
    for part in parts:
        mine = part.filter(pc.equal(part["split"], split))
        for position, *rest in zip(*(mine[name].to_pylist() for name in names), strict=True):
            if 0 <= position < count and not records[position].image_id:
                image_id, mos, reference, distortion, level = rest
                records[position] = ImageRecord(image_id, mos, split, reference, distortion, level, "")
    low, high = _mos_range(manifest) or (0.0, 1.0)
    card = DataCard(manifest.data.name, manifest.data.label, (low, high), "", "")
    return ArrayImageSet(records, (), card, manifest.data.sha256)
