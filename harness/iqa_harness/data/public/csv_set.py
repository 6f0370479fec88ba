"""A user's own images: one CSV file with a row an image."""

from __future__ import annotations

import csv
import difflib
import math
from pathlib import Path
from typing import Final

from iqa_harness.data.listing import Entry, Folder, Listing, number
from iqa_harness.data.public.label_files import Row, require_columns
from iqa_harness.errors import DataError

REQUIRED: Final = ("path", "mos")
OPTIONAL: Final = ("split", "reference", "distortion", "level")
_SPLITS: Final = ("train", "val", "test")


def read_csv_listing(path: Path) -> Listing:
    """Read the rows of a CSV file.

    Columns: `path`, `mos` and, optional, `split`, `reference`, `distortion`, `level`.

    Paths are relative to the CSV's folder and may not leave it, not through a link either; they are
    the image ids. `mos` is higher for better images. `split` is train, val or test (default test),
    `level` 0..5 with 0 for an original. Other columns are ignored unless they look like a misspelling.

    Raises:
        DataError: the file cannot be read, or a required column is missing; all else are findings.
    """
    listing = Listing(Folder(path.parent))
    for row in _read_rows(path, listing):
        listing.add(_parse(row, listing))
    return listing


def label_range(listing: Listing, stated: tuple[float, float] | None) -> tuple[float, float]:
    """Return the ends of the label scale: as stated, else the lowest and highest label.

    Labels outside a stated range, and a range that is none, are findings.
    """
    labels = [entry.mos for entry in listing.entries]
    if stated is None:
        finite = [label for label in labels if math.isfinite(label)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if low == high:
            listing.find("", "range", f"all labels are {low}: state the MOS range")
        return low, high
    low, high = float(stated[0]), float(stated[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        listing.find("", "range", f"MOS range {low}..{high}: the first end must be the lower one")
        return low, high
    for entry in listing.entries:
        if entry.mos < low or entry.mos > high:
            listing.find(entry.where, "range", f"mos {entry.mos} is outside the MOS range {low}..{high}")
    return low, high


def _read_rows(path: Path, listing: Listing) -> list[Row]:
    """Return the whole rows; what is wrong with the table itself becomes findings."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            rows = [Row(f"line {reader.line_num}", row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 CSV file ({error})") from error
    require_columns(path, columns, REQUIRED)
    for name in sorted({n for n in columns if columns.count(n) > 1}):
        listing.find("", "columns", f"column {name!r} appears twice")
    for column in columns:
        close = difflib.get_close_matches(column.strip().lower(), (*REQUIRED, *OPTIONAL), n=1, cutoff=0.8)
        if close and column != close[0]:
            listing.find("", "columns", f"column {column!r}: did you mean {close[0]!r}?")
    if not rows:
        listing.find("", "columns", "no rows")
    whole = []
    for where, cells in rows:
        if None in cells or None in cells.values():  # DictReader's mark of too many or too few cells
            listing.find(where, "columns", f"expected {len(columns)} cells")
        else:
            whole.append(Row(where, {name: cell.strip() for name, cell in cells.items()}))
    return whole


def _parse(row: Row, listing: Listing) -> Entry:
    """Return the entry of a row; what is wrong becomes findings."""
    cells = row.cells
    mos = number(cells["mos"])
    if not math.isfinite(mos):
        listing.find(row.where, "label", f"mos {cells['mos']!r} is not a finite number")
    split = cells.get("split") or "test"
    if split not in _SPLITS:
        listing.find(row.where, "split", f"split {split!r} is none of {', '.join(_SPLITS)}")
    level = cells.get("level") or None
    if level is not None and level not in {"0", "1", "2", "3", "4", "5"}:
        listing.find(row.where, "level", f"level {level!r} is not an integer from 0 to 5")
        level = None
    return Entry(
        where=row.where,
        image_id=cells["path"],
        path=cells["path"],
        raw=mos,
        mos=mos,
        reference=cells.get("reference") or cells["path"],
        distortion=cells.get("distortion") or None,
        level=None if level is None else int(level),
        split=split,
    )
