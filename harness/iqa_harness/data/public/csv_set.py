"""A user's own images: one table with a row an image, in a CSV file or made in Python."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iqa_harness.data.image_set import SPLITS
from iqa_harness.data.listing import Entry, Folder, Listing, number
from iqa_harness.data.public.label_files import Row, read_table, require_columns
from iqa_harness.data.public.split_rules import RULES_OF_TABLES
from iqa_harness.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED: Final = ("path", "mos")
OPTIONAL: Final = ("split", "reference", "distortion", "level")


def read_csv_listing(path: Path, names: Mapping[str, str]) -> tuple[Listing, str]:
    """Read the rows of a CSV file.

    Columns: `path`, `mos` and, optional, `split`, `reference`, `distortion`, `level`.

    Paths are relative to the CSV's folder and may not leave it, not through a link either; they are
    the image ids. `mos` is higher for better images. `split` is train, val or test (default test),
    `level` 0..5 with 0 for an original. Other columns are ignored unless they look like a misspelling.

    Args:
        path: the file.
        names: what a column is called instead, as in ``{"mos": "score"}``.

    Returns:
        The rows, and in words which columns were read and which were not.

    Raises:
        DataError: the file cannot be read, or a required column is missing; all else are findings.
    """
    listing = Listing(Folder(path.parent))
    table = read_table(path)
    seen = table_columns(path, table.columns, names, listing)
    rows = []
    for where, cells in table.rows:
        if len(cells) != len(table.columns):
            listing.find(where, "columns", f"expected {len(table.columns)} cells")
        else:
            rows.append(Row(where, dict(zip(table.columns, cells, strict=True))))
    add_rows(listing, rows, names)
    return listing, seen


def read_frame_listing(
    frame: pd.DataFrame, names: Mapping[str, str], root: Path | None
) -> tuple[Listing, str]:
    """Do the same for a table in memory; a missing value is an empty cell.

    Args:
        frame: with the columns of a CSV file.
        names: what a column is called instead.
        root: folder that paths are relative to and may not leave. Without it they are relative to the working
            directory, may lie anywhere, and ids are relative to the folder that holds them all.

    Raises:
        DataError: a required column is missing.
    """
    listing = Listing(Folder(root or Path()))
    columns = [str(name) for name in frame.columns]
    seen = table_columns("the table", columns, names, listing)
    missing = frame.isna().to_numpy()
    rows = [
        Row(
            f"row {number}", {n: "" if gone else v for n, v, gone in zip(columns, values, holes, strict=True)}
        )
        for number, (values, holes) in enumerate(
            zip(frame.itertuples(index=False, name=None), missing, strict=True), start=1
        )
    ]
    if root is None:
        listing.folder = _gathered(rows, names.get("path", "path"))
    add_rows(listing, rows, names)
    return listing, seen


def _gathered(rows: Sequence[Row], path: str) -> Folder:
    """Return the folder that holds the files of all rows, whose paths are then relative to it."""
    named = [row for row in rows if str(row.cells[path])]
    files = [Path(str(row.cells[path])).expanduser().resolve() for row in named]
    try:
        home = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
    except ValueError as error:  # several drives of Windows
        raise DataError(f"the table: its images have no folder in common ({error}); give root=") from error
    for row, file in zip(named, files, strict=True):
        row.cells[path] = file.relative_to(home).as_posix()
    return Folder(home)


def table_columns(
    path: Path | str, columns: Sequence[str], names: Mapping[str, str], listing: Listing
) -> str:
    """Return in words which columns of a table are read; doubtful ones become findings.

    Raises:
        DataError: a required or a chosen column is missing.
    """
    wanted = {name: names.get(name, name) for name in (*REQUIRED, *OPTIONAL)}
    chosen = names.get("split")
    if chosen is not None and chosen not in columns:
        known = ", ".join(RULES_OF_TABLES)
        raise DataError(f"split={chosen}: neither a rule ({known}) nor a column of {path}")
    required = [wanted[name] for name in wanted if name in REQUIRED or name in names]
    require_columns(path, columns, required, hint="; say which are yours with path=, label=, split=")
    for name in sorted({n for n in columns if columns.count(n) > 1}):
        listing.find("", "columns", f"column {name!r} appears twice")
    read = [name for name in wanted.values() if name in columns]
    ignored = [name for name in columns if name not in read]
    absent = [name for name in wanted.values() if name not in columns]
    for column in ignored:
        close = _near(column.lower(), absent)
        if close:
            listing.find("", "columns", f"column {column!r}{close}")
    return f"Columns read: {', '.join(read)}; not read: {', '.join(ignored) or 'none'}."


def add_rows(listing: Listing, rows: Sequence[Row], names: Mapping[str, str]) -> None:
    """Add the rows of a table; what is wrong becomes findings."""
    for row in rows:
        listing.add(_parse(row, names, listing))
    if not rows and not listing.findings:
        listing.find("", "columns", "no rows")


def _near(name: str, known: Sequence[str]) -> str:
    if not known:
        return ""
    from iqa_models.registry import did_you_mean  # loads torch, which a plain table does not need

    return did_you_mean(name, known, cutoff=0.8).replace(", did", ": did")


def _parse(row: Row, names: Mapping[str, str], listing: Listing) -> Entry:
    """Return the entry of a row; what is wrong becomes findings."""

    def cell(name: str) -> str:
        return str(row.cells.get(names.get(name, name), ""))

    mos = number(row.cells[names.get("mos", "mos")])
    if not math.isfinite(mos):
        listing.find(row.where, "label", f"{names.get('mos', 'mos')} {cell('mos')!r} is not a finite number")
    split = cell("split") or "test"
    if split not in SPLITS:
        listing.find(row.where, "split", f"split {split!r} is none of {', '.join(SPLITS)}")
    level = number(cell("level"))
    if cell("level") and level not in range(6):
        listing.find(row.where, "level", f"level {cell('level')!r} is not an integer from 0 to 5")
    path = listing.folder.portable(cell("path"))
    return Entry(
        where=row.where,
        image_id=path,
        path=path,
        raw=mos,
        mos=mos,
        reference=cell("reference") or path,
        distortion=cell("distortion") or None,
        level=int(level) if level in range(6) else None,
        split=split,
    )
