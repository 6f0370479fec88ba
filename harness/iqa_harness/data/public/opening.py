"""From what a user named to a set of image files: layout, splits, files, pixel hashes, card."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iqa_harness.data.files.file_set import ResizedImageSet, hash_images, inspect_images, make_set
from iqa_harness.data.files.pixel_cache import open_pixel_cache
from iqa_harness.data.hashing import file_sha256
from iqa_harness.data.image_set import DataCard, ImageSet
from iqa_harness.data.listing import Finding, Folder, Listing, refuse
from iqa_harness.data.public.authentic import AGIQA, BID, KONIQ, LIVE_CHALLENGE, SPAQ
from iqa_harness.data.public.csv_set import label_range, read_csv_listing
from iqa_harness.data.public.json_set import read_json_listing
from iqa_harness.data.public.layout import Layout, Reading
from iqa_harness.data.public.source import ROOTS, DataSource, find_root
from iqa_harness.data.public.split_rules import LISTS, OPTIONS, apply_rule
from iqa_harness.data.public.synthetic import CSIQ, KADID10K, LIVE, TID2013
from iqa_harness.data.splits import seeded_order
from iqa_harness.errors import DataError
from iqa_harness.machine.terminal import progress_bar

LAYOUTS: Final = {
    layout.name: layout for layout in (KONIQ, TID2013, KADID10K, SPAQ, AGIQA, LIVE_CHALLENGE, CSIQ, LIVE, BID)
}
JSON: Final = "json"
_SUFFIXES: Final = frozenset(
    {".bmp", ".jpg", ".jpeg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class Opened:
    """A set with its files located and its splits given; no image has been decoded yet."""

    listing: Listing
    card: DataCard
    labels: Path
    """The label file: what rows in findings are rows of."""
    hint: str
    """What to do if files are missing; empty for a set of the user's own."""
    unlabelled: tuple[Finding, ...] = ()
    """Image files beside the labelled ones that no row names."""
    size: tuple[int, int] | None = None
    """Height and width all images are resized to, None to leave them."""


def open_files(source: DataSource, *, cache_dir: Path | None, progress: bool) -> ImageSet:
    """Return the set of image files a user named.

    Every file not seen before is decoded once, so that whatever is wrong is known before a run starts.

    Raises:
        DataError: with all problems at once, each with its row.
    """
    cache = open_pixel_cache(cache_dir)
    opened = read_source(source)
    listing = opened.listing
    with progress_bar(f"Reading {opened.card.name}", len(listing.entries), show=progress) as advance:
        digests = hash_images(listing, cache_dir, advance)
    gone = any(finding.kind == "missing" for finding in listing.findings)
    refuse(opened.labels, listing.findings, opened.hint if gone else "")
    images = make_set(listing, opened.card, digests, cache)
    return ResizedImageSet(images, *opened.size, cache) if opened.size else images


def check_files(source: DataSource, *, progress: bool) -> tuple[int, list[Finding]]:
    """Decode every file of a set afresh; return the number of rows and all findings, row by row."""
    opened = read_source(source)
    listing = opened.listing
    with progress_bar(f"Checking {opened.card.name}", len(listing.entries), show=progress) as advance:
        faults = inspect_images(listing, advance)
    return len(listing.entries), [*listing.findings, *faults, *opened.unlabelled]


def read_source(source: DataSource) -> Opened:
    """Read labels and splits and locate the files; what is wrong becomes findings.

    Raises:
        DataError: no such folder, a label file that is missing or unreadable, or a bad option.
    """
    size = _size(source)
    if source.name in LAYOUTS:
        opened = _open_layout(LAYOUTS[source.name], source)
    elif source.name == JSON:
        opened = _open_json(source)
    else:
        opened = _open_csv(Path(source.name), source)
    return replace(opened, size=size)


def _open_layout(layout: Layout, source: DataSource) -> Opened:
    _known_options(source, ("label", "resize", *OPTIONS))
    root = source.root or find_root(layout.name)
    if root is None:
        raise DataError(
            f"data set {layout.name!r}: say where it is, as in {layout.name}:/path/to/folder, or set {ROOTS} "
            f"to a folder that holds {layout.name}/\n  {layout.fetch}"
        )
    if not root.is_dir():
        raise DataError(f"{root}: no such folder\n  {layout.fetch}")
    label = layout.label(source.options.get("label"))
    reading = Reading(layout, label, root, source.options, Listing(Folder(root)))
    if any(name in source.options for name in LISTS):
        reading.options = {**source.options, "split": "lists"}
    layout.read(reading)
    listing = reading.listing
    if not listing.entries:
        listing.find("", "columns", "no rows")
    unlabelled = _unlabelled(listing, layout.ordinary)
    count = len(listing.entries)
    rule = ""
    if listing.entries:
        rule = apply_rule(listing, layout.splits, layout.shares, source.options, root)
    rank = {name: place for place, name in enumerate(seeded_order({e.image_id for e in listing.entries}, 0))}
    listing.keep(sorted(range(len(listing.entries)), key=lambda i: rank[listing.entries[i].image_id]))
    listing.leaks()
    hashes = {path: file_sha256(path)[:16] for path in dict.fromkeys(reading.label_files)}
    files = ", ".join(f"{path.name} (sha256 {digest})" for path, digest in hashes.items())
    card = DataCard(
        name=layout.name if label == layout.labels[0] else f"{layout.name}/{label.column}",
        label="MOS",
        mos_range=label.mos_range,
        summary=f"{layout.title}, {len(listing.entries)} images",
        source=f"{layout.url}; terms: {layout.terms}; read from {files}",
        notes=()
        if count == layout.images
        else (f"{count} labelled images; the official release has {layout.images}.",),
        label_rule=label.rule,
        split_rule="official: koniq10k_distributions_sets.csv" if rule == "official" else rule,
    )
    return Opened(listing, card, reading.label_files[0], layout.fetch, unlabelled)


def _open_json(source: DataSource) -> Opened:
    _known_options(source, ("mos_range", "resize", *LISTS))
    if source.root is None:
        raise DataError("data set 'json': write json:FOLDER?test=LIST.json with the folder of the images")
    stated = _range(source)
    listing = read_json_listing(source.root, source.options)
    low, high = label_range(listing, stated)
    rule = apply_rule(
        listing, (), (8, 1, 1), {n: v for n, v in source.options.items() if n in LISTS}, source.root
    )
    card = DataCard(
        name=source.root.resolve().name,
        label="MOS",
        mos_range=(low, high),
        summary=f"{len(listing.entries)} images listed with their scores",
        source="lists of images and scores given by the user; licences are the user's to state",
        notes=() if stated else (_RANGE_NOTE,),
        label_rule="score",
        split_rule=rule,
    )
    return Opened(listing, card, source.root, "")


def _open_csv(path: Path, source: DataSource) -> Opened:
    _known_options(source, ("mos_range", "resize", *OPTIONS))
    stated = _range(source)
    listing = read_csv_listing(path)
    low, high = label_range(listing, stated)
    rule = "official"
    if listing.entries and source.options.keys() & set(OPTIONS):
        allowed = ("official", "references", "random", "all")
        rule = apply_rule(listing, allowed, (8, 1, 1), source.options, path.parent)
    if not listing.findings:
        listing.leaks()
    card = DataCard(
        name=path.stem,
        label="MOS",
        mos_range=(low, high),
        summary=f"{len(listing.entries)} images listed in {path.name}",
        source="the user's own images and labels; licences are the user's to state",
        notes=() if stated else (_RANGE_NOTE,),
        label_rule="mos",
        split_rule=f"as {path.name} says" if rule == "official" else rule,
    )
    return Opened(listing, card, path, "")


_RANGE_NOTE: Final = "MOS range taken from the lowest and highest label."


def _known_options(source: DataSource, known: Sequence[str]) -> None:
    for option in source.options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            near = f", did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"data set {source.name!r} has no option {option!r}{near}; it has {', '.join(known)}"
            )


def _range(source: DataSource) -> tuple[float, float] | None:
    """Return the stated ends of the label scale."""
    text = source.options.get("mos_range")
    if text is None:
        return None
    try:
        low, high = (float(end) for end in text.split(","))
    except ValueError:
        raise DataError(f"mos_range={text}: write the two ends as LOW,HIGH") from None
    return low, high


def _size(source: DataSource) -> tuple[int, int] | None:
    """Return the height and width that images are resized to."""
    text = source.options.get("resize")
    if text is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if sides is None:
        raise DataError(f"resize={text}: write HEIGHTxWIDTH, such as 384x512")
    return int(sides[1]), int(sides[2])


def _unlabelled(listing: Listing, ordinary: Iterable[str]) -> tuple[Finding, ...]:
    """Return a finding for each image file beside the labelled ones that has no label."""
    labelled = {file for file in listing.files if file is not None}
    patterns = tuple(ordinary)
    found = []
    for folder in sorted({file.parent for file in labelled}):
        for file in sorted(folder.iterdir()):
            name = file.relative_to(listing.folder.root).as_posix()
            known = file in labelled or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
            if file.suffix.lower() in _SUFFIXES and not known:
                found.append(Finding(name, "unlabelled", "an image file that no label names"))
    return tuple(found)


def with_range(source: DataSource, mos_range: tuple[float, float] | None) -> DataSource:
    """Return a source with its label scale stated.

    Raises:
        DataError: it is stated twice, or the set has its own.
    """
    if mos_range is None:
        return source
    if "mos_range" in source.options:
        raise DataError("the MOS range is stated twice: in the name of the data set and as an option")
    if source.name in LAYOUTS:
        raise DataError(f"data set {source.name!r} has its own MOS range; state one for a CSV file only")
    low, high = mos_range
    return source._replace(options={**source.options, "mos_range": f"{low!r},{high!r}"})
