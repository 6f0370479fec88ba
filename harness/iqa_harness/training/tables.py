"""Tables of trained models: mean and deviation over seeds, on the terminal and in files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iqa_harness.training.figures import Figures
from iqa_models.checkpoint import write_atomically

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
    def text(self) -> str:
        """``.858 ± .004``, or ``-``."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.4f}" + (f" ± {self.std:.4f}" if self.std is not None else "")


class Table(NamedTuple):
    """Rows of plain values under names, and the same as texts for people."""

    columns: tuple[str, ...]
    rows: list[dict[str, object]]
    shown: tuple[str, ...]
    """Heads of the columns people see."""
    texts: list[tuple[str, ...]]


def seed_table(runs: Sequence[tuple[int, Figures]]) -> Table:
    """Return a row a seed, and a last one of mean and deviation."""
    names = [f"{split}_{metric}" for split, metric in METRICS]
    rows: list[dict[str, object]] = []
    texts = []
    for seed, figures in runs:
        values = [figures.value(split, metric) for split, metric in METRICS]
        rows.append(
            {
                "seed": str(seed),
                "epoch": figures.epoch,
                "seconds": figures.seconds,
                **dict(zip(names, values, strict=True)),
            }
        )
        texts.append(
            (
                str(seed),
                *("-" if v is None else f"{v:.4f}" for v in values),
                str(figures.epoch),
                f"{figures.seconds:.0f}",
            )
        )
    spreads = [Spread.of([figures.value(split, metric) for _, figures in runs]) for split, metric in METRICS]
    for kind in ("mean", "std"):
        part = {name: getattr(spread, kind) for name, spread in zip(names, spreads, strict=True)}
        rows.append({"seed": kind, "epoch": None, "seconds": None, **part})
    texts.append(("mean ± std", *(spread.text for spread in spreads), "", ""))
    heads = ("seed", *(f"{split} {metric.upper()}" for split, metric in METRICS), "epoch", "seconds")
    return Table(("seed", *names, "epoch", "seconds"), rows, heads, texts)


def write_table(base: Path, title: str, table: Table, notes: Sequence[str] = ()) -> list[Path]:
    """Write a table as ``.csv``, ``.parquet`` (plain values) and ``.md`` (texts); return the paths.

    Args:
        base: path without a suffix; its folder is made.
        title: heads the Markdown.
        table: what to write.
        notes: sentences beneath the Markdown table.
    """
    import pandas as pd

    base.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(table.rows, columns=list(table.columns))
    paths = [base.with_suffix(suffix) for suffix in (".csv", ".parquet", ".md")]
    contents = (
        frame.to_csv(index=False).encode(),
        frame.to_parquet(index=False),
        markdown(title, table, notes).encode(),
    )
    for path, content in zip(paths, contents, strict=True):
        write_atomically(path, content)
    return paths


def markdown(title: str, table: Table, notes: Sequence[str] = ()) -> str:
    """Return a table as Markdown."""
    lines = [f"# {title}", "", f"| {' | '.join(table.shown)} |", "|" + "---|" * len(table.shown)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table.texts]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"
