"""A user's own images: one CSV file with a row an image."""

from __future__ import annotations

import csv
import difflib
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iqa_harness.data.decoding import decode
from iqa_harness.data.hashing import pixel_sha256, set_fingerprint
from iqa_harness.data.image_set import DataCard, ImageRecord, ImageSet
from iqa_harness.errors import DataError

REQUIRED: Final = ("path", "mos")
OPTIONAL: Final = ("split", "reference", "distortion", "level")
_SPLITS: Final = ("train", "val", "test")
_SHOWN: Final = 50  # problems spelled out in one message


class CsvImageSet(ImageSet):
    """Images listed in a CSV file, decoded when read and checked against the pixels seen at opening."""

    def __init__(self, root: Path, card: DataCard, fingerprint: str, records: Sequence[ImageRecord]) -> None:
        self.root = root
        self.card = card
        self.fingerprint = fingerprint
        self.records = tuple(records)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of image `index`; see `decoding.decode`.

        Raises:
            DataError: if the file cannot be decoded or shows other pixels than when the set was opened.
        """
        record = self.records[index]
        pixels = decode(self.root / record.image_id)
        if pixel_sha256(pixels) != record.sha256:
            raise DataError(f"{self.root / record.image_id}: changed since the data set was opened")
        return pixels

    def subset(self, indices: Sequence[int]) -> CsvImageSet:
        """Return the images at `indices`, in that order, with the fingerprint of the whole set."""
        return CsvImageSet(self.root, self.card, self.fingerprint, [self.records[i] for i in indices])


class _Row(NamedTuple):
    line: int
    cells: dict[str, str]


def open_csv(path: Path, *, mos_range: tuple[float, float] | None = None) -> CsvImageSet:
    """Return the set of a CSV file.

    Columns: `path`, `mos` and, optional, `split`, `reference`, `distortion`, `level`.

    Paths are relative to the CSV's folder and may not leave it, not through a link either; they are
    the image ids. `mos` is higher for better images. `split` is train, val or test (default test),
    `level` 0..5 with 0 for an original. Images of one `reference` may not lie in two splits. Other
    columns are ignored unless they look like a misspelling. Every image is decoded once, so that
    whatever is wrong is known before a run starts.

    Args:
        path: The CSV file, UTF-8.
        mos_range: Nominal ends (low, high) of the label scale; by default the lowest and highest
            label of the file. Scores of two sets are comparable only on a stated scale.

    Raises:
        DataError: with all problems at once, each with its line.
    """
    rows, problems = _read_rows(path)
    root = path.parent.resolve()
    parsed = [_parse(row, problems) for row in rows]
    files = _locate(root, rows, problems)
    if not problems:
        problems += _leaks(rows, parsed)
    low, high = _label_range(mos_range, [record.mos for record in parsed], rows, problems)
    hashes = _hash_images(files, rows, problems)
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{path}: {len(problems)} problem(s)\n  " + "\n  ".join(problems[:_SHOWN]) + more)
    records = [record._replace(sha256=digest) for record, digest in zip(parsed, hashes, strict=True)]
    card = DataCard(
        name=path.stem,
        label="MOS",
        mos_range=(low, high),
        summary=f"{len(records)} images listed in {path.name}",
        source="the user's own images and labels; licences are the user's to state",
        notes=() if mos_range else ("MOS range taken from the lowest and highest label.",),
    )
    return CsvImageSet(root, card, set_fingerprint(card.name, card.mos_range, records), records)


def _read_rows(path: Path) -> tuple[list[_Row], list[str]]:
    """Return the rows with their line numbers and what is wrong with the table itself."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            rows = [_Row(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 CSV file ({error})") from error
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise DataError(
            f"{path}: no column {' and no column '.join(missing)}; found: {', '.join(columns) or 'none'}"
        )
    problems = [
        f"column {name!r} appears twice" for name in sorted({n for n in columns if columns.count(n) > 1})
    ]
    for column in columns:
        close = difflib.get_close_matches(column.strip().lower(), (*REQUIRED, *OPTIONAL), n=1, cutoff=0.8)
        if close and column != close[0]:
            problems.append(f"column {column!r}: did you mean {close[0]!r}?")
    if not rows:
        problems.append("no rows")
    whole = []
    for line, cells in rows:
        if None in cells or None in cells.values():  # DictReader's mark of too many or too few cells
            problems.append(f"line {line}: expected {len(columns)} cells")
        else:
            whole.append(_Row(line, {name: cell.strip() for name, cell in cells.items()}))
    return whole, problems


def _parse(row: _Row, problems: list[str]) -> ImageRecord:
    """Return the record of a row without its pixel hash; what is wrong is added to `problems`."""
    cells = row.cells

    def problem(text: str) -> None:
        problems.append(f"line {row.line}: {text}")

    mos = _number(cells["mos"])
    if not math.isfinite(mos):
        problem(f"mos {cells['mos']!r} is not a finite number")
    split = cells.get("split") or "test"
    if split not in _SPLITS:
        problem(f"split {split!r} is none of {', '.join(_SPLITS)}")
    level = cells.get("level") or None
    if level is not None and level not in {"0", "1", "2", "3", "4", "5"}:
        problem(f"level {level!r} is not an integer from 0 to 5")
        level = None
    return ImageRecord(
        image_id=cells["path"],
        mos=mos,
        split=split,
        reference=cells.get("reference") or cells["path"],
        distortion=cells.get("distortion") or None,
        level=None if level is None else int(level),
        sha256="",
    )


def _number(text: str) -> float:
    """Return the number `text` says, NaN if it says none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _locate(root: Path, rows: Iterable[_Row], problems: list[str]) -> dict[int, Path]:
    """Return line to file for each row whose path names a file inside `root` that no row named before."""
    files: dict[int, Path] = {}
    seen: dict[Path, int] = {}
    for line, cells in rows:
        name = cells["path"]
        target = (root / name).resolve()  # follows links, so a link out of the folder is found as well
        if not name or "\0" in name:
            problems.append(f"line {line}: path is empty or holds a NUL byte")
        elif Path(name).is_absolute() or not target.is_relative_to(root):
            problems.append(f"line {line}: {name}: leaves the folder of the CSV file")
        elif target in seen:
            problems.append(f"line {line}: {name}: the same file as line {seen[target]}")
        elif not target.is_file():
            problems.append(f"line {line}: {name}: no such file")
        else:
            seen[target] = line
            files[line] = target
    return files


def _leaks(rows: Sequence[_Row], records: Sequence[ImageRecord]) -> list[str]:
    """Return a problem for each row whose reference has already been seen in another split."""
    home: dict[str, tuple[str, int]] = {}
    leaks = []
    for row, record in zip(rows, records, strict=True):
        split, line = home.setdefault(record.reference, (record.split, row.line))
        if split != record.split:
            leaks.append(
                f"line {row.line}: reference {record.reference!r} is in {record.split}, "
                f"but on line {line} in {split}"
            )
    return leaks


def _label_range(
    mos_range: tuple[float, float] | None, labels: Sequence[float], rows: Sequence[_Row], problems: list[str]
) -> tuple[float, float]:
    finite = [label for label in labels if math.isfinite(label)]
    if mos_range is None:
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if low == high:
            problems.append(f"all labels are {low}: state the MOS range")
        return low, high
    low, high = float(mos_range[0]), float(mos_range[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        problems.append(f"MOS range {low}..{high}: the first end must be the lower one")
        return low, high
    for row, label in zip(rows, labels, strict=True):
        if label < low or label > high:
            problems.append(f"line {row.line}: mos {label} is outside the MOS range {low}..{high}")
    return low, high


def _hash_images(files: dict[int, Path], rows: Sequence[_Row], problems: list[str]) -> list[str]:
    """Return the pixel hash of each located file, in row order; undecodable ones are problems."""
    lines = [row.line for row in rows if row.line in files]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda line: _hash_image(files[line]), lines))
    problems += [f"line {line}: {error}" for line, (_, error) in zip(lines, results, strict=True) if error]
    return [digest for digest, _ in results]


def _hash_image(path: Path) -> tuple[str, str]:
    """Return (hash, "") or ("", what is wrong)."""
    try:
        return pixel_sha256(decode(path)), ""
    except DataError as error:
        return "", str(error)
