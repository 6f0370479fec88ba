"""Values the papers print, kept in `published.toml` with their source; shown beside ours, never mixed in."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

Record = dict[str, str | int | float]
"""A row by the names of its columns."""


class Paper(NamedTuple):
    """Where values come from."""

    title: str
    source: str
    caveat: str


class PublishedTable(NamedTuple):
    """One table as printed."""

    paper: str
    table: str
    """Its number in the paper."""
    name: str
    """What it is about; unique in a paper."""
    data: str
    """Image set of all its values, '' if a column says."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]
    note: str = ""

    def records(self) -> list[Record]:
        """Return each row by the names of the columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Claim(NamedTuple):
    """What a paper says in words about a table."""

    paper: str
    table: str
    text: str


class Published(NamedTuple):
    """The whole file."""

    papers: dict[str, Paper]
    tables: tuple[PublishedTable, ...]
    claims: tuple[Claim, ...]

    def table(self, paper: str, name: str) -> PublishedTable:
        """Return one table."""
        return next(t for t in self.tables if (t.paper, t.name) == (paper, name))

    def claims_on(self, paper: str, table: str) -> list[str]:
        """Return what a paper says about one of its tables, with its source."""
        source = self.papers[paper].source
        return [
            f"published ({source}): {c.text}" for c in self.claims if (c.paper, c.table) == (paper, table)
        ]


@cache
def load_published() -> Published:
    """Return the values that ship with the package."""
    file = resources.files("iqa_reports") / "published.toml"
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    return Published(
        {name: Paper(**paper) for name, paper in found["papers"].items()},
        tuple(PublishedTable(**table) for table in found["tables"]),
        tuple(Claim(**claim) for claim in found["claims"]),
    )
