"""Data sets by name: what there is, opening one, checking one."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import NamedTuple

from iqa_harness.data.embedded.recipes import Recipe, core_recipe, demo_recipe, open_embedded, smoke_recipe
from iqa_harness.data.hashing import set_fingerprint
from iqa_harness.data.image_set import DataCard, ImageSet
from iqa_harness.data.listing import Finding
from iqa_harness.data.public.layout import Layout
from iqa_harness.data.public.opening import JSON, LAYOUTS, check_files, open_files, with_range
from iqa_harness.data.public.source import DataSource, parse_source
from iqa_harness.errors import DataError

_EMBEDDED = {"demo": demo_recipe, "demo-core": core_recipe, "smoke": smoke_recipe}


def list_data() -> list[DataCard]:
    """Return the cards of the sets that `open_data` can make from the packages installed; builds nothing.

    `demo` is missing from the list when one of its photographs is: opening it then gives `demo-core`.
    """
    recipes: dict[str, Recipe] = {}
    for make in _EMBEDDED.values():
        recipe = make()
        recipes[recipe.name] = recipe
    return [recipe.card() for recipe in recipes.values()]


def open_data(
    name: str | Path | ImageSet,
    *,
    cache_dir: Path | None = None,
    progress: bool = True,
    mos_range: tuple[float, float] | None = None,
) -> ImageSet:
    """Return a data set.

    An embedded set (`demo`, `demo-core`, `smoke`) is built on first use and then read from the cache. `demo`
    needs the packages of the `[demo]` extra; without them it is `demo-core`, and its card and fingerprint
    say so. A public set lies in the folder the user downloaded it to; nothing is ever fetched.

    Args:
        name: ``demo``; ``koniq10k:/folder`` (without the folder it is looked for in `$IQA_HARNESS_DATA`);
            ``json:/folder?test=list.json``; or the path of a CSV file. ``?option=value&...`` may follow. An
            open set is returned as it is.
        cache_dir: Root of the cache, by default `$IQA_HARNESS_CACHE`, else the user's cache folder.
        progress: Show a bar on standard error while a set is built or read for the first time.
        mos_range: Ends of the label scale of a CSV file; the same as its option ``mos_range=LOW,HIGH``.

    Raises:
        DataError: for an unknown name or option, a folder that does not hold the set, files with problems
            (all of them at once, by row), or a set that cannot be built or is damaged.
    """
    if isinstance(name, ImageSet):
        if mos_range is not None:
            raise DataError("an image set is opened already: it has its own MOS range")
        return name
    source = parse(name)
    if source.name in _EMBEDDED:
        if mos_range is not None:
            raise DataError(f"data set {name!r} has its own MOS range; state one for a CSV file only")
        return open_embedded(_EMBEDDED[source.name](), cache_dir=cache_dir, progress=progress)
    return open_files(with_range(source, mos_range), cache_dir=cache_dir, progress=progress)


def parse(name: str | Path) -> DataSource:
    """Return what a user named, sure to be an embedded set, a public one, JSON lists or a CSV file.

    Raises:
        DataError: none of these, or options or a folder for an embedded set, which has none.
    """
    names = (*_EMBEDDED, *LAYOUTS, JSON)
    source = parse_source(str(name), names)
    if source.name in _EMBEDDED and (source.options or source.root):
        raise DataError(f"data set {source.name!r} is embedded: it has no folder and no options")
    path = Path(source.name)
    if source.name in names or path.suffix.lower() == ".csv" or path.is_file():
        return source
    close = difflib.get_close_matches(source.name.partition(":")[0], names, n=1, cutoff=0.0)
    raise DataError(
        f"unknown data set {source.name!r}: did you mean {close[0]!r}? "
        f"Known: {', '.join(names)}, or the path of a CSV file"
    )


def find_layout(name: str) -> Layout | None:
    """Return the layout of a public set that was named without a place, None if it is no such set."""
    source = parse(name)
    return LAYOUTS.get(source.name) if source.root is None else None


def check_source(name: str, *, cache_dir: Path | None = None, progress: bool = True) -> CheckReport:
    """Read a whole set afresh, images included, and return everything that is wrong with it.

    Raises:
        DataError: the set cannot be opened at all (no folder, no label file, bad option).
    """
    source = parse(name)
    if source.name in _EMBEDDED:
        images = open_data(name, cache_dir=cache_dir, progress=progress)
        return CheckReport(len(images), [Finding("", "record", text) for text in check_data(images)])
    return CheckReport(*check_files(source, progress=progress))


class CheckReport(NamedTuple):
    """What `check_source` saw."""

    images: int
    """Rows of the label file."""
    findings: list[Finding]


def check_data(image_set: ImageSet) -> list[str]:
    """Return every problem of a set, none if it is sound: reads all images.

    Checked: pixels against records, ids, labels, splits, that no reference lies in two splits, and
    that the fingerprint is that of the records. Give it a whole set, not a split or subset.
    """
    card, records = image_set.card, image_set.records
    low, high = card.mos_range
    problems = [] if records else ["no images"]
    seen: set[str] = set()
    home: dict[str, str] = {}
    for index, record in enumerate(records):
        if record.image_id in seen:
            problems.append(f"{record.image_id}: appears twice")
        seen.add(record.image_id)
        if not (math.isfinite(record.mos) and low <= record.mos <= high):
            problems.append(f"{record.image_id}: label {record.mos} is outside {low}..{high}")
        if record.split not in {"train", "val", "test"}:
            problems.append(f"{record.image_id}: unknown split {record.split!r}")
        if home.setdefault(record.reference, record.split) != record.split:
            problems.append(f"{record.image_id}: reference {record.reference!r} lies in two splits")
        try:
            image_set.read(index)
        except DataError as error:
            problems.append(str(error))
    if set_fingerprint(card.name, card.mos_range, records) != image_set.fingerprint:
        problems.append("the fingerprint is not that of the records")
    return problems
