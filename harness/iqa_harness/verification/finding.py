"""What a verification says of a run, one record a contradiction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from iqa_harness.cells.plan import Cell
from iqa_results import CellRecord

ORDER = ("manifest", "part", "data", "model", "check", "row", "cell", "table")
"""Kinds of findings, causes before what follows from them."""


Place = tuple[str, str, float, str, int]
"""What names a cell in words: model, attack, radius, split, first image."""


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    what: str
    """One of ORDER."""
    where: str
    """Which one."""
    detail: str
    """What is stored and what was found."""


def within(a: Any, b: Any, bound: float) -> bool:
    """Return whether two stored values agree: numbers up to a bound, everything else exactly.

    Written for what is allowed: a NaN agrees with nothing.
    """
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= bound
    return bool(a == b)


def shown(value: Any) -> str:
    """Write a value of a row."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def row_name(row: Mapping[Any, Any]) -> str:
    """Name a row in words, without its model."""
    if row["attack"] == "clean":
        return f"clean, image {row['image_id']}"
    return (
        f"{row['attack']}/{row['objective']} at {row['epsilon'] * 255:.3g}/255, {row['steps']} steps, "
        f"image {row['image_id']}"
    )


def cell_name(cell: Cell | CellRecord) -> str:
    """Name a cell in words."""
    model, attack, epsilon, _, first = place_of(cell)
    return f"{model}, {attack} at {epsilon * 255:.3g}/255, images from {first}"


def place_of(cell: Cell | CellRecord) -> Place:
    """Name a cell by what it is of."""
    if isinstance(cell, Cell):
        return cell.label, cell.attack_name, cell.epsilon, cell.split, cell.first
    return cell.model, cell.attack, cell.epsilon, cell.split, cell.first
