"""What a public data set looks like in the folder its authors ship."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from iqa_harness.data.listing import Entry, Listing, number
from iqa_harness.data.public.label_files import Row, read_rows
from iqa_harness.errors import DataError

SplitRule = Literal["official", "references", "random", "all"]


class Label(NamedTuple):
    """A label column and how it is read."""

    column: str
    low: float
    """Least value the column may have."""
    high: float
    """Greatest value the column may have."""
    pivot: float | None = None
    """None: higher is better already. Else ``mos = pivot - label``."""

    @property
    def mos_range(self) -> tuple[float, float]:
        """Ends of the label scale, higher for better."""
        return (
            (self.low, self.high) if self.pivot is None else (self.pivot - self.high, self.pivot - self.low)
        )

    @property
    def rule(self) -> str:
        """How the label becomes `mos`, in words."""
        return self.column if self.pivot is None else f"{self.pivot:g} - {self.column}"

    @property
    def direction(self) -> str:
        """Which way the file's own label runs."""
        better = "higher is better" if self.pivot is None else "lower is better; it is turned round"
        return f"{self.low:g} to {self.high:g}, {better}"

    def mos(self, raw: float) -> float:
        """Return the label with higher for better."""
        return raw if self.pivot is None else self.pivot - raw


@dataclass(frozen=True)
class Layout:
    """A public data set: where to get it, what its folder holds, how its labels are read."""

    name: str
    title: str
    images: int
    """Number of labelled images in the official release."""
    labels: tuple[Label, ...]
    """Label columns that can be chosen with ``?label=``; the first is the default."""
    url: str
    """Where the authors offer it."""
    holds: tuple[str, ...]
    """What the folder must hold, a line each."""
    terms: str
    """What is known of the licence."""
    splits: tuple[SplitRule, ...]
    """Split rules it can have; the first is the default."""
    read: Callable[[Reading], None]
    """Fills the listing of a `Reading`."""
    shares: tuple[int, int, int] = (8, 1, 1)
    """Train, val and test in proportion, where the rule is `references` or `random`."""
    advice: str = ""
    """What to know before using it."""
    ordinary: tuple[str, ...] = ()
    """Image files without a label that belong there, as shell patterns: originals, training images."""

    def label(self, column: str | None) -> Label:
        """Return a label by the name of its column, the default for None.

        Raises:
            DataError: no such label.
        """
        if column is None:
            return self.labels[0]
        for label in self.labels:
            if label.column == column:
                return label
        known = ", ".join(label.column for label in self.labels)
        raise DataError(f"data set {self.name!r} has no label {column!r}; there are: {known}")

    @property
    def fetch(self) -> str:
        """What to fetch and where to put it."""
        lines = "".join(f"\n    {line}" for line in self.holds)
        return f"{self.title}: get it from {self.url} and put it there so that the folder holds{lines}"


@dataclass
class Reading:
    """A layout being read from a folder."""

    layout: Layout
    label: Label
    root: Path
    options: dict[str, str]
    listing: Listing
    label_files: list[Path] = field(default_factory=list)

    def file(self, name: str) -> Path:
        """Return a label file the layout must have; for an Excel file a CSV of the same name will do.

        Raises:
            DataError: it is not there; the message says what to fetch and where to put it.
        """
        path = self.root / name
        text = path.with_suffix(".csv")
        found = text if path.suffix == ".xlsx" and text.is_file() else path
        if not found.is_file():
            raise self.missing(name)
        self.label_files.append(found)
        return found

    def rows(self, name: str, *columns: str, sheet: str | None = None) -> list[Row]:
        """Return the rows of such a file, which must have these columns, in a sheet of an Excel file.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        return read_rows(self.file(name), columns, sheet)

    def images_in(self, *names: str) -> str:
        """Return the first of these folders that is there.

        Raises:
            DataError: none is.
        """
        for name in names:
            if self.listing.folder.has_folder(name):
                return name
        raise self.missing(" or ".join(f"{name}/" for name in names))

    def missing(self, what: str) -> DataError:
        """Return the error for something the folder lacks."""
        return DataError(f"{self.root}: no {what}\n  {self.layout.fetch}")

    def add(
        self,
        where: str,
        image_id: str,
        path: str,
        raw: object,
        *,
        reference: str | None = None,
        distortion: str | None = None,
        level: int | None = None,
        split: str = "",
    ) -> None:
        """Add a labelled image; a label that is no number or out of range is a finding."""
        label, value = self.label, number(raw)
        if not math.isfinite(value):
            self.listing.find(where, "label", f"{label.column} {raw!r} is not a finite number")
        elif not label.low <= value <= label.high:
            self.listing.find(
                where, "range", f"{label.column} {value:g} is outside {label.low:g} to {label.high:g}"
            )
        self.listing.add(
            Entry(
                where=where,
                image_id=image_id,
                path=path,
                raw=value,
                mos=label.mos(value),
                reference=reference or image_id,
                distortion=distortion,
                level=level,
                split=split,
            )
        )
