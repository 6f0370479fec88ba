"""Gradient ascent for many objectives at once, with every gradient shared.

With a sign step (inf) or a normalised step (2) an objective enters only through sign(dL/df_i). All
objectives that start from the same random start and agree on that sign are at the same point, so
their next gradient is the same tensor. The engine therefore runs on the set of distinct
(image, restart, iterate) STATES: every objective has a LANE of pointers into it, and a state is split
only where lanes disagree in sign, in step size or in the iterate they go on from. What a lane sees is
exactly what a run of its own would see.

With a fixed step size the iterate after T steps is a prefix of a longer run, so the results at
`report_steps` are read off one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iqa_attacks.engine.states import Best, Move, Schedule, States, advance, evaluate, starts
from iqa_attacks.engine.updates import Control, Decision, Point
from iqa_attacks.errors import AttackFailed
from iqa_attacks.objectives import Objective
from iqa_attacks.results import (
    HIGHEST_SEEN,
    LOWEST_SEEN,
    Ascent,
    Cost,
    Example,
    Found,
    Targets,
    merge,
)
from iqa_models import QualityModel


@dataclass
class _Lane:
    """One objective: where it is and the best it has met, for every (restart, image)."""

    objective: Objective
    control: Control
    at: Tensor
    """(restarts, n) long: index of the state the lane is at."""
    best: list[list[Example | None]]
    best_loss: Tensor
    """(restarts, n) float64, -inf before the first evaluation."""
    back: list[list[Best | None]]
    """Where an update that goes back would go: an image's own best, which need not be at its batch's best."""


def ascend(
    model: QualityModel,
    targets: Targets,
    objectives: Sequence[Objective],
    schedule: Schedule,
    *,
    chunk: int,
    max_states: int,
) -> Ascent:
    """Maximise every objective on every image and return the best examples found.

    Args:
        model: the model under attack, in eval mode.
        targets: the images, their labels and clean scores.
        objectives: what to maximise, together.
        schedule: steps, restarts, what is kept and reported.
        chunk: images in one forward or backward pass; changes memory and speed, not what is done.
        max_states: starts run together; restarts beyond it run one group after another.

    Raises:
        AttackFailed: scores, gradients or losses that no attack can use.
    """
    best: dict[tuple[int, str, int], Found] = {}
    cost: dict[tuple[int, int], Cost] = {}
    together = max(1, max_states // max(1, len(targets.images)))
    for first in range(0, schedule.restarts, together):
        restarts = range(first, min(first + together, schedule.restarts))
        for steps, found, spent in _ascend_group(model, targets, objectives, schedule, restarts, chunk):
            merge(best, found)
            for image, c in enumerate(spent):
                former = cost.get((image, steps), Cost(0, 0, 0))
                cost[image, steps] = Cost(*(a + b for a, b in zip(former, c, strict=True)))
    return Ascent([best[key] for key in sorted(best)], cost)


def _ascend_group(
    model: QualityModel,
    targets: Targets,
    objectives: Sequence[Objective],
    schedule: Schedule,
    restarts: range,
    chunk: int,
) -> list[tuple[int, list[Found], list[Cost]]]:
    """Run some restarts of all objectives together; one snapshot a reported number of steps."""
    n, r = len(targets.images), len(restarts)
    low, high = model.spec.score_range
    clean = (targets.clean - low) / (high - low)
    states = starts(targets, schedule, restarts)
    lanes = [_lane(objective, schedule, r, n) for objective in objectives]
    # By restart, as the lanes are: ties then go to the earlier restart however restarts are grouped.
    lowest: dict[tuple[int, int], Example] = {}
    highest: dict[tuple[int, int], Example] = {}
    spent = torch.zeros(n, 3, dtype=torch.long)
    snapshots = []

    for step in range(schedule.steps + 1):
        last = step == schedule.steps
        at = evaluate(model, states, targets, schedule, restarts, step, chunk=chunk, gradient=not last)
        visits = torch.bincount(states.image, minlength=n) * (schedule.draws or 1)
        spent[:, 0] += visits

        examples: dict[int, Example] = {}
        _mark_ends(lowest, highest, examples, states, at.scores, restarts, step)

        signs: list[Tensor] = []
        decisions: list[Decision] = []
        slopes: dict[int, Tensor] = {}
        for lane in lanes:
            scores = (at.scores[lane.at] - low) / (high - low)
            loss, weight = _objective_at(lane.objective, scores, targets.mos, clean, schedule.batch)
            sign = weight.sign().long()
            better = loss > lane.best_loss if schedule.keep_best else torch.ones_like(loss, dtype=torch.bool)
            for row, i in better.nonzero().tolist():
                s = int(lane.at[row, i])
                example = _example(examples, states, at.scores, s, restarts, step)
                lane.best[row][i] = example
            lane.best_loss = torch.where(better, loss, lane.best_loss)
            signs.append(sign)
            if last:
                continue
            decision = _decide(lane, step, scores, loss, targets.mos, clean, schedule.batch)
            for row, i in decision.best.nonzero().tolist():
                s = int(lane.at[row, i])
                group, place_in = states.where[s]
                slope = slopes.setdefault(s, at.slopes[group][place_in].clone())
                example = _example(examples, states, at.scores, s, restarts, step)
                iterate = _iterate(states, example, s)
                lane.back[row][i] = Best(example, iterate, slope, int(sign[row, i]))
            decisions.append(decision)

        if step in schedule.report_steps:
            found = [f for lane in lanes for f in _chosen(lane, step)]
            for name, ends in ((LOWEST_SEEN, lowest), (HIGHEST_SEEN, highest)):
                found += [Found(i, name, step, None, example) for (_, i), example in sorted(ends.items())]
            snapshots.append((step, found, [Cost(*row) for row in spent.tolist()]))

        if not last:
            spent[:, 1] += visits
            spent[:, 2] += torch.bincount(states.image[at.zero], minlength=n) * (schedule.draws or 1)
            moves, bests = _moves(lanes, signs, decisions)
            states = advance(states, at.slopes, moves, bests, targets, schedule, step)
    return snapshots


def _lane(objective: Objective, schedule: Schedule, restarts: int, n: int) -> _Lane:
    shape = torch.Size((restarts, n))
    return _Lane(
        objective,
        schedule.update.control(shape),
        torch.arange(restarts * n).view(shape),
        [[None] * n for _ in range(restarts)],
        torch.full(shape, -torch.inf, dtype=torch.float64),
        [[None] * n for _ in range(restarts)],
    )


def _mark_ends(
    lowest: dict[tuple[int, int], Example],
    highest: dict[tuple[int, int], Example],
    examples: dict[int, Example],
    states: States,
    scores: Tensor,
    restarts: range,
    step: int,
) -> None:
    """Keep the lowest and the highest score any objective has met, by (restart, image)."""
    for s, value in enumerate(scores.tolist()):
        place = (int(states.restart[s]), int(states.image[s]))
        if place not in lowest or value < lowest[place].score:
            lowest[place] = _example(examples, states, scores, s, restarts, step)
        if place not in highest or value > highest[place].score:
            highest[place] = _example(examples, states, scores, s, restarts, step)


def _decide(
    lane: _Lane, step: int, scores: Tensor, loss: Tensor, mos: Tensor, clean: Tensor, batch: int
) -> Decision:
    """Return what an objective does after iterate `step`, of scores and loss (R, n)."""

    def above(former: Point) -> Tensor:
        changed = _with_one_changed(lane.objective, scores, former.scores, mos, clean, batch)
        return torch.where(loss == changed, loss > former.loss, loss > changed)

    return lane.control.decide(step, Point(scores, loss), above)


def _moves(
    lanes: Sequence[_Lane], signs: Sequence[Tensor], decisions: Sequence[Decision]
) -> tuple[list[Move], dict[int, Best]]:
    """Collect the distinct moves of all lanes and point every lane at its next state."""
    children: dict[Move, int] = {}
    bests: dict[int, Best] = {}
    for lane, sign, decision in zip(lanes, signs, decisions, strict=True):
        moved = torch.empty_like(lane.at)
        columns = zip(
            _grid(lane.at),
            lane.at.flatten().tolist(),
            sign.flatten().tolist(),
            decision.halvings.flatten().tolist(),
            decision.back.flatten().tolist(),
            strict=True,
        )
        for (row, i), parent, direction, halvings, goes_back in columns:
            best = lane.back[row][i] if goes_back else None
            if best is None:
                move = Move(parent, direction, halvings, None)
            else:
                move = Move(parent, best.sign, halvings, id(best.example))
                bests[id(best.example)] = best
            moved[row, i] = children.setdefault(move, len(children))
        lane.at = moved
    return list(children), bests


def _objective_at(
    objective: Objective, scores: Tensor, mos: Tensor, clean: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """Evaluate an objective on scores (R, n), restart by restart and batch by batch: loss, weight (R, n)."""
    losses, weights = torch.empty_like(scores), torch.empty_like(scores)
    for row, part in _batches(objective, scores, batch):
        losses[row, part], weights[row, part] = objective.evaluate(scores[row, part], mos[part], clean[part])
    return losses, weights


def _with_one_changed(
    objective: Objective, scores: Tensor, others: Tensor, mos: Tensor, clean: Tensor, batch: int
) -> Tensor:
    """Return the losses (R, n) at scores (R, n), each with the image's own score taken from `others`."""
    losses = torch.empty_like(scores)
    for row, part in _batches(objective, scores, batch):
        losses[row, part] = objective.with_one_changed(
            scores[row, part], others[row, part], mos[part], clean[part]
        )
    return losses


def _batches(objective: Objective, scores: Tensor, batch: int) -> Iterator[tuple[int, slice]]:
    width = batch if objective.batch_level else scores.shape[1]
    for row in range(scores.shape[0]):
        for first in range(0, scores.shape[1], width):
            yield row, slice(first, first + width)


def _example(
    made: dict[int, Example], states: States, scores: Tensor, s: int, restarts: range, step: int
) -> Example:
    """Return the example of a state, copied out of the stack once."""
    if s not in made:
        group, row = states.where[s]
        pixels = states.shown[group][row].clone()
        made[s] = Example(pixels, float(scores[s]), restarts[int(states.restart[s])], step)
    return made[s]


def _iterate(states: States, example: Example, s: int) -> Tensor:
    """Return where a state is, sharing the memory of its example where the two are the same."""
    group, row = states.where[s]
    same = states.shown[group] is states.pixels[group]
    return example.pixels if same else states.pixels[group][row].clone()


def _chosen(lane: _Lane, steps: int) -> list[Found]:
    """Return, for every image and restart of the group, the lane's best so far.

    Raises:
        AttackFailed: an image has none; left out, it would be missing from every mean.
    """
    found = []
    for row, line in enumerate(lane.best):
        for i, example in enumerate(line):
            if example is None:
                raise AttackFailed(f"objective {lane.objective.name!r}: no iterate of image {i} was kept")
            found.append(Found(i, lane.objective.name, steps, float(lane.best_loss[row, i]), example))
    return found


def _grid(at: Tensor) -> list[tuple[int, int]]:
    rows, columns = at.shape
    return [(row, column) for row in range(rows) for column in range(columns)]
