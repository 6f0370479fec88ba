"""Images labelled by JSON lists of {image, score}, as the SMART-IQA authors' cross-data-set files are."""

from __future__ import annotations

import math
import os
from pathlib import Path

from iqa_harness.data.listing import Entry, Folder, Listing, alike, number
from iqa_harness.data.public.label_files import read_scored_list
from iqa_harness.data.public.split_rules import LISTS, list_path
from iqa_harness.errors import DataError


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
