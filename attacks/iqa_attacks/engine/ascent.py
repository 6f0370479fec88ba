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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.engine.batches import Batched
from iqa_attacks.engine.states import Best, Evaluated, Move, Schedule, States, advance, evaluate, starts
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

STATES_A_CHUNK = 8
"""Starts run together, as a multiple of the images in a pass: what they hold stays near what a pass takes."""


def ascend(
    model: QualityModel,
    targets: Targets,
    objectives: Sequence[Objective],
    schedule: Schedule,
    *,
    chunk: int,
) -> Ascent:
    """Maximise every objective on every image and return the best examples found.

    Args:
        model: the model under attack, in eval mode.
        targets: the images, their labels and clean scores.
        objectives: what to maximise, together.
        schedule: steps, restarts, what is kept and reported.
        chunk: images in one forward or backward pass; restarts that are more than `STATES_A_CHUNK` times as
            many run one group after another. Changes memory and speed, not what is done.

    Raises:
        AttackFailed: scores, gradients or losses that no attack can use.
    """
    best: dict[tuple[int, str, int], Found] = {}
    cost: dict[tuple[int, int], Cost] = {}
    together = max(1, STATES_A_CHUNK * chunk // max(1, len(targets.images)))
    for first in range(0, schedule.restarts, together):
        restarts = range(first, min(first + together, schedule.restarts))
        for steps, found, spent in _Group(model, targets, objectives, schedule, restarts, chunk).run():
            merge(best, found)
            for image, c in enumerate(spent):
                cost[image, steps] = cost.get((image, steps), Cost(0, 0, 0)).plus(c)
    return Ascent([best[key] for key in sorted(best)], cost)


class _Snapshot(NamedTuple):
    """What a group has found and spent up to a number of steps."""

    steps: int
    found: list[Found]
    spent: list[Cost]


class _Group:
    """Some restarts of all objectives, run together."""

    def __init__(
        self,
        model: QualityModel,
        targets: Targets,
        objectives: Sequence[Objective],
        schedule: Schedule,
        restarts: range,
        chunk: int,
    ) -> None:
        low, high = model.spec.score_range
        self.model, self.targets, self.schedule, self.restarts = model, targets, schedule, restarts
        self.chunk, self.low, self.high = chunk, low, high
        self.states = starts(targets, schedule, restarts)
        clean = (targets.clean - low) / (high - low)
        shape = torch.Size((len(restarts), len(targets.images)))
        self.lanes = [
            _Lane(
                Batched(objective, targets.mos, clean, schedule.batch), schedule.update.control(shape), shape
            )
            for objective in objectives
        ]
        # By restart, as the lanes are: ties then go to the earlier restart however restarts are grouped.
        self.lowest: dict[tuple[int, int], Example] = {}
        self.highest: dict[tuple[int, int], Example] = {}
        self.spent = torch.zeros(len(targets.images), 3, dtype=torch.long)

    def run(self) -> list[_Snapshot]:
        """Take all steps; one snapshot a reported number of them."""
        schedule, snapshots = self.schedule, []
        for step in range(schedule.steps + 1):
            last = step == schedule.steps
            at = evaluate(
                self.model, self.states, self.targets, schedule, self.restarts, step,
                chunk=self.chunk, gradient=not last,
            )  # fmt: skip
            self._count(forwards=self.states.image)
            moment = _Moment(self.states, at, self.restarts, step)
            self._mark_ends(moment)
            turns = [self._turn(lane, moment, last=last) for lane in self.lanes]
            if step in schedule.report_steps:
                snapshots.append(self._snapshot(step))
            if not last:
                self._count(backwards=self.states.image, zero=self.states.image[at.zero])
                moves, bests = _moves(self.lanes, turns)
                self.states = advance(self.states, at.slopes, moves, bests, self.targets, schedule, step)
        return snapshots

    def _count(self, **visits: Tensor) -> None:
        for column, name in enumerate(("forwards", "backwards", "zero")):
            if name in visits:
                times = torch.bincount(visits[name], minlength=len(self.spent))
                self.spent[:, column] += times * (self.schedule.draws or 1)

    def _mark_ends(self, moment: _Moment) -> None:
        """Keep the lowest and the highest score any objective has met, by (restart, image)."""
        for s, value in enumerate(moment.at.scores.tolist()):
            place = (int(moment.states.restart[s]), int(moment.states.image[s]))
            if place not in self.lowest or value < self.lowest[place].score:
                self.lowest[place] = moment.example(s)
            if place not in self.highest or value > self.highest[place].score:
                self.highest[place] = moment.example(s)

    def _turn(self, lane: _Lane, moment: _Moment, *, last: bool) -> _Turn:
        """Keep what an objective has gained here, and return where it goes; at the last iterate nowhere."""
        scores = (moment.at.scores[lane.at] - self.low) / (self.high - self.low)
        loss, weight = lane.batched.evaluate(scores)
        sign = weight.sign().long()
        better = loss > lane.best_loss if self.schedule.keep_best else torch.ones_like(loss, dtype=torch.bool)
        for row, i in better.nonzero().tolist():
            lane.best[row][i] = moment.example(int(lane.at[row, i]))
        lane.best_loss = torch.where(better, loss, lane.best_loss)
        if last:
            return _Turn(sign, lane.stay)
        decision = lane.decide(moment.step, Point(scores, loss))
        for row, i in decision.best.nonzero().tolist():
            lane.back[row][i] = moment.best(int(lane.at[row, i]), int(sign[row, i]))
        return _Turn(sign, decision)

    def _snapshot(self, step: int) -> _Snapshot:
        found = [f for lane in self.lanes for f in lane.chosen(step, self.targets.ids)]
        for name, ends in ((LOWEST_SEEN, self.lowest), (HIGHEST_SEEN, self.highest)):
            found += [Found(i, name, step, None, example) for (_, i), example in sorted(ends.items())]
        return _Snapshot(step, found, [Cost(*row) for row in self.spent.tolist()])


class _Turn(NamedTuple):
    """Where one objective goes from an iterate."""

    sign: Tensor
    """(restarts, n) long: sign(dL/df)."""
    decision: Decision


class _Moment:
    """All states of one iterate, evaluated; what is kept of one is copied out of its stack once."""

    def __init__(self, states: States, at: Evaluated, restarts: range, step: int) -> None:
        self.states, self.at, self.restarts, self.step = states, at, restarts, step
        self._examples: dict[int, Example] = {}
        self._slopes: dict[int, Tensor] = {}

    def example(self, s: int) -> Example:
        """Return the example of a state."""
        if s not in self._examples:
            group, row = self.states.where[s]
            pixels = self.states.shown[group][row].clone()
            restart = self.restarts[int(self.states.restart[s])]
            self._examples[s] = Example(pixels, float(self.at.scores[s]), restart, self.step)
        return self._examples[s]

    def best(self, s: int, sign: int) -> Best:
        """Return a state as one to come back to; it shares the memory of its example where the two agree."""
        group, row = self.states.where[s]
        if s not in self._slopes:
            self._slopes[s] = self.at.slopes[group][row].clone()
        example = self.example(s)
        same = self.states.shown[group] is self.states.pixels[group]
        pixels = example.pixels if same else self.states.pixels[group][row].clone()
        return Best(example, pixels, self._slopes[s], sign)


class _Lane:
    """One objective: where it is and the best it has met, for every (restart, image)."""

    def __init__(self, batched: Batched, control: Control, shape: torch.Size) -> None:
        rows, n = shape
        self.batched, self.control = batched, control
        self.at = torch.arange(rows * n).view(shape)
        """(restarts, n) long: index of the state the lane is at."""
        self.best: list[list[Example | None]] = [[None] * n for _ in range(rows)]
        self.best_loss = torch.full(shape, -torch.inf, dtype=torch.float64)
        """(restarts, n), -inf before the first evaluation."""
        self.back: list[list[Best | None]] = [[None] * n for _ in range(rows)]
        """Where an update that goes back would go: an image's own best, which need not be its batch's."""

    @property
    def stay(self) -> Decision:
        """What is decided at the last iterate: nothing."""
        return Decision(self.control.halvings, self.control.nowhere, self.control.nowhere)

    def decide(self, step: int, now: Point) -> Decision:
        """Return what the objective does after iterate `step`, which is at `now`."""

        def above(former: Point) -> Tensor:
            changed = self.batched.with_one_changed(now.scores, former.scores)
            return torch.where(now.loss == changed, now.loss > former.loss, now.loss > changed)

        return self.control.decide(step, now, above)

    def chosen(self, steps: int, ids: Sequence[str]) -> list[Found]:
        """Return, for every image and restart of the group, the best so far.

        Raises:
            AttackFailed: an image has none; left out, it would be missing from every mean.
        """
        found, name = [], self.batched.objective.name
        for row, line in enumerate(self.best):
            for i, example in enumerate(line):
                if example is None:
                    raise AttackFailed(f"objective {name!r}: no iterate of image {ids[i]!r} was kept")
                found.append(Found(i, name, steps, float(self.best_loss[row, i]), example))
        return found


def _moves(lanes: Sequence[_Lane], turns: Sequence[_Turn]) -> tuple[list[Move], dict[int, Best]]:
    """Collect the distinct moves of all lanes and point every lane at its next state."""
    children: dict[Move, int] = {}
    bests: dict[int, Best] = {}
    for lane, (sign, decision) in zip(lanes, turns, strict=True):
        moved = torch.empty_like(lane.at)
        columns = zip(
            torch.cartesian_prod(*(torch.arange(size) for size in lane.at.shape)).tolist(),
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
