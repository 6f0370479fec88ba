"""What a user writes after `--data`: one spelling for every command and for a suite's `[data]`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from iqa_harness.errors import DataError

ROOTS: Final = "IQA_HARNESS_DATA"
"""Environment variable: folders (divided as in PATH) that hold the sets, each in a folder of its name."""


class DataSource(NamedTuple):
    """A data set as the user named it."""

    name: str
    """Name of a set, or the path of a CSV file."""
    root: Path | None
    """Folder of the set, None if it is to be looked for (or is not needed)."""
    options: dict[str, str]


def parse_source(text: str, names: Iterable[str]) -> DataSource:
    """Read ``NAME``, ``NAME:FOLDER`` or ``FILE.csv``, each with ``?option=value&...`` if wanted.

    Args:
        text: what the user wrote.
        names: the sets there are; anything before a colon that is none of them belongs to a path.

    Raises:
        DataError: an option that is not ``key=value`` or is given twice, or no folder after the colon.
    """
    head, mark, query = (text, "", "") if Path(text).is_file() else text.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if mark else []:
        key, sign, value = part.partition("=")
        if not (key and sign and value):
            raise DataError(f"data {text!r}: option {part!r} is not key=value")
        if key in options:
            raise DataError(f"data {text!r}: option {key!r} is given twice")
        options[key] = unquote(value)
    name, colon, folder = head.partition(":")
    if not colon or name not in set(names):
        return DataSource(head, None, options)
    if not folder:
        raise DataError(f"data {text!r}: a folder must follow the colon, as in {name}:/path/to/folder")
    return DataSource(name, Path(folder).expanduser(), options)


def find_root(name: str) -> Path | None:
    """Return the folder `name` in one of the folders of `$IQA_HARNESS_DATA`, None if there is none."""
    for place in os.environ.get(ROOTS, "").split(os.pathsep):
        folder = Path(place).expanduser() / name
        if place and folder.is_dir():
            return folder
    return None
