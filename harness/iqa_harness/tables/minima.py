"""Rows of the two worst cases: the suite's minimum over its members, and the composed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from iqa_harness.measures.bootstrap import Replicates, lowest
from iqa_harness.measures.composed import Composed, composed_worst_case
from iqa_harness.measures.correlation import METRICS, Metric, Vector
from iqa_harness.measures.model_scores import Attacked, AttackKey, Hole, Judged, Record
from iqa_harness.tables.expected import cells_at
from iqa_harness.tables.rows import defined_row, undefined_row, undefined_rows
from iqa_results import RunManifest

Found = Mapping[AttackKey, Attacked]
Holes = Mapping[AttackKey, Hole]
Ball = tuple[str, float]
"""Norm and radius."""


class WorstRow(NamedTuple):
    """A row of the table and the replicates of its value, None where it is undefined."""

    row: Record
    replicates: Replicates | None


def suite_min_rows(
    manifest: RunManifest, judged: Judged, attacked: Found, holes: Holes, balls: Iterable[Ball]
) -> list[WorstRow]:
    """Minimise over the suite's members at every radius, and at every prefix all members share.

    The interval takes the minimum anew in every draw, so that the choice of the member is part of it.

    Args:
        manifest: the run's.
        judged: the model.
        attacked: its attacks on all images.
        holes: those on some of the images.
        balls: every norm and radius that was attacked, or was to be.
    """
    members: list[tuple[str, str]] = [(a, o) for a, _, o in (m.partition("/") for m in manifest.suite_min)]
    keys = [*attacked, *holes]
    is_final = {k: a.final for k, a in attacked.items()} | {k: h.final for k, h in holes.items()}
    made: list[WorstRow] = []
    for norm, epsilon in balls:
        at = [k for k in keys if (k.norm, k.epsilon) == (norm, epsilon)]
        by_member = {m: [k for k in at if _is_member(k, *m)] for m in members}
        planned = cells_at(manifest, judged.model, epsilon)
        wanted = {
            (a, o): {name for name in planned if is_of(name, a)} | {k.attack for k in by_member[a, o]}
            for a, o in members
        }
        if not all(wanted.values()) and epsilon != manifest.main_epsilon:
            # Not a radius of every member: the minimum is not defined there and no row pretends it is.
            continue
        # At the main radius the members exist by the suite's own rules. One without its full strength, or a
        # transfer without one of its surrogates, would leave a minimum over less than was planned.
        lost = sorted(
            f"{name}/{o}"
            for (a, o), names in wanted.items()
            for name in names or {a}
            if not any(is_final[k] for k in by_member[a, o] if k.attack == name)
        )
        if lost:
            reason = f"no results of {', '.join(lost)} (cells failed or not run)"
            key = AttackKey("", "", norm, epsilon, 0)
            made += _undefined(undefined_rows(manifest, judged, "suite_min", reason, METRICS, key))
            continue
        whole = [k for found in by_member.values() for k in found if is_final[k]]
        full = max(k.steps for k in whole)
        prefixes = set.intersection(*({k.steps for k in found} for found in by_member.values()))
        for steps in sorted({s for s in prefixes if s < full} | {full}):
            final = steps == full
            chosen = whole if final else [k for f in by_member.values() for k in f if k.steps == steps]
            made += [_minimum(manifest, judged, attacked, holes, chosen, steps, final, m) for m in METRICS]
    return made


def _undefined(rows: Iterable[Record]) -> list[WorstRow]:
    return [WorstRow(row, None) for row in rows]


def is_of(name: str, attack: str) -> bool:
    """Whether a name is an attack's; one that transfers has a name for every surrogate."""
    return name == attack or name.startswith(f"{attack}:")


def _is_member(key: AttackKey, attack: str, objective: str) -> bool:
    """Whether results belong to a member."""
    return key.objective == objective and is_of(key.attack, attack)


def _minimum(
    manifest: RunManifest,
    judged: Judged,
    attacked: Found,
    holes: Holes,
    members: Sequence[AttackKey],
    steps: int,
    final: bool,
    metric: Metric,
) -> WorstRow:
    place = members[0]._replace(attack="", objective="", steps=steps)
    lost = next((k for k in members if k in holes), None)
    if lost is not None:
        reason = f"{lost.attack}/{lost.objective}: {holes[lost].reason}"
        row = undefined_row(manifest, judged, "suite_min", metric, reason, key=place, final=final)
        return WorstRow(row, None)
    estimates = {k: judged.estimate(attacked[k].score, metric) for k in members}
    undefined = next((k for k, e in estimates.items() if e.value.value is None), None)
    if undefined is not None:
        reason = f"{undefined.attack}/{undefined.objective}: {estimates[undefined].value.undefined}"
        row = undefined_row(manifest, judged, "suite_min", metric, reason, key=place, final=final)
        return WorstRow(row, None)
    least = min(members, key=lambda k: estimates[k].value.value or 0.0)
    replicates = lowest([e.replicates for e in estimates.values()])
    row = defined_row(
        manifest, judged, "suite_min", metric, attacked[least].score, attacked[least].score_8bit,
        key=least._replace(steps=steps), final=final, replicates=replicates,
    )  # fmt: skip
    return WorstRow(row, replicates)


def composed_rows(
    manifest: RunManifest, judged: Judged, attacked: Found, holes: Holes, balls: Iterable[Ball]
) -> tuple[list[WorstRow], list[Record]]:
    """Compose the worst case at every radius, and at the main one for every number of steps of the sweep.

    The interval takes the adversary's choice as fixed: searching anew in every draw would cost a
    thousand searches a row. It is that of this choice, not of the search. Arguments are those of
    `suite_min_rows`, the ends of all scores among the attacks.
    """
    made: list[WorstRow] = []
    intervals: list[Record] = []
    for norm, epsilon in balls:
        # What was found in a smaller ball of the same norm lies in this one too.
        inside = {k: a for k, a in attacked.items() if k.norm == norm and k.epsilon <= epsilon}
        sweep = {k.steps for k in inside if k.attack == manifest.step_sweep and k.epsilon == epsilon}
        full = max((k.steps for k in inside), default=0)
        reason = _not_composed(manifest, judged, inside, holes, norm, epsilon)
        if reason:
            key = AttackKey("", "", norm, epsilon, full)
            made += _undefined(undefined_rows(manifest, judged, "composed", reason, METRICS, key))
            continue
        # The sweep is shown at the main radius; elsewhere full strength is what counts.
        swept = sweep if epsilon == manifest.main_epsilon else set()
        for steps in sorted(swept | {full}):
            upto = [a for k, a in inside.items() if k.steps <= steps]
            key = AttackKey("", "", norm, epsilon, steps)
            composed = {m: _compose(judged, upto, m) for m in METRICS}
            for metric, (scores, scores_8bit) in composed.items():
                row = defined_row(
                    manifest, judged, "composed", metric, scores, scores_8bit, key=key, final=steps == full
                )
                made.append(WorstRow(row, judged.estimate(scores, metric).replicates))
            if steps == full:
                intervals += _interval_rows(judged, upto, norm, epsilon, composed)
    return made, intervals


def _not_composed(
    manifest: RunManifest, judged: Judged, inside: Found, holes: Holes, norm: str, epsilon: float
) -> str:
    """Say why there is no composed worst case in a ball, '' if there is one.

    The adversary of fewer attacks is a weaker one: its value would look like robustness.
    """
    planned = [
        c for c in manifest.cells if c.model == judged.model and c.attack != "clean" and c.epsilon <= epsilon
    ]
    lost = [c for c in planned if c.status != "done"]
    if lost:
        names = ", ".join(sorted({c.attack for c in lost}))
        return f"{len(lost)} cells of {names} at this radius or below failed or were not run"
    hole = next((k for k in holes if k.norm == norm and k.epsilon <= epsilon), None)
    if hole is not None:
        return f"{hole.attack}/{hole.objective}: {holes[hole].reason}"
    whole = {(k.attack, k.epsilon) for k, a in inside.items() if a.final}
    weak = sorted({c.attack for c in planned if (c.attack, c.epsilon) not in whole})
    return f"no results at full strength of {', '.join(weak)} at this radius or below" if weak else ""


def _compose(judged: Judged, attacked: Sequence[Attacked], metric: Metric) -> tuple[Vector, Vector]:
    """Return the scores of the composed choice, in full precision and after 8 bits."""
    scores = np.stack([judged.clean, *(a.score for a in attacked)])
    scores_8bit = np.stack([judged.clean, *(a.score_8bit for a in attacked)])
    mapped = judged.mapped(scores, metric)
    images = range(scores.shape[1])
    distinct = [np.unique(mapped[:, i], return_index=True) for i in images]
    inverse = [np.searchsorted(values, mapped[:, i]) for i, (values, _) in zip(images, distinct, strict=True)]
    starts = [np.array([inverse[i][row] for i in images], dtype=np.intp) for row in range(len(scores))]
    found: Composed = composed_worst_case([values for values, _ in distinct], judged.mos, metric, starts)
    rows = [distinct[i][1][k] for i, k in zip(images, found.choice, strict=True)]
    return scores[rows, images], scores_8bit[rows, images]


def _interval_rows(
    judged: Judged,
    attacked: Sequence[Attacked],
    norm: str,
    epsilon: float,
    composed: Mapping[Metric, tuple[Vector, Vector]],
) -> list[Record]:
    reached = np.stack([judged.clean, *(a.score for a in attacked)])
    columns: Iterable[tuple[Any, ...]] = zip(
        judged.ids,
        judged.mos,
        judged.clean,
        reached.min(axis=0),
        reached.max(axis=0),
        composed["srocc"][0],
        composed["plcc"][0],
        strict=True,
    )
    names = ("image_id", "mos", "clean", "s_min", "s_max", "composed_srocc", "composed_plcc")
    return [
        {"model": judged.model, "norm": norm, "epsilon": epsilon, **dict(zip(names, row, strict=True))}
        for row in columns
    ]
