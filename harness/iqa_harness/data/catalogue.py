"""Data sets by name or as objects: what there is, opening one, checking one."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from iqa_harness.data.embedded.recipes import RECIPES, embedded_recipe, open_embedded
from iqa_harness.data.hashing import set_fingerprint
from iqa_harness.data.image_set import SPLITS, DataCard, ImageSet
from iqa_harness.data.listing import Finding
from iqa_harness.data.public.layout import Layout
from iqa_harness.data.public.opening import JSON, check_files, open_files, read_source, read_table_source
from iqa_harness.data.public.sets import LAYOUTS
from iqa_harness.data.public.source import DataSource, parse_source
from iqa_harness.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

GROUP: Final = "iqa_harness.data"
"""Entry points of installed packages: a `Layout`, or a function that returns an `ImageSet`."""
ALLOWABLE: Final = (
    "palette", "opaque-alpha", "rotated", "unlabelled", "copy", "listed-twice", "incomplete",
)  # fmt: skip
"""Kinds of findings that do not keep a set from being opened."""

Data: TypeAlias = "str | Path | ImageSet | pd.DataFrame | Sequence[tuple[str | Path, float]]"
"""What `open_data` takes."""


def list_data() -> list[DataCard]:
    """Return the cards of the sets that `open_data` can make from the packages installed; builds nothing.

    `demo`, `demo-small` and `demo-study` are missing from the list when one of their photographs is: opening
    them then gives `demo-core`.
    """
    recipes = {recipe.name: recipe for recipe in map(embedded_recipe, RECIPES)}
    return [recipe.card() for recipe in recipes.values()]


def list_layouts() -> dict[str, Layout]:
    """Return the public sets by name, those of installed packages included."""
    return {**LAYOUTS, **{name: made for name, made in _installed().items() if isinstance(made, Layout)}}


def open_data(
    source: Data,
    *,
    cache_dir: Path | str | None = None,
    progress: bool = True,
    mos_range: tuple[float, float] | None = None,
    **options: str,
) -> ImageSet:
    """Return a data set.

    An embedded set (`demo`, `demo-small`, `demo-study`, `demo-core`, `smoke`) is built on first use and then
    read from the cache. All but the last two need the packages of the `[demo]` extra; without them they are
    `demo-core`, and its card and fingerprint say so. A public set lies in the folder the user downloaded it
    to; nothing is ever fetched.

    Args:
        source: ``demo``; ``koniq10k:/folder`` (without the folder it is looked for in `$IQA_HARNESS_DATA`);
            ``json:/folder?test=list.json``; or the path of a CSV file. ``?option=value&...`` may follow. Or
            an `ImageSet`, which is returned as it is; a DataFrame with the columns of a CSV file; pairs of
            a path and its MOS, all of the test split. Images in memory are an `ArrayImageSet`.
        cache_dir: Root of the cache, by default `$IQA_HARNESS_CACHE`, else the user's cache folder.
        progress: Show a bar on standard error while a set is built or read for the first time.
        mos_range: Ends of the label scale of a user's own images; by default the lowest and highest label.
        **options: The same as those that may follow a name: ``path``, ``label`` and ``split`` name the
            columns of a table, ``resize="384x512"``. Of a table in memory also ``root``, the folder that
            paths are relative to, and ``name``.

    Raises:
        DataError: for an unknown name or option, a folder that does not hold the set, files with problems
            (all of them at once, by row), or a set that cannot be built or is damaged.
    """
    if isinstance(source, ImageSet):
        if options or mos_range is not None:
            raise DataError("an image set is opened already: it takes no options and has its own MOS range")
        return source
    if not isinstance(source, str | Path):
        opened = read_table_source(_as_frame(source), _with_range(options, mos_range))
        return open_files(opened, cache_dir=cache_dir, progress=progress)
    named = parse(source)
    given = _with_range(named.options, mos_range)
    for key, value in options.items():
        if given.setdefault(key, value) != value:
            raise DataError(f"data {str(source)!r}: option {key!r} is given twice")
    if named.name in RECIPES:
        if given:
            raise DataError(f"data set {named.name!r} is embedded: it has its own MOS range and no options")
        return open_embedded(embedded_recipe(named.name), cache_dir=cache_dir, progress=progress)
    layouts = list_layouts()
    if named.name in layouts and "mos_range" in given:
        raise DataError(f"data set {named.name!r} has its own MOS range; state one for a CSV file only")
    named = named._replace(options=given)
    makes = _installed().get(named.name)
    if callable(makes) and not isinstance(makes, Layout):
        return _made(makes, named)
    return open_files(read_source(named, layouts.get(named.name)), cache_dir=cache_dir, progress=progress)


def _with_range(options: dict[str, str], mos_range: tuple[float, float] | None) -> dict[str, str]:
    """Return options with the label scale among them."""
    if mos_range is None:
        return dict(options)
    if "mos_range" in options:
        raise DataError("the MOS range is stated twice: in the name of the data set and as an option")
    low, high = mos_range
    return {**options, "mos_range": f"{float(low)!r},{float(high)!r}"}


def _as_frame(source: object) -> pd.DataFrame:
    """Return a table of what is one, or of pairs of a path and its MOS."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source
    try:
        pairs = [(str(path), mos) for path, mos in source]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{type(source).__name__} is no data set: give a name, a path, an ImageSet, a DataFrame, or "
            "pairs of a path and its MOS"
        ) from error
    return pd.DataFrame(pairs, columns=["path", "mos"])


def _installed() -> dict[str, object]:
    """Return what installed packages offer, by name; none takes the place of a set that ships."""
    if "iqa_models.entry_points" not in sys.modules and not entry_points(group=GROUP):
        return {}
    from iqa_models.entry_points import load_group  # loads torch, for nothing if there are none

    own = {*RECIPES, *LAYOUTS, JSON}
    return {name: made for name, made in load_group(GROUP).items() if name not in own}


def _made(make: Callable[..., object], source: DataSource) -> ImageSet:
    """Return the set that another package makes."""
    place = {} if source.root is None else {"root": source.root}
    try:
        images = make(**place, **source.options)
    except TypeError as error:
        raise DataError(f"data set {source.name!r} cannot be made: {error}") from error
    if not isinstance(images, ImageSet):
        raise DataError(f"data set {source.name!r}: its package gives {type(images).__name__}, no ImageSet")
    return images


def parse(name: str | Path) -> DataSource:
    """Return what a user named, sure to be an embedded set, a public one, JSON lists or a CSV file.

    Raises:
        DataError: none of these, or options or a folder for an embedded set, which has none.
    """
    names = tuple(dict.fromkeys((*RECIPES, *LAYOUTS, *_installed(), JSON)))
    source = parse_source(str(name), names)
    if source.name in RECIPES and (source.options or source.root):
        raise DataError(f"data set {source.name!r} is embedded: it has no folder and no options")
    path = Path(source.name)
    if source.name in names or path.suffix.lower() == ".csv" or path.is_file():
        return source
    from iqa_models.registry import did_you_mean  # loads torch, which a known name does not need

    near = did_you_mean(source.name.partition(":")[0], names, cutoff=0.0)
    raise DataError(
        f"unknown data set {source.name!r}{near} Known: {', '.join(names)}, or the path of a CSV file"
    )


def find_layout(name: str) -> Layout | None:
    """Return the layout of a public set that was named without a place, None if it is no such set."""
    source = parse(name)
    return list_layouts().get(source.name) if source.root is None else None


class CheckReport(NamedTuple):
    """What `check_source` saw."""

    images: int
    """Rows of the label file."""
    findings: list[Finding]
    """In the order of the files."""
    counted: list[Finding]
    """Those that are not of an allowed kind."""


def check_source(
    name: str | Path,
    *,
    allowed: Collection[str] = (),
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> CheckReport:
    """Read a whole set afresh, images included, and return everything that is wrong with it.

    Args:
        name: as in `open_data`.
        allowed: kinds of `ALLOWABLE` that are all right.
        cache_dir: root of the cache.
        progress: whether a bar is shown.

    Raises:
        DataError: the set cannot be opened at all (no folder, no label file, bad option), or a kind cannot be
            allowed.
    """
    for kind in sorted(set(allowed) - set(ALLOWABLE)):
        raise DataError(
            f"--allow {kind}: no such kind, or one that keeps a set from being opened; those that can be "
            f"allowed: {', '.join(ALLOWABLE)}"
        )
    source = parse(name)
    layouts = list_layouts()
    if source.name in RECIPES or (source.name in _installed() and source.name not in layouts):
        images = open_data(name, cache_dir=cache_dir, progress=progress)
        count, findings = len(images), [Finding("", "record", text) for text in check_data(images)]
    else:
        opened = read_source(source, layouts.get(source.name))
        count, findings = len(opened.listing.entries), check_files(opened, progress=progress)
    return CheckReport(count, findings, [finding for finding in findings if finding.kind not in allowed])


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
        if record.split not in SPLITS:
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
