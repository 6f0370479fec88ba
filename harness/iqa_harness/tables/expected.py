"""What a run planned of one model and does not have: attacks without a row, radii without a cell."""

from __future__ import annotations

from typing import NamedTuple

from iqa_attacks import ClosedLoop
from iqa_harness.measures.model_scores import AttackKey
from iqa_results import RunManifest
from iqa_suites import Suite, parse_suite


class Planned(NamedTuple):
    """The attacks on one model as the suite has them; empty for a run without the suite's text."""

    keys: dict[AttackKey, bool]
    """Every row that the finished run would have, True for full strength."""
    norm: str | None
    """Norm of the suite's balls, None if it is not known."""
    loops: frozenset[str] = frozenset()
    """Names of the closed loops, where the suite was read."""


def planned_attacks(manifest: RunManifest, model: str) -> Planned:
    """Return what a run planned of one model.

    The suite is read only where cells are missing: the rows of a whole run say it themselves.

    Raises:
        BadSuite: cells are missing and the manifest's suite is none of this version.
    """
    cells = [c for c in manifest.cells if c.model == model]
    if all(c.status == "done" for c in cells) or not manifest.suite_text:
        return Planned({}, None)
    suite = parse_suite(manifest.suite_text, f"suite of run {manifest.run}")
    keys: dict[AttackKey, bool] = {}
    for attack, epsilon in dict.fromkeys((c.attack, c.epsilon) for c in cells if c.attack != "clean"):
        keys |= _keys(suite, attack, epsilon)
    loops = frozenset(own.name for own in suite.own_attacks if own.kind == ClosedLoop.kind)
    return Planned(keys, suite.norm, loops)


def _keys(suite: Suite, attack: str, epsilon: float) -> dict[AttackKey, bool]:
    """Return the rows of one attack at one radius; a transfer has the prefixes of its source."""
    name = attack.partition(":")[0]
    sources = {transfer.name: transfer.source for transfer in suite.transfers}
    source, objective = sources.get(name, (name, None))
    settings = next((own for own in suite.own_attacks if own.name == source), None)
    if settings is None:
        return {}  # a plan of another suite; its cells count as missing all the same
    made = settings.attack(epsilon, suite.seed, suite.eot_samples)
    full = made.effort.steps
    return {
        AttackKey(attack, each, settings.norm, epsilon, steps): steps == full
        for each in ((objective,) if objective else settings.objectives)
        for steps in sorted({*getattr(made, "report_steps", ()), full})
    }


def cells_at(manifest: RunManifest, model: str, epsilon: float) -> dict[str, bool]:
    """Return the attacks planned at a radius, and whether all their cells are there."""
    done: dict[str, bool] = {}
    for cell in manifest.cells:
        if cell.model == model and cell.attack != "clean" and cell.epsilon == epsilon:
            done[cell.attack] = done.get(cell.attack, True) and cell.status == "done"
    return done
