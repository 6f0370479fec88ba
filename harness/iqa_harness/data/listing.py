"""A data set before any image is decoded: rows of a label file, the files they name, what is wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from iqa_harness.errors import DataError

SHOWN = 50
"""Findings spelled out in one error message; `data check` prints them all."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    where: str
    """Row of the label file, or the file."""
    kind: str
    """In one word: missing, truncated, cmyk, label, range, duplicate, outside, leak, ..."""
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.where else self.detail


class Entry(NamedTuple):
    """One row of a label file."""

    where: str
    """Where it stands: ``line 12``, ``row 7``, ``entry 3``."""
    image_id: str
    """Name of the image within the set, the same on every machine."""
    path: str
    """Path of the file as the row gives it, relative to the set's folder."""
    raw: float
    """The label as the file has it, NaN if it is no number."""
    mos: float
    """The label with higher for better."""
    reference: str
    """Content the image shows; the id itself if unknown."""
    distortion: str | None = None
    level: int | None = None
    split: str = ""
    """train, val or test by the set's own lists; empty if they do not say."""


@dataclass
class Listing:
    """The rows of a set with the files they name, and every finding so far."""

    folder: Folder
    entries: list[Entry] = field(default_factory=list)
    files: list[Path | None] = field(default_factory=list)
    """File of each entry, None if it could not be located."""
    findings: list[Finding] = field(default_factory=list)
    _seen: dict[Path, str] = field(default_factory=dict)

    def find(self, where: str, kind: str, detail: str) -> None:
        """Note that something is wrong."""
        self.findings.append(Finding(where, kind, detail))

    def add(self, entry: Entry) -> None:
        """Add a row, locating its file; a file named by two rows is a finding."""
        self.entries.append(entry)
        try:
            file = self.folder.locate(entry.path)
        except Unlocated as error:
            self.find(
                entry.where, error.kind, f"{entry.path}: {error.detail}" if entry.path else error.detail
            )
            self.files.append(None)
            return
        former = self._seen.setdefault(file, entry.where)
        if former != entry.where:
            self.find(entry.where, "duplicate", f"{entry.path}: the same file as {former}")
            self.files.append(None)
        else:
            self.files.append(file)

    def keep(self, chosen: Sequence[int]) -> None:
        """Keep the entries at `chosen`, in that order."""
        self.entries = [self.entries[i] for i in chosen]
        self.files = [self.files[i] for i in chosen]

    def leaks(self) -> None:
        """Note each row whose reference has already been seen in another split."""
        home: dict[str, Entry] = {}
        for entry in self.entries:
            first = home.setdefault(entry.reference, entry)
            if first.split != entry.split:
                self.find(
                    entry.where,
                    "leak",
                    f"reference {entry.reference!r} is in {entry.split}, "
                    f"but on {first.where} in {first.split}",
                )


class Unlocated(Exception):
    """A name that leads to no file of the set."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class Folder:
    """The folder of a set: gives files by relative name, and never one outside it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._names: dict[Path, dict[str, list[str]]] = {}

    def locate(self, name: str) -> Path:
        """Return the file of a relative path, links followed; case counts only if it must.

        Raises:
            Unlocated: an empty or absolute name, one that leaves the folder (through a link as well), or no
                such file.
        """
        if not name or "\0" in name:
            raise Unlocated("outside", "path is empty or holds a NUL byte")
        relative = Path(name)
        try:
            if relative.is_absolute() or not (self.root / name).resolve().is_relative_to(self.root):
                raise Unlocated("outside", "leaves the folder of the set")
            target = self.root / relative
            if not target.is_file():
                target = self._ignoring_case(target)
            resolved = target.resolve()
        except (OSError, RuntimeError) as error:  # a name of absurd length, a circle of links
            raise Unlocated("missing", f"no such file ({error})") from error
        if not resolved.is_relative_to(self.root):
            raise Unlocated("outside", "leaves the folder of the set")
        return resolved

    def _ignoring_case(self, target: Path) -> Path:
        names = self._names.get(target.parent)
        if names is None:
            names = {}
            try:
                with os.scandir(target.parent) as found:
                    for item in found:
                        names.setdefault(item.name.casefold(), []).append(item.name)
            except OSError:
                names = {}
            self._names[target.parent] = names
        close = names.get(target.name.casefold(), [])
        if len(close) > 1:
            raise Unlocated("missing", f"no such file, but {' and '.join(sorted(close))}: which is it?")
        if not close or not (target.parent / close[0]).is_file():
            raise Unlocated("missing", "no such file")
        return target.parent / close[0]

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of that relative name."""
        return (self.root / name).is_dir()


def number(text: object) -> float:
    """Return the number a cell holds, NaN if it holds none."""
    if isinstance(text, bool) or not isinstance(text, (int, float, str)):
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def refuse(path: Path, findings: Sequence[Finding], hint: str = "") -> None:
    """Raise `DataError` with all findings (the first `SHOWN` spelled out), if there are any."""
    if not findings:
        return
    lines = [str(finding) for finding in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"and {len(findings) - SHOWN} more; `iqa-harness data check` prints them all")
    if hint:
        lines.append(hint)
    raise DataError(f"{path}: {len(findings)} problem(s)\n  " + "\n  ".join(lines))
