"""Label files as the data sets ship them: CSV, plain text, MATLAB, Excel, JSON. All are read as data only.

MATLAB files are read with SciPy's parser, which builds arrays and never runs anything (they are no
pickle); sizes are looked at before anything is unpacked.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from iqa_errors.json_text import read_json
from iqa_harness.errors import DataError

_MOST_VALUES: Final = 10_000_000
_MOST_BYTES: Final = 512 * 2**20


class Row(NamedTuple):
    """One row of a table."""

    where: str
    cells: dict[str, Any]


class Table(NamedTuple):
    """A CSV file."""

    columns: list[str]
    """Names in the header, without outer blanks."""
    rows: list[tuple[str, list[str]]]
    """Where each row stands, and its cells, without outer blanks; their number may be wrong."""


_DECIMAL_COMMA: Final = re.compile(r"[-+]?\d+,\d+")


def read_table(path: Path) -> Table:
    """Read a UTF-8 CSV file with a header; empty lines are skipped.

    Cells are divided by whichever of comma, semicolon and tab the header holds most of. Where that is no
    comma, numbers may have a decimal comma, as spreadsheets in many languages write them.

    Raises:
        DataError: not UTF-8 or not CSV.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        divider = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=divider, strict=True)
        lines = [(f"line {reader.line_num}", [_bare(cell) for cell in cells]) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 CSV file ({error})") from error
    columns = lines[0][1] if lines else []
    if divider != ",":
        lines = [
            (where, [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells])
            for where, cells in lines
        ]
    return Table(columns, lines[1:])


def _bare(text: str) -> str:
    """Return a text without blanks and invisible signs (zero-width, byte order marks) around it."""
    return text.strip().strip("\u200b\u200c\u200d\u2060\ufeff").strip()


def read_rows(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Read a label file as what its name ends in: an Excel file, a text of words, else a CSV file.

    Args:
        path: the file.
        columns: those that it must have; all that a text has, in order.
        sheet: of an Excel file.

    Raises:
        DataError: it cannot be read so.
    """
    if path.suffix == ".xlsx":
        return read_sheet(path, columns, sheet)
    return read_words(path, columns) if path.suffix == ".txt" else read_csv(path, columns)


def read_csv(path: Path, required: Sequence[str]) -> list[Row]:
    """Read a CSV file as `read_table` does, whose rows must be whole.

    Raises:
        DataError: not UTF-8 or not CSV, a column missing, or a row with too many or too few cells.
    """
    columns, rows = read_table(path)
    require_columns(path, columns, required)
    for where, cells in rows:
        if len(cells) != len(columns):
            raise DataError(f"{path}, {where}: expected {len(columns)} cells")
    return [Row(where, dict(zip(columns, cells, strict=True))) for where, cells in rows]


def require_columns(
    path: Path | str, columns: Sequence[str], required: Sequence[str], *, hint: str = ""
) -> None:
    """Raise `DataError` unless a table has all required columns; a hint ends its message."""
    missing = [name for name in required if name not in columns]
    if missing:
        found = ", ".join(columns) or "none"
        raise DataError(f"{path}: no column {' and no column '.join(missing)}; found: {found}{hint}")


def read_words(path: Path, columns: Sequence[str]) -> list[Row]:
    """Read a text file of words divided by blanks, one row a line; empty lines are skipped.

    Raises:
        DataError: not text, or a line with another number of words.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != len(columns):
            raise DataError(f"{path}, line {number}: expected {len(columns)} words ({' '.join(columns)})")
        rows.append(Row(f"line {number}", dict(zip(columns, words, strict=True))))
    return rows


def read_mat(path: Path, variable: str) -> list[Any]:
    """Read one variable of a MATLAB file as a flat list of numbers or texts.

    Raises:
        DataError: no MATLAB file up to version 7, no such variable, or one of absurd size.
    """
    from scipy.io import loadmat, whosmat

    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        if variable not in shapes:
            from iqa_models.registry import did_you_mean  # loads torch, which no sound file needs

            near = did_you_mean(variable, shapes)
            raise DataError(f"{path}: no variable {variable!r}{near}; found: {', '.join(shapes) or 'none'}")
        count = math.prod(shapes[variable])
        if count > _MOST_VALUES:
            raise DataError(f"{path}: {variable!r} holds {count} values; that is no label file")
        # Squeezed, a cell is the text or number in it, however deep MATLAB has wrapped it.
        values = np.ravel(loadmat(path, variable_names=[variable], squeeze_me=True)[variable])
    except NotImplementedError as error:
        raise DataError(f"{path}: a MATLAB 7.3 file; save it as version 7 (save -v7)") from error
    except DataError:
        raise
    except Exception as error:  # the parser answers damage with almost any exception
        raise DataError(f"{path}: cannot be read as a MATLAB file ({error})") from error
    return list(values.tolist())


def read_sheet(path: Path, required: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Read a sheet of an Excel file whose header row holds the required columns.

    Args:
        path: the .xlsx file.
        required: columns; the first row that holds all of them is the header.
        sheet: name of the sheet, the first one if None.

    Raises:
        DataError: openpyxl is missing, no Excel file, or no such sheet or header.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(
            f"{path}: reading Excel files needs openpyxl (pip install 'iqa-harness[data]'); or save "
            f"the sheet as {path.stem}.csv beside it"
        ) from error
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MOST_BYTES:
                raise DataError(f"{path}: unpacks to over {_MOST_BYTES >> 20} MB")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            if sheet is not None and sheet not in book.sheetnames:
                raise DataError(f"{path}: no sheet {sheet!r}; found: {', '.join(book.sheetnames)}")
            table = book[sheet] if sheet else book.worksheets[0]
            return _below_header(path, list(table.iter_rows(values_only=True)), required)
        finally:
            book.close()
    except DataError:
        raise
    except Exception as error:  # zip, XML and openpyxl itself answer damage with almost any exception
        raise DataError(f"{path}: cannot be read as an Excel file ({error})") from error


def _below_header(path: Path, table: list[tuple[Any, ...]], required: Sequence[str]) -> list[Row]:
    for first, cells in enumerate(table):
        names = ["" if cell is None else str(cell).strip() for cell in cells]
        if all(name in names for name in required):
            return [
                Row(f"row {number}", {n: c for n, c in zip(names, row, strict=False) if n})
                for number, row in enumerate(table[first + 1 :], start=first + 2)
                if any(cell is not None for cell in row)
            ]
    raise DataError(f"{path}: no row holds the columns {', '.join(required)}")


class Scored(NamedTuple):
    """One image of a JSON list."""

    where: str
    image: str
    """Base name of the file."""
    score: Any


def read_scored_list(path: Path) -> list[Scored]:
    """Read a JSON list of ``{"image": ..., "score": ...}``, as the SMART-IQA authors' splits are written.

    Raises:
        DataError: no JSON, no list, or an item without image or score, named by its place.
    """
    try:
        items = read_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a list of {{image, score}}")
    rows = []
    for place, item in enumerate(items):
        if not (isinstance(item, dict) and isinstance(item.get("image"), str) and "score" in item):
            raise DataError(f"{path}, item {place}: expected image and score, found {str(item)[:80]}")
        name = item["image"].replace("\\", "/").rpartition("/")[2]
        rows.append(Scored(f"{path.name} item {place}", name, item["score"]))
    return rows
