"""A data set before any image is decoded: rows of a label file, the files they name, what is wrong."""

from __future__ import annotations

import contextlib
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from iqa_harness.data.image_set import ImageRecord
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

    def record(self, sha256: str) -> ImageRecord:
        """Return what a set keeps of it, with the hash of its pixels."""
        return ImageRecord(
            self.image_id, self.mos, self.split, self.reference, self.distortion, self.level, sha256
        )


@dataclass
class Listing:
    """The rows of a set with the files they name, and every finding so far."""

    folder: Folder
    entries: list[Entry] = field(default_factory=list)
    files: list[Path | None] = field(default_factory=list)
    """File of each entry, None if it could not be located."""
    findings: list[Finding] = field(default_factory=list)
    """What keeps the set from being opened."""
    remarks: list[Finding] = field(default_factory=list)
    """What does not: `data check` reports it all the same."""
    _seen: dict[Path, str] = field(default_factory=dict)

    def find(self, where: str, kind: str, detail: str) -> None:
        """Note that something is wrong."""
        self.findings.append(Finding(where, kind, detail))

    def remark(self, where: str, kind: str, detail: str) -> None:
        """Note something to know that does not keep the set from being opened."""
        self.remarks.append(Finding(where, kind, detail))

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

    def label_range(self, stated: tuple[float, float] | None) -> tuple[float, float]:
        """Return the ends of the label scale: as stated, else the lowest and highest label.

        Labels outside a stated range, and a range that is none, are findings.
        """
        if stated is None:
            finite = [entry.mos for entry in self.entries if math.isfinite(entry.mos)]
            low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
            if low == high:
                self.find("", "range", f"all labels are {low}: state the MOS range")
            return low, high
        low, high = float(stated[0]), float(stated[1])
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            self.find("", "range", f"MOS range {low}..{high}: the first end must be the lower one")
            return low, high
        for entry in self.entries:
            if entry.mos < low or entry.mos > high:
                self.find(entry.where, "range", f"mos {entry.mos} is outside the MOS range {low}..{high}")
        return low, high

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

    def copies(self, digests: Sequence[str]) -> int:
        """Remark on each row whose pixels stand in another split as well; return how many there are.

        Args:
            digests: pixel hash of every entry, empty where it is not known.
        """
        home: dict[str, Entry] = {}
        count = 0
        for entry, digest in zip(self.entries, digests, strict=True):
            first = home.setdefault(digest, entry)
            if digest and first.split != entry.split:
                count += 1
                self.remark(
                    entry.where,
                    "copy",
                    f"{entry.path} in {entry.split} shows the pixels of {first.path} ({first.where}) "
                    f"in {first.split}",
                )
        return count


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
                target = self._spelt_otherwise(relative)
            resolved = target.resolve()
        except (
            OSError,
            RuntimeError,
            UnicodeEncodeError,
        ) as error:  # too long, links in a circle, no text
            raise Unlocated("missing", f"no such file ({error})") from error
        if not resolved.is_relative_to(self.root):
            raise Unlocated("outside", "leaves the folder of the set")
        return resolved

    def _spelt_otherwise(self, relative: Path) -> Path:
        """Return the file whose parts differ from a name in case, Unicode form or kind of blank only."""
        target = self.root
        for part in relative.parts:
            exact = target / part
            if part == os.pardir or exact.exists():
                target = exact
                continue
            close = self._names_in(target).get(alike(part), [])
            if len(close) > 1:
                raise Unlocated("missing", f"no such file, but {' and '.join(sorted(close))}: which is it?")
            if not close:
                raise Unlocated("missing", "no such file")
            target /= close[0]
        if not target.is_file():
            raise Unlocated("missing", "no such file")
        return target

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """Return the names in a folder by what `alike` makes of them; none if it cannot be read."""
        if folder not in self._names:
            names = self._names[folder] = defaultdict[str, list[str]](list)
            with contextlib.suppress(OSError):
                for item in folder.iterdir():
                    names[alike(item.name)].append(item.name)
        return self._names[folder]

    def portable(self, name: str) -> str:
        """Return a relative path with slashes where it was written with backslashes, as on Windows."""
        exact = "\\" not in name or os.path.isfile(self.root / name)  # noqa: PTH113 - a bad name is no error
        return name if exact else name.replace("\\", "/")

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of that relative name."""
        return (self.root / name).is_dir()


def alike(name: str) -> str:
    """Return what names have in common that look alike: no case, Unicode form, kind of blank, invisible sign.

    macOS writes names in NFD and a narrow blank into those of its screenshots; a table rarely does.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in folded if unicodedata.category(sign) != "Cf").strip()


def number(cell: object) -> float:
    """Return the number a cell holds, NaN if it holds none."""
    if isinstance(cell, bool) or not isinstance(cell, (Real, str)) or (isinstance(cell, str) and "_" in cell):
        return math.nan  # Python would read 1_0 as ten
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return math.nan


_ROW = re.compile(r"(?:(.+) )?(?:line|row|entry|item) (\d+)")


def in_file_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of the files: the table as a whole, its rows, other lists, all else."""

    def place(finding: Finding) -> tuple[int, str, int]:
        row = _ROW.fullmatch(finding.where)
        return (1, row[1] or "", int(row[2])) if row else (2 if finding.where else 0, "", 0)

    return sorted(findings, key=place)


def refuse(path: Path | str, findings: Sequence[Finding], hint: str = "") -> None:
    """Raise `DataError` with all findings (the first `SHOWN` spelled out), if there are any."""
    if not findings:
        return
    lines = [str(finding) for finding in in_file_order(findings)[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"and {len(findings) - SHOWN} more; `iqa-harness data check` prints them all")
    if hint:
        lines.append(hint)
    raise DataError(f"{path}: {len(findings)} problem(s)\n  " + "\n  ".join(lines))
