"""Rows of the two worst cases: the suite's minimum over its members, and the composed one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from iqa_harness.measures.bootstrap import Replicates, lowest
from iqa_harness.measures.composed import Composed, composed_worst_case
from iqa_harness.measures.correlation import METRICS, Metric
from iqa_harness.measures.model_scores import Attacked, AttackKey, Hole, Judged
from iqa_harness.tables.expected import cells_at
from iqa_harness.tables.rows import RowMaker, Scores
from iqa_results import Estimate, Reach

Found = Mapping[AttackKey, Attacked]
Ball = tuple[str, float]
"""Norm and radius."""
Member = TypeVar("Member")


class Attacks(NamedTuple):
    """What the attacks on one model came to."""

    found: Found
    """Those on all images."""
    holes: Mapping[AttackKey, Hole]
    """Those on some of the images."""

    def is_final(self, key: AttackKey) -> bool:
        """Whether a result is one of full strength."""
        return (self.found.get(key) or self.holes[key]).final

    def inside(self, ball: Ball) -> dict[AttackKey, Attacked]:
        """Return what was found in a ball, also in a smaller one of the same norm."""
        norm, epsilon = ball
        return {k: a for k, a in self.found.items() if k.norm == norm and k.epsilon <= epsilon}

    def reason(self, key: AttackKey) -> str:
        """Say which attack leaves a hole, and why."""
        return f"{key.attack}/{key.objective}: {self.holes[key].reason}"


class WorstRow(NamedTuple):
    """A row of the table and the replicates of its value, None where it is undefined."""

    row: Estimate
    replicates: Replicates | None


def is_of(name: str, attack: str) -> bool:
    """Whether a name is an attack's; one that transfers has a name for every surrogate."""
    return name == attack or name.startswith(f"{attack}:")


def is_member(attack: str, objective: str, member: str) -> bool:
    """Whether results of an attack and objective belong to a member of a minimum, ATTACK/OBJECTIVE."""
    name, _, aim = member.partition("/")
    return objective == aim and is_of(attack, name)


def lowest_member(members: Mapping[Member, Replicates]) -> tuple[Member, Replicates]:
    """Return the member with the lowest value, and the minimum over all of them.

    The minimum is taken anew in every draw, so that the choice of the member is part of its interval; it is
    undefined if one of them is.
    """
    values = {member: each.point.value for member, each in members.items()}
    least = min(values, key=lambda m: math.inf if (value := values[m]) is None else value)
    return least, lowest(list(members.values()))


def suite_min_rows(make: RowMaker, attacks: Attacks, balls: Iterable[Ball]) -> list[WorstRow]:
    """Minimise over the suite's members at every radius, and at every prefix all members share.

    Args:
        make: of the model.
        attacks: on it, without the ends of all scores.
        balls: every norm and radius that was attacked, or was to be.
    """
    made: list[WorstRow] = []
    for norm, epsilon in balls:
        at = [k for k in (*attacks.found, *attacks.holes) if (k.norm, k.epsilon) == (norm, epsilon)]
        members = {m: [k for k in at if is_member(k.attack, k.objective, m)] for m in make.manifest.suite_min}
        lost = _lost(make, attacks, members, epsilon)
        if lost:
            record = next(m for m in make.manifest.models if m.name == make.judged.model)
            blind = record.card.get("has_gradient") is False
            why = "left out: the model has no gradient" if blind else "cells failed or not run"
            reason = f"no results of {', '.join(lost)} ({why})"
            made += undefined(make.undefined("suite_min", reason, AttackKey("", "", norm, epsilon, 0)))
        elif lost is not None:
            made += _minima(make, attacks, members)
    return made


def _lost(
    make: RowMaker, attacks: Attacks, members: Mapping[str, Sequence[AttackKey]], epsilon: float
) -> list[str] | None:
    """Name what a minimum at a radius lacks; None if it is not a radius of every member.

    At the main radius the members exist by the suite's own rules. One without its full strength, or a
    transfer without one of its surrogates, would leave a minimum over less than was planned.
    """
    planned = cells_at(make.manifest, make.judged.model, epsilon)
    lost: set[str] = set()
    for member, keys in members.items():
        attack, _, objective = member.partition("/")
        wanted = {name for name in planned if is_of(name, attack)} | {k.attack for k in keys}
        if not wanted and epsilon != make.manifest.main_epsilon:
            return None
        whole = {k.attack for k in keys if attacks.is_final(k)}
        lost |= {f"{name}/{objective}" for name in (wanted or {attack}) - whole}
    return sorted(lost)


def _minima(
    make: RowMaker, attacks: Attacks, members: Mapping[str, Sequence[AttackKey]]
) -> Iterator[WorstRow]:
    """Yield the minimum at full strength, and before it those of the prefixes that all members share."""
    every = [k for keys in members.values() for k in keys]
    whole = [k for k in every if attacks.is_final(k)]
    full = max(k.steps for k in whole)
    shared = set.intersection(*({k.steps for k in keys} for keys in members.values()))
    for steps in sorted(s for s in shared if s < full):
        prefix = [k for k in every if k.steps == steps]
        yield from (_minimum(make, attacks, prefix, (steps, False), m) for m in METRICS)
    yield from (_minimum(make, attacks, whole, (full, True), m) for m in METRICS)


def _minimum(
    make: RowMaker, attacks: Attacks, members: Sequence[AttackKey], at: tuple[int, bool], metric: Metric
) -> WorstRow:
    """Return the minimum over members at a number of steps, which may be the full one."""
    steps, final = at
    place = members[0]._replace(attack="", objective="", steps=steps)
    hole = next((k for k in members if k in attacks.holes), None)
    reason = None if hole is None else attacks.reason(hole)
    if reason is None:
        found = {k: make.judged.estimate(attacks.found[k].score, metric).replicates for k in members}
        reasons = (f"{k.attack}/{k.objective}: {e.point.undefined}" for k, e in found.items()
                     if e.point.value is None)  # fmt: skip
        reason = next(reasons, None)
    if reason is not None:
        return undefined(make.undefined("suite_min", reason, place, final=final, metrics=[metric]))[0]
    least, minimum = lowest_member(found)
    scores, key = Scores.of(attacks.found[least]), least._replace(steps=steps)
    row = make.defined("suite_min", metric, scores, key, final=final, replicates=minimum)
    return WorstRow(row, minimum)


def undefined(rows: Iterable[Estimate]) -> list[WorstRow]:
    """Return rows without a value as rows of a worst case."""
    return [WorstRow(row, None) for row in rows]


class ComposedRows(NamedTuple):
    """The composed worst cases of a model."""

    rows: list[WorstRow]
    chosen: dict[tuple[Ball, Metric], Scores]
    """Scores at full strength."""


def composed_rows(
    make: RowMaker, attacks: Attacks, balls: Iterable[Ball], loops: frozenset[str] = frozenset()
) -> ComposedRows:
    """Compose the worst case at every radius, and at the main one for every number of steps of the sweep.

    The interval takes the adversary's choice as fixed: searching anew in every draw would cost a
    thousand searches a row. It is that of this choice, not of the search. Arguments are those of
    `suite_min_rows`, the ends of all scores among the attacks; what is named in `loops` is not of them.
    """
    made: list[WorstRow] = []
    chosen: dict[tuple[Ball, Metric], Scores] = {}
    manifest, judged = make.manifest, make.judged
    for norm, epsilon in balls:
        inside = attacks.inside((norm, epsilon))
        sweep = {k.steps for k in inside if k.attack == manifest.step_sweep and k.epsilon == epsilon}
        full = max((k.steps for k in inside), default=0)
        key = AttackKey("", "", norm, epsilon, full)
        reason = not_composed(make, attacks, (norm, epsilon), loops)
        if reason:
            made += undefined(make.undefined("composed", reason, key))
            continue
        # The sweep is shown at the main radius; elsewhere full strength is what counts.
        swept = sweep if epsilon == manifest.main_epsilon else set()
        for steps in sorted(swept | {full}):
            upto = [Scores.of(a) for k, a in inside.items() if k.steps <= steps]
            for metric in METRICS:
                scores = compose(judged, upto, metric)
                at = key._replace(steps=steps)
                row = make.defined("composed", metric, scores, at, final=steps == full)
                made.append(WorstRow(row, judged.estimate(scores.full, metric).replicates))
                if steps == full:
                    chosen[(norm, epsilon), metric] = scores
    return ComposedRows(made, chosen)


def not_composed(make: RowMaker, attacks: Attacks, ball: Ball, loops: frozenset[str]) -> str:
    """Say why there is no composed worst case in a ball, '' if there is one; `loops` are left out of it.

    The adversary of fewer attacks is a weaker one: its value would look like robustness.
    """
    (norm, epsilon), inside, others = ball, attacks.inside(ball), {"clean", *loops}
    mine = (c for c in make.manifest.cells if c.model == make.judged.model and c.attack not in others)
    planned = [c for c in mine if c.epsilon <= epsilon]
    lost = [c for c in planned if c.status != "done"]
    if lost:
        names = ", ".join(sorted({c.attack for c in lost}))
        cells = "1 cell" if len(lost) == 1 else f"{len(lost)} cells"
        return f"{cells} of {names} at this radius or below failed or were not run"
    hole = next((k for k in attacks.holes if k.norm == norm and k.epsilon <= epsilon), None)
    if hole is not None:
        return f"{hole.attack}/{hole.objective}: {attacks.holes[hole].reason}"
    whole = {(k.attack, k.epsilon) for k, a in inside.items() if a.final}
    weak = sorted({c.attack for c in planned if (c.attack, c.epsilon) not in whole})
    return f"no results at full strength of {', '.join(weak)} at this radius or below" if weak else ""


def compose(judged: Judged, versions: Sequence[Scores], metric: Metric) -> Scores:
    """Return the scores of the composed choice among versions of all images and the clean ones."""
    scores = np.stack([judged.clean, *(each.full for each in versions)])
    scores_8bit = np.stack([judged.clean, *(each.rounded for each in versions)])
    mapped = judged.mapped(scores, metric)
    images = range(scores.shape[1])
    order = np.argsort(mapped, axis=0, kind="stable")
    ordered = np.take_along_axis(mapped, order, axis=0)
    new = np.concatenate([np.ones_like(ordered[:1], dtype=bool), ordered[1:] != ordered[:-1]])
    starts = np.empty_like(order)
    np.put_along_axis(starts, order, np.cumsum(new, axis=0) - 1, axis=0)
    distinct = [ordered[new[:, i], i] for i in images]
    found: Composed = composed_worst_case(distinct, judged.mos, metric, list(starts))
    rows = [order[new[:, i], i][k] for i, k in zip(images, found.choice, strict=True)]
    return Scores(scores[rows, images], scores_8bit[rows, images])


def reached(judged: Judged, attacks: Attacks, composed: ComposedRows) -> Iterator[Reach]:
    """Yield what any attack reached on every image, and what the composed worst case chose."""
    for ball in dict.fromkeys(ball for ball, _ in composed.chosen):
        scores = np.stack([judged.clean, *(a.score for a in attacks.inside(ball).values())])
        chosen = (composed.chosen[ball, metric].full for metric in METRICS)
        ends = (scores.min(axis=0), scores.max(axis=0), *chosen)
        for row in zip(judged.ids, judged.mos, judged.clean, *ends, strict=True):
            yield Reach(judged.model, *ball, *row)
