"""Values the papers print, kept in `published.toml` with their source; shown beside ours, never mixed in."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from iqa_reports.errors import BadPublished

Record = dict[str, str | int | float]
"""A row by the names of its columns."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(_Record):
    """Where values come from."""

    title: str
    source: str
    caveat: str


class PublishedTable(_Record):
    """One table as printed."""

    paper: str
    table: str
    """Its number in the paper."""
    name: str
    """What it is about; unique in a paper."""
    data: str
    """Image set of all its values, '' if a column says."""
    note: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]

    @model_validator(mode="after")
    def _rows_fit(self) -> PublishedTable:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.table}: row {row[0]!r} has {len(row)} of {len(self.columns)}")
        return self

    def records(self) -> list[Record]:
        """Return each row by the names of the columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Claim(_Record):
    """What a paper says in words about a table."""

    paper: str
    table: str
    text: str


class Published(_Record):
    """The whole file."""

    papers: dict[str, Paper]
    tables: tuple[PublishedTable, ...]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _papers_are_known(self) -> Published:
        named = [(t.paper, t.table) for t in self.tables] + [(c.paper, c.table) for c in self.claims]
        for paper, table in named:
            if paper not in self.papers:
                raise ValueError(f"table {table} is of a paper without a source: {paper!r}")
        return self

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
    """Return the values that ship with the package.

    Raises:
        BadPublished: the file breaks its layout.
    """
    file = resources.files("iqa_reports") / "published.toml"
    try:
        return Published.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise BadPublished(f"published.toml: {error}") from error
