"""Rows of the closed loop: the composed worst case, with what an adversary of the whole set found besides.

Below `composed` by construction: its choice is a start of the same search over more candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from iqa_attacks import ClosedLoop
from iqa_harness.measures.correlation import METRICS, Metric
from iqa_harness.measures.model_scores import Attacked, AttackKey
from iqa_harness.tables.expected import Planned
from iqa_harness.tables.minima import Attacks, Ball, WorstRow, compose, not_composed, undefined
from iqa_harness.tables.rows import RowMaker, Scores


def without_loops(attacks: Attacks, plan: Planned) -> tuple[Attacks, frozenset[str]]:
    """Return the attacks without those of the closed loop, and the names of these."""
    loops = plan.loops | {key.attack for key, found in attacks.found.items() if _is_loop(found)}
    return (
        Attacks(
            {key: found for key, found in attacks.found.items() if key.attack not in loops},
            {key: hole for key, hole in attacks.holes.items() if key.attack not in loops},
        ),
        loops,
    )


def _is_loop(found: Attacked) -> bool:
    return str(found.rows["kind"].iloc[0]) == ClosedLoop.kind


def closed_loop_rows(
    make: RowMaker,
    attacks: Attacks,
    balls: Iterable[Ball],
    loops: frozenset[str],
    composed: Mapping[tuple[Ball, Metric], Scores],
) -> list[WorstRow]:
    """Compose the worst case at every radius of a closed loop, from what it and all others found.

    Args:
        make: of the model.
        attacks: all on it, the ends of all scores and the closed loops among them.
        balls: every norm and radius that was attacked, or was to be.
        loops: names of the closed loops.
        composed: the scores of the composed worst case, by ball and metric.
    """
    made: list[WorstRow] = []
    mine = [cell for cell in make.manifest.cells if cell.model == make.judged.model and cell.attack in loops]
    for ball in balls:
        if not any(cell.epsilon == ball[1] for cell in mine):
            continue
        inside = attacks.inside(ball)
        key = AttackKey("", "", *ball, max((k.steps for k in inside if k.attack in loops), default=0))
        reason = not_composed(make, attacks, ball, frozenset())
        if reason:
            made += undefined(make.undefined("closed_loop", reason, key))
            continue
        every = [Scores.of(found) for found in inside.values()]
        for metric in METRICS:
            scores = compose(make.judged, [*every, composed[ball, metric]], metric)
            row = make.defined("closed_loop", metric, scores, key)
            made.append(WorstRow(row, make.judged.estimate(scores.full, metric).replicates))
    return made
