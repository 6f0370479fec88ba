"""Which images of a set are for training, validation and test, by rules that every machine agrees on.

Names are sorted before they are shuffled, and the shuffle is a hash of seed and name: neither the
order of a directory nor the version of a random generator moves an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iqa_harness.data.hashing import file_sha256
from iqa_harness.data.image_set import SPLITS
from iqa_harness.data.listing import Entry, Listing, alike
from iqa_harness.data.public.label_files import read_scored_list
from iqa_harness.data.splits import divide, seeded_order
from iqa_harness.errors import DataError

LISTS: Final[tuple[str, ...]] = SPLITS
"""Options that name a JSON list; any of them makes the rule `lists`."""
RULES_OF_TABLES: Final = ("official", "references", "random", "all")
"""Rules a user's own table can have, the default first."""
OPTIONS: Final = ("split", "split_seed", "shares", "val_share", *LISTS)


def apply_rule(
    listing: Listing,
    allowed: Sequence[str],
    shares: tuple[int, int, int],
    options: dict[str, str],
    root: Path,
) -> str:
    """Give every entry of a listing its split; entries that no list names are left out.

    Args:
        listing: its entries' splits are set; findings are added.
        allowed: rules this set can have, the default first.
        shares: train, val and test in proportion, unless the options say otherwise.
        options: those of `OPTIONS` that the user gave.
        root: folder that the names of JSON lists are relative to, unless they are there as given.

    Returns:
        The rule in words, with seed and hashes of the lists: what a card says.

    Raises:
        DataError: a rule the set cannot have, an option that does not go with the rule, too few contents to
            divide, or a list that cannot be read.
    """
    lists: dict[str, str] = {name: options[name] for name in LISTS if name in options}
    rule = options.get("split", "lists" if lists else allowed[0])
    if lists and rule != "lists":
        raise DataError(f"split={rule} does not go with the list {next(iter(lists))}=...; leave one out")
    if rule not in (*allowed, *(["lists"] if lists else [])):
        raise DataError(
            f"split={rule}: this set has {', '.join(allowed)}, or JSON lists by train=, val= and test="
        )
    if "split_seed" in options and rule not in ("references", "random") and "val_share" not in options:
        raise DataError(f"split_seed has no effect on the split rule {rule!r}; leave it out")
    if "shares" in options:
        if rule not in ("references", "random"):
            raise DataError(f"shares has no effect on the split rule {rule!r}; leave it out")
        shares = _shares(options["shares"])
    if "val_share" in options and (rule != "lists" or "train" not in lists or "val" in lists):
        raise DataError("val_share goes with a list train=... and without val=...")
    seed = _seed(options.get("split_seed", "0"))
    if rule == "official":
        return "official"
    if rule == "all":
        listing.entries = [entry._replace(split="test") for entry in listing.entries]
        return "all images are test"
    if rule == "lists":
        return _by_lists(listing, lists, root, seed, options.get("val_share"))
    by_reference = rule == "references"
    homes = divide([e.reference if by_reference else e.image_id for e in listing.entries], shares, seed)
    listing.entries = [
        entry._replace(split=homes[entry.reference if by_reference else entry.image_id])
        for entry in listing.entries
    ]
    counts = [sum(home == split for home in homes.values()) for split in SPLITS]
    what = "references" if by_reference else "images"
    return f"{rule}: {'/'.join(map(str, counts))} {what} for train/val/test, seed {seed}"


def _by_lists(listing: Listing, lists: dict[str, str], root: Path, seed: int, val_share: str | None) -> str:
    """Take the splits from JSON lists of {image, score}; images of no list are left out."""
    by_name: dict[str, list[Entry]] = {}
    for entry in listing.entries:
        by_name.setdefault(alike(entry.image_id.rpartition("/")[2]), []).append(entry)
    homes: dict[str, str] = {}
    words = []
    for split, text in lists.items():
        path = list_path(text, root)
        items = read_scored_list(path)
        for where, image, _ in items:
            found = by_name.get(alike(image), [])
            found = [entry for entry in found if entry.image_id.rpartition("/")[2] == image] or found
            if len(found) != 1:
                trouble = "names several images" if found else "is no image of the set"
                listing.find(where, "unknown", f"{image} {trouble}")
                continue
            name = found[0].image_id
            if homes.get(name) == split:
                listing.remark(
                    where, "listed-twice", f"{image} stands in {path.name} before; it is taken once"
                )
            elif homes.setdefault(name, split) != split:
                listing.find(where, "leak", f"{image} is in {split} and in {homes[name]}")
        words.append(f"{split} {path.name} ({len(items)} images, sha256 {file_sha256(path)[:16]})")
    if val_share is not None:
        contents = {entry.image_id: entry.reference for entry in listing.entries}
        words.append(_hold_out(homes, contents, val_share, seed))
    listing.keep([i for i, entry in enumerate(listing.entries) if entry.image_id in homes])
    listing.entries = [entry._replace(split=homes[entry.image_id]) for entry in listing.entries]
    return "lists: " + ", ".join(words)


def _hold_out(homes: dict[str, str], contents: dict[str, str], val_share: str, seed: int) -> str:
    """Move a share of the training contents into validation, all images of each."""
    try:
        share = float(val_share)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise DataError(f"val_share={val_share}: must be a number between 0 and 1")
    train = [name for name, split in homes.items() if split == "train"]
    shown = {contents[name] for name in train}
    chosen = set(seeded_order(shown, seed)[: max(1, round(share * len(shown)))])
    held_out = [name for name in train if contents[name] in chosen]
    homes.update(dict.fromkeys(held_out, "val"))
    return f"of train {len(held_out)} images held out as val, seed {seed}"


def list_path(text: str, root: Path) -> Path:
    """Return the JSON list a user named: in the set's folder, else as given."""
    inside = root / text
    return inside if inside.is_file() else Path(text).expanduser()


def _shares(text: str) -> tuple[int, int, int]:
    """Return train, val and test in proportion, as a user writes them."""
    parts = text.split(":")
    if len(parts) != len(SPLITS) or not all(p.isdecimal() and len(p) < 4 for p in parts) or not int(parts[0]):
        raise DataError(f"shares={text}: write train, val and test in proportion, as 8:1:1 or 8:0:2")
    train, val, test = (int(part) for part in parts)
    return train, val, test


def _seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise DataError(f"split_seed={text}: must be a whole number from 0")
    return int(text)
