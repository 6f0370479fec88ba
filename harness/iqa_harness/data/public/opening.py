"""From what a user named to a set of image files: layout, splits, files, pixel hashes, card."""

from __future__ import annotations

import fnmatch
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iqa_harness.data.files.file_set import DigestIndex, FileImageSet, hash_images
from iqa_harness.data.files.pixel_cache import open_pixel_cache
from iqa_harness.data.files.resized import RULES, ResizedImageSet
from iqa_harness.data.hashing import file_sha256, set_fingerprint
from iqa_harness.data.image_set import PSEUDO, DataCard, ImageSet
from iqa_harness.data.listing import Entry, Finding, Folder, Listing, alike, in_file_order, number, refuse
from iqa_harness.data.public.csv_set import read_csv_listing, read_frame_listing
from iqa_harness.data.public.label_files import read_scored_list
from iqa_harness.data.public.layout import Layout, Reading
from iqa_harness.data.public.source import ROOTS, DataSource, find_root
from iqa_harness.data.public.split_rules import LISTS, OPTIONS, RULES_OF_TABLES, apply_rule, list_path
from iqa_harness.data.splits import seeded_order
from iqa_harness.errors import DataError
from iqa_harness.machine.terminal import progress_bar, say

if TYPE_CHECKING:
    import pandas as pd

JSON: Final = "json"
_TABLE_OPTIONS: Final = ("mos_range", "resize", "path", "label", *OPTIONS)
_SUFFIXES: Final = frozenset(
    {".bmp", ".jpg", ".jpeg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class Opened:
    """A set with its files located and its splits given; no image has been decoded yet."""

    listing: Listing
    card: DataCard
    labels: Path | str
    """The label file: what rows in findings are rows of."""
    hint: str = ""
    """What to do if files are missing; empty for a set of the user's own."""
    doubts: tuple[str, ...] = ()
    """What speaks against using it."""
    resize: str | None = None
    """How all images are resized, None to leave them."""


def open_files(opened: Opened, *, cache_dir: Path | str | None, progress: bool) -> ImageSet:
    """Return the set of image files a user named.

    Every file not seen before is decoded once, so that whatever is wrong is known before a run starts.

    Raises:
        DataError: with all problems at once, each with its row.
    """
    cache = open_pixel_cache(cache_dir)
    listing, card = opened.listing, opened.card
    bar = progress_bar(f"Reading {card.name}", len(listing.entries), show=progress)
    with bar as advance, DigestIndex(listing.folder.root, cache_dir) as index:
        digests = hash_images(listing, index, advance)
    gone = any(finding.kind == "missing" for finding in listing.findings)
    refuse(opened.labels, listing.findings, opened.hint if gone else "")
    listing.copies(digests)
    counts = Counter(remark.kind for remark in listing.remarks)
    told = [
        f"{counts[kind]} images {what}; data check names them."
        for kind, what in _TOLD.items()
        if counts[kind]
    ]
    told = [*opened.doubts, *told]
    for text in told if progress else ():
        say(f"{card.name}: {text}", err=True)
    card = replace(card, remarks=(*card.remarks, *told))
    records = tuple(entry.record(digest) for entry, digest in zip(listing.entries, digests, strict=True))
    images = FileImageSet(
        listing.folder.root,
        card,
        set_fingerprint(card.name, card.mos_range, records),
        records,
        [file for file in listing.files if file is not None],
        [entry.raw for entry in listing.entries],
        cache,
    )
    return ResizedImageSet(images, opened.resize, cache) if opened.resize else images


def check_files(opened: Opened, *, progress: bool) -> list[Finding]:
    """Decode every file of a set afresh; return all findings and remarks in the order of the label file."""
    listing = opened.listing
    with progress_bar(f"Checking {opened.card.name}", len(listing.entries), show=progress) as advance:
        listing.copies(hash_images(listing, None, advance))
    return in_file_order([*listing.findings, *listing.remarks])


def read_source(source: DataSource, layout: Layout | None) -> Opened:
    """Read labels and splits and locate the files; what is wrong becomes findings.

    Args:
        source: what the user named.
        layout: of the public set of that name, None for JSON lists and CSV files.

    Raises:
        DataError: no such folder, a label file that is missing or unreadable, or a bad option.
    """
    resize = _resize(source)
    if layout is not None:
        opened = _open_layout(layout, source)
    elif source.name == JSON:
        opened = _open_json(source)
    else:
        path = Path(source.name)
        names, source = _column_names(source)
        listing, columns = read_csv_listing(path, names)
        opened = _own(listing, source._replace(root=path.parent), path.name, names, columns)
        opened = replace(opened, labels=path)
    return replace(opened, resize=resize)


def read_table_source(frame: pd.DataFrame, options: dict[str, str]) -> Opened:
    """Do the same for a table in memory with the columns of a CSV file.

    Args:
        frame: paths relative to `root`, else to the working directory.
        options: those of a CSV file; `root`, a folder; `name`, of the set, default ``images``.

    Raises:
        DataError: a required column is missing, or a bad option.
    """
    name, root = options.get("name", "images"), options.get("root")
    rest = {key: value for key, value in options.items() if key not in ("name", "root")}
    names, source = _column_names(DataSource(name, None, rest))
    listing, columns = read_frame_listing(frame, names, Path(root).expanduser() if root else None)
    opened = _own(listing, source._replace(root=listing.folder.root), "the table", names, columns)
    return replace(opened, card=replace(opened.card, name=name), resize=_resize(source))


def _column_names(source: DataSource) -> tuple[dict[str, str], DataSource]:
    """Return what columns are called instead, and the source without the options that said it.

    ``split`` is a rule if it names one, else a column.

    Raises:
        DataError: an option that a table does not have.
    """
    _known_options(source, _TABLE_OPTIONS)
    options = dict(source.options)
    names = {
        column: options.pop(key) for key, column in (("path", "path"), ("label", "mos")) if key in options
    }
    if options.get("split", RULES_OF_TABLES[0]) not in RULES_OF_TABLES:
        names["split"] = options.pop("split")
    return names, source._replace(options=options)


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
    by_lists = any(name in source.options for name in LISTS)
    options = {**source.options, "split": "lists"} if by_lists else source.options
    reading = Reading(layout, label, root, options, Listing(Folder(root)))
    layout.read(reading)
    listing, labels = reading.listing, reading.label_files[0]
    if not listing.entries:
        listing.find("", "columns", "no rows")
    _unlabelled(listing, layout.ordinary)
    count = len(listing.entries)
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    if count != layout.images:
        notes = (f"{count} labelled images; the official release has {layout.images}.",)
        cause = "the download is not whole" if count < layout.images else "it is another release"
        doubts = (f"{count:,} labelled images of {layout.images:,}: {cause}.",)
        listing.remark(labels.name, "incomplete", doubts[0])
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
        notes=notes,
        label_rule=label.rule,
        split_rule="official: koniq10k_distributions_sets.csv" if rule == "official" else rule,
    )
    return Opened(listing, card, labels, layout.fetch, doubts)


def _open_json(source: DataSource) -> Opened:
    _known_options(source, ("mos_range", "resize", *LISTS))
    if source.root is None:
        raise DataError("data set 'json': write json:FOLDER?test=LIST.json with the folder of the images")
    stated = _range(source)
    listing = read_json_listing(source.root, source.options)
    mos_range = listing.label_range(stated)
    lists = {n: v for n, v in source.options.items() if n in LISTS}
    rule = apply_rule(listing, (), (8, 1, 1), lists, source.root)
    card = DataCard(
        name=source.root.resolve().name,
        label="MOS",
        mos_range=mos_range,
        summary=f"{len(listing.entries)} images listed with their scores",
        source="lists of images and scores given by the user; licences are the user's to state",
        notes=() if stated else (RANGE_NOTE,),
        label_rule="score",
        split_rule=rule,
    )
    return Opened(listing, card, source.root)


def read_json_listing(root: Path, options: dict[str, str]) -> Listing:
    """Read the lists `train`, `val` and `test`; images are looked up below `root` by their base name.

    A missing image is a finding: the authors' loader skips it and then measures on fewer images than
    it says.

    Raises:
        DataError: no folder, no list, or one that cannot be read.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; write json:FOLDER?test=LIST.json with the folder of the images"
        )
    lists = {split: options[split] for split in LISTS if split in options}
    if not lists:
        raise DataError(f"json:{root}: name at least one list, as in json:{root}?test=LIST.json")
    listing = Listing(Folder(root))
    places = _places(listing.folder.root)
    for split, text in lists.items():
        for where, image, score in read_scored_list(list_path(text, root)):
            found = places.get(alike(image), [])
            found = [place for place in found if place.rpartition("/")[2] == image] or found
            if len(found) > 1:
                listing.find(
                    where, "duplicate", f"{image} lies in several folders: {', '.join(sorted(found))}"
                )
            value = number(score)
            if not math.isfinite(value):
                listing.find(where, "label", f"score {score!r} is not a finite number")
            name = found[0] if found else image
            listing.add(Entry(where, image, name, value, value, image, split=split))
    return listing


def _places(root: Path) -> dict[str, list[str]]:
    """Return the relative paths of all files below a folder by `alike` base names; links are not followed."""
    places: dict[str, list[str]] = {}
    for folder, _, names in os.walk(root):
        inside = Path(folder).relative_to(root)
        for name in names:
            places.setdefault(alike(name), []).append((inside / name).as_posix())
    return places


def _own(listing: Listing, source: DataSource, shown: str, names: dict[str, str], columns: str) -> Opened:
    """Return a user's own table with its scale, splits and card.

    Args:
        listing: its rows.
        source: its options, and the folder that JSON lists are relative to.
        shown: what the card calls the table.
        names: what columns are called instead.
        columns: in words, those that were read.
    """
    stated = _range(source)
    mos_range = listing.label_range(stated)
    rule = "official"
    if listing.entries and source.options.keys() & set(OPTIONS):
        root = source.root or listing.folder.root
        rule = apply_rule(listing, RULES_OF_TABLES, (8, 1, 1), source.options, root)
    if not listing.findings:
        listing.leaks()
    column = names.get("mos", "mos")
    card = DataCard(
        name=Path(shown).stem,
        label="pseudo-MOS" if column == PSEUDO else "MOS",
        mos_range=mos_range,
        summary=f"{len(listing.entries)} images listed in {shown}",
        source="the user's own images and labels; licences are the user's to state",
        notes=() if stated else (RANGE_NOTE,),
        label_rule=column,
        split_rule=f"as {shown} says" if rule == "official" else rule,
        remarks=(columns,),
    )
    return Opened(listing, card, shown)


RANGE_NOTE: Final = "MOS range taken from the lowest and highest label."
_TOLD: Final = {
    "copy": "show the pixels of an image in another split",
    "listed-twice": "are listed twice and taken once",
}
"""Remarks that everybody who opens a set is told of, in words."""


def _known_options(source: DataSource, known: Sequence[str]) -> None:
    for option in source.options:
        if option not in known:
            from iqa_models.registry import did_you_mean  # loads torch, which a sound name does not need

            near = did_you_mean(option, known)
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


def _resize(source: DataSource) -> str | None:
    """Return how images are resized."""
    rule = source.options.get("resize")
    if rule is not None and RULES.fullmatch(rule) is None:
        raise DataError(f"resize={rule}: write HEIGHTxWIDTH, such as 384x512, shorter:N or keep_aspect")
    return rule


def _unlabelled(listing: Listing, ordinary: Sequence[str]) -> None:
    """Remark on each image file beside the labelled ones that has no label."""
    labelled = {file for file in listing.files if file is not None}
    for folder in sorted({file.parent for file in labelled}):
        for file in sorted(folder.iterdir()):
            name = file.relative_to(listing.folder.root).as_posix()
            known = file in labelled or any(fnmatch.fnmatch(name, pattern) for pattern in ordinary)
            if file.suffix.lower() in _SUFFIXES and not known:
                listing.remark(name, "unlabelled", "an image file that no label names")
