"""Data sets by name: what there is, opening one, checking one."""

from __future__ import annotations

import difflib
import math
from pathlib import Path

from iqa_harness.data.demo import Recipe, core_recipe, demo_recipe, open_embedded, smoke_recipe
from iqa_harness.data.hashing import set_fingerprint
from iqa_harness.data.image_set import DataCard, ImageSet
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
    name: str | Path,
    *,
    cache_dir: Path | None = None,
    progress: bool = True,
    mos_range: tuple[float, float] | None = None,
) -> ImageSet:
    """Return a data set by name (`demo`, `demo-core`, `smoke`) or by the path of a CSV file.

    An embedded set is built on first use and then read from the cache. `demo` needs the packages of
    the `[demo]` extra; without them it is `demo-core`, and its card and fingerprint say so.

    Args:
        name: Name of an embedded set, or path of a CSV file; see `csv_set.open_csv` for its columns.
        cache_dir: Root of the cache, by default `$IQA_HARNESS_CACHE`, else the user's cache folder.
        progress: Show a bar on standard error while a set is built.
        mos_range: Ends of the label scale of a CSV file.

    Raises:
        DataError: for an unknown name, a CSV file with problems, a MOS range for an embedded set, or a
            set that cannot be built or is damaged.
    """
    if isinstance(name, str) and name in _EMBEDDED:
        if mos_range is not None:
            raise DataError(f"data set {name!r} has its own MOS range; state one for a CSV file only")
        return open_embedded(_EMBEDDED[name](), cache_dir=cache_dir, progress=progress)
    path = Path(name)
    if path.suffix.lower() == ".csv" or path.is_file():
        from iqa_harness.data.csv_set import open_csv

        return open_csv(path, mos_range=mos_range)
    close = difflib.get_close_matches(str(name), _EMBEDDED, n=1, cutoff=0.0)
    raise DataError(
        f"unknown data set {str(name)!r}: did you mean {close[0]!r}? "
        f"Known: {', '.join(_EMBEDDED)}, or the path of a CSV file"
    )


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
