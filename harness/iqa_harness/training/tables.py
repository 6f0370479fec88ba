"""Tables of trained models: mean and deviation over seeds, on the terminal and in files."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iqa_harness.training.figures import Figures
from iqa_reports import Entry, TableView, markdown_table, text
from iqa_reports.formats.csv_table import write_csv
from iqa_reports.formats.markdown import escape
from iqa_reports.table_view import Group, columns, label, stub
from iqa_results import write_whole

METRICS = (("test", "srocc"), ("test", "plcc"), ("test", "krocc"), ("val", "srocc"), ("val", "plcc"))
"""Split and metric of the columns, in order."""


class Spread(NamedTuple):
    """A figure over seeds."""

    mean: float | None
    """None if no seed has the figure."""
    std: float | None
    """Sample standard deviation, None for fewer than two seeds."""

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return the spread of values; one that does not exist makes the whole undefined, not smaller."""
        if not values or any(value is None for value in values):
            return cls(None, None)
        known = [value for value in values if value is not None]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        return cls(math.fsum(known) / len(known), deviation)

    @property
    def entry(self) -> Entry:
        """``0.8580 ± 0.0040``, or a dash."""
        if self.mean is None:
            return Entry(text.DASH, "missing")
        deviation = "" if self.std is None else f" ± {self.std:.4f}"
        return Entry(text.number(self.mean, 4) + deviation, "number", number=self.mean)


class Table(NamedTuple):
    """Rows of plain values under names for programs, and the same as people see it."""

    rows: list[dict[str, object]]
    """All of the same names."""
    view: TableView


def seed_table(runs: Sequence[tuple[int, Figures]], warnings: Sequence[str] = ()) -> Table:
    """Return a row a seed, and a last one of mean and deviation; what the settings warn of stands beneath."""
    names = [f"{split}_{metric}" for split, metric in METRICS]
    rows: list[dict[str, object]] = []
    entries = []
    for seed, figures in runs:
        values = [figures.value(split, metric) for split, metric in METRICS]
        cost = {"epoch": figures.epoch, "seconds": figures.seconds}
        rows.append({"seed": str(seed), **dict(zip(names, values, strict=True)), **cost})
        ends = (Entry(f"{value:.0f}", "number", number=value) for value in cost.values())
        entries.append((label(str(seed)), *(Spread(value, None).entry for value in values), *ends))
    spreads = [Spread.of([figures.value(split, metric) for _, figures in runs]) for split, metric in METRICS]
    for kind in ("mean", "std"):
        part = {name: getattr(spread, kind) for name, spread in zip(names, spreads, strict=True)}
        rows.append({"seed": kind, **part, "epoch": None, "seconds": None})
    entries.append((label("mean ± std"), *(spread.entry for spread in spreads), label(""), label("")))
    groups = (*metric_columns(), columns("epoch", "seconds"))
    raw = raw_notes([(f"seed {seed}", figures) for seed, figures in runs])
    notes = (*(("", words) for words in warnings), *raw)
    return Table(rows, TableView("seeds", "", stub("seed"), groups, tuple(entries), notes))


def raw_notes(runs: Sequence[tuple[str, Figures]]) -> tuple[tuple[str, str], ...]:
    """Return the note of a table that says which runs, by name, have no PLCC behind a logistic."""
    raw = [name for name, figures in runs if any(part.plcc_is_raw for part in figures.splits)]
    whose = "all runs" if len(raw) == len(runs) else ", ".join(raw)
    return (("", f"PLCC of {whose} is of raw scores: no logistic could be fitted on val."),) if raw else ()


def metric_columns() -> list[Group]:
    """Return the columns of METRICS, by split."""
    splits = dict.fromkeys(split for split, _ in METRICS)
    return [columns(*(m.upper() for s, m in METRICS if s == split), group=split) for split in splits]


def write_table(base: Path, title: str, table: Table, notes: Sequence[str] = ()) -> list[Path]:
    """Write a table as ``.csv``, ``.parquet`` (plain values) and ``.md`` (for people); return the paths.

    Args:
        base: path without a suffix; its folder is made.
        title: heads the Markdown.
        table: what to write.
        notes: sentences beneath the Markdown table.
    """
    import pandas as pd

    lines = io.StringIO()
    write_csv(lines, [list(table.rows[0]), *(row.values() for row in table.rows)])
    parts = [f"# {escape(title)}", markdown_table(table.view), "\n".join(f"- {escape(n)}" for n in notes)]
    contents = {
        ".csv": lines.getvalue().encode(),
        ".parquet": pd.DataFrame(table.rows).to_parquet(index=False),
        ".md": ("\n\n".join(filter(None, parts)) + "\n").encode(),
    }
    paths = []
    for suffix, content in contents.items():
        paths.append(base.with_name(f"{base.name}{suffix}"))
        write_whole(paths[-1], content)
    return paths
