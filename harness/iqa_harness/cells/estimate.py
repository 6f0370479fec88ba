"""What is left to do costs about so much: gradients, forwards, seconds where the store knows the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from iqa_attacks import Attack, Universal
from iqa_harness.cells.plan import Cell
from iqa_results import RunManifest


class Estimate(NamedTuple):
    """Work of some cells, rounded to nothing: an expectation, not a bound."""

    cells: int
    forwards: float
    """Model evaluations of the attacks, a gradient's own included."""
    backwards: float
    """Of them with a gradient."""
    seconds: float | None
    """On one worker such as those that computed the stored cells; None if a model has none stored."""


class Experience:
    """What the stored cells of a store cost, by attack and by model."""

    def __init__(self, manifests: Iterable[RunManifest]) -> None:
        """Take the manifests of the store's runs."""
        self._attacks: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
        self._models: dict[str, list[float]] = {}
        self._timed: dict[str, float] = {}
        for manifest in manifests:
            hashes = {model.name: model.sha256 for model in manifest.models}
            for cell in manifest.cells:
                if cell.status != "done" or not cell.forwards:
                    continue
                attack = (manifest.suite_sha256, cell.attack, cell.epsilon)
                each = (cell.forwards / cell.count, cell.backwards / cell.count)
                self._attacks.setdefault(attack, []).append(each)
                spent = self._models.setdefault(hashes[cell.model], [0.0, 0.0])
                spent[0] += cell.seconds
                spent[1] += cell.forwards + cell.backwards

    def learn(self, model_sha256: str, seconds: float) -> None:
        """Take the time of one gradient of a model, for where the store has none of its cells.

        A forward pass counts as a third of it: the way back is two ways there.
        """
        self._timed[model_sha256] = seconds

    def of(self, cells: Sequence[Cell], suite_sha256: str) -> Estimate:
        """Estimate the work of some cells of a suite."""
        forwards = backwards = 0.0
        seconds: float | None = 0.0
        for cell in cells:
            known = self._attacks.get((suite_sha256, cell.attack_name, cell.epsilon))
            each = _mean(known) if known else _expected(cell)
            forwards += each[0] * cell.count
            backwards += each[1] * cell.count
            rate = self._models.get(cell.model_sha256)
            timed = self._timed.get(cell.model_sha256)
            if seconds is not None and rate and rate[1]:
                seconds += sum(each) * cell.count * rate[0] / rate[1]
            elif seconds is not None and timed is not None:
                seconds += (2 * each[1] + each[0]) * cell.count * timed / 3
            else:
                seconds = None
        return Estimate(len(cells), forwards, backwards, seconds if cells else 0.0)


def dearest_first(groups: Sequence[Sequence[Cell]], experience: Experience, suite_sha256: str) -> list[int]:
    """Return the places of groups of cells, the dearest first: workers that take them so end together.

    By the seconds that stored cells of the same models took, by gradients and evaluations where one has none.
    """
    found = [experience.of(group, suite_sha256) for group in groups]
    seconds = [each.seconds for each in found]
    if None in seconds:
        costs = [
            each.forwards + 2 * each.backwards for each in found
        ]  # a gradient's way back is two ways there
    else:
        costs = [each or 0.0 for each in seconds]
    return sorted(range(len(groups)), key=lambda place: -costs[place])


def by_model_and_attack(cells: Iterable[Cell]) -> Mapping[tuple[str, str], list[Cell]]:
    """Group cells for a table, in the order of the plan."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.label, cell.attack_name), []).append(cell)
    return groups


def _mean(each: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(f for f, _ in each) / len(each), sum(b for _, b in each) / len(each)


def _expected(cell: Cell) -> tuple[float, float]:
    """Return forwards and backwards an image of an attack nobody has run yet."""
    draws = cell.draws or 1
    if cell.attack is None:
        return draws * (1.0 + cell.gradient), float(draws * cell.gradient)
    if cell.surrogate is not None:
        return 2.0 * draws, 0.0
    if isinstance(cell.attack, Universal):
        each = float(len(cell.attack.objectives) * draws)
        steps = cell.attack.effort.steps
        training = each * steps * cell.attack.batch / cell.count if cell.first == 0 else 0.0
        return each + training, training
    return expected_work(cell.attack, draws, sources=len(cell.sources))


def expected_work(
    attack: Attack,
    draws: int = 1,
    *,
    sources: int = 1,
    objectives: int | None = None,
    steps: int | None = None,
) -> tuple[float, float]:
    """Return forwards and backwards an image of an attack that needs no training.

    Args:
        attack: at one radius.
        draws: evaluations at every point.
        sources: models whose gradients it follows, one after the other.
        objectives: as if it had so many of them, its own number if left out.
        steps: as if it went so many, its own number if left out.
    """
    effort = attack.effort
    objectives = len(attack.objectives) if objectives is None else objectives
    points = (effort.steps if steps is None else steps) * effort.restarts * draws * sources
    if not attack.needs_gradient:
        return float(points * objectives), 0.0
    # Objectives share a gradient wherever they agree which way the score should go: there are two ways.
    ways = min(2, objectives)
    return float(ways * points + 2 * draws), float(ways * points)
