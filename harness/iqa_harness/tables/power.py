"""From stored rows of plants to the power of the attacks, grade by grade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scipy.special import betaincinv

from iqa_harness.evidence.plants import MUST_FIND
from iqa_results import ModelRecord, Plant, Power, ResultStore

ANY = "any"
"""Stands for all attacks together: what at least one of them found."""


def plants_of(store: ResultStore, run: str, models: Iterable[ModelRecord]) -> dict[str, list[Plant]]:
    """Return the rows of the plants of a run's models as they are now, by name; none without a power test.

    Raises:
        BadPart: the file is damaged.
    """
    names = {(model.name, model.sha256): model.name for model in models}
    found: dict[str, list[Plant]] = {name: [] for name in names.values()}
    for row in store.read_rows(run, "plants"):
        if (row.model, row.model_sha256) in names:
            found[row.model].append(row)
    return found


def power_rows(model: str, plants: Sequence[Plant]) -> list[Power]:
    """Return a model's rows: of every attack and of all together, all that must be found and each grade."""
    attacks = list(dict.fromkeys(plant.attack for plant in plants))
    grades = sorted({(plant.width, plant.steepness) for plant in plants}, reverse=True)
    rows = []
    for attack in [ANY, *attacks] if attacks else []:
        mine = [plant for plant in plants if attack in (ANY, plant.attack)]
        rows.append(_row(model, attack, None, [p for p in mine if p.steepness >= MUST_FIND]))
        rows += [_row(model, attack, g, [p for p in mine if (p.width, p.steepness) == g]) for g in grades]
    return [row for row in rows if row.plants]


def _row(model: str, attack: str, grade: tuple[float, float] | None, plants: Sequence[Plant]) -> Power:
    each: dict[tuple[str, float, float], bool] = {}
    for plant in plants:
        place = (plant.image_id, plant.width, plant.steepness)
        each[place] = each.get(place, False) or plant.found
    found, count = sum(each.values()), len(each)
    width, steepness = grade or (None, None)
    low, high = interval(found, count) if count else (0.0, 1.0)
    return Power(model, attack, width, steepness, count, found, found / max(count, 1), low, high)


def interval(found: int, count: int) -> tuple[float, float]:
    """Return the 95 % Clopper-Pearson interval of a share: found of count, at least 1."""
    low = float(betaincinv(found, count - found + 1, 0.025)) if found else 0.0
    high = float(betaincinv(found + 1, count - found, 0.975)) if found < count else 1.0
    return low, high
