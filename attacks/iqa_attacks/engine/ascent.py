"""Gradient ascent for many objectives at once, with every gradient shared.

With a sign step (inf) or a normalised step (2) an objective enters only through sign(dL/df_i). All
objectives that start from the same random start and agree on that sign are at the same point, so
their next gradient is the same tensor. The engine therefore runs on the set of distinct
(image, restart, iterate) STATES: every objective has a LANE of pointers into it, and a state is split
only where lanes disagree in sign, in step size or in the iterate they go on from. What a lane sees is
exactly what a run of its own would see.

Pixels never leave their device. A step asks the model for all states, reads their scores and what is wrong
or zero among the gradients in ONE copy, decides on the host, and sends what follows, rows, signs and step
sizes, in ONE copy that nobody waits for. Losses, best iterates, APGD's choices and the splitting of states
are vectors of as many numbers as there are states: on the host they take as long as a kernel takes to
start, and they are float64 and the same on every device.

While the host decides, a GPU would stand still: where there are enough starts, two halves of them take
turns, and the model is asked about one while the other's next step is decided.

With a fixed step size the iterate after T steps is a prefix of a longer run, so the results at
`report_steps` are read off one run.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_attacks.engine.batches import Batched
from iqa_attacks.engine.kept import Candidates, Kept
from iqa_attacks.engine.parcel import send
from iqa_attacks.engine.states import (
    Asking,
    Evaluated,
    Ground,
    Schedule,
    Stack,
    States,
    as_shown,
    ask_states,
    starts,
)
from iqa_attacks.engine.updates import Control, Decision, Now, Point, moved
from iqa_attacks.objectives import Objective
from iqa_attacks.results import Ascent, Cost, Found, Targets, merge
from iqa_models import QualityModel

STATES_A_CHUNK = 8
"""Starts run together, as a multiple of the images in a pass: what they hold stays near what a pass takes."""

IN_TURN = 64
"""Starts from which half of them keeps a GPU busy while a step of the other half is decided: some 5 ms."""


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
    ground = Ground(targets)
    together = max(1, STATES_A_CHUNK * chunk // max(1, len(targets.images)))
    for first in range(0, schedule.restarts, together):
        restarts = range(first, min(first + together, schedule.restarts))
        parts = _in_turn_on(ground.device, restarts, len(targets.images), chunk)
        groups = [_Group(model, targets, ground, objectives, schedule, part, chunk) for part in parts]
        for steps, found, spent in _taking_turns([group.run() for group in groups]):
            merge(best, found)
            for image, c in enumerate(spent):
                cost[image, steps] = cost.get((image, steps), Cost(0, 0, 0)).plus(c)
    return Ascent([best[key] for key in sorted(best)], cost)


def _in_turn_on(device: torch.device, restarts: range, images: int, chunk: int) -> list[range]:
    """Return the restarts that take turns on a device: two halves of many, of few all together.

    More than half a pass are many, too: their states soon fill a whole one, and are two passes in any case.
    """
    starts = images * len(restarts)
    if device.type == "cpu" or len(restarts) == 1 or (starts < IN_TURN and 2 * starts <= chunk):
        return [restarts]
    half = -(-len(restarts) // 2)
    return [restarts[:half], restarts[half:]]


def _taking_turns(runs: Sequence[_Run]) -> list[_Snapshot]:
    """Let each run go on to where it waits for its device, in turn, and return what all give, run by run."""
    given: dict[int, list[_Snapshot]] = {}
    while len(given) < len(runs):
        for place, run in enumerate(runs):
            if place not in given:
                try:
                    next(run)
                except StopIteration as ended:
                    given[place] = ended.value
    return [snapshot for place in range(len(runs)) for snapshot in given[place]]


class _Snapshot(NamedTuple):
    """What a group has found and spent up to a number of steps."""

    steps: int
    found: list[Found]
    spent: list[Cost]


_Run = Generator[None, None, list[_Snapshot]]
"""Yields where it would wait for the device."""


class _Group:
    """Some restarts of all objectives, run together."""

    def __init__(
        self,
        model: QualityModel,
        targets: Targets,
        ground: Ground,
        objectives: Sequence[Objective],
        schedule: Schedule,
        restarts: range,
        chunk: int,
    ) -> None:
        low, high = model.spec.score_range
        self.model, self.targets, self.ground, self.schedule = model, targets, ground, schedule
        self.restarts, self.chunk, self.low, self.high = restarts, chunk, low, high
        clean = (targets.clean - low) / (high - low)
        shape = torch.Size((len(restarts), len(targets.images)))
        self.lanes = [
            _Lane(Batched(objective, targets.mos, clean, schedule.batch), schedule.update.control(shape))
            for objective in objectives
        ]
        self.kept = Kept(ground, [objective.name for objective in objectives], restarts, schedule)
        self.at = torch.arange(shape.numel()).view(shape).repeat(len(objectives), 1, 1)
        """(L, restarts, n) long: the state every objective is at."""
        self.back_sign = torch.zeros_like(self.at)
        """(L, restarts, n) long: sign(dL/df) at the iterate to go back to."""
        self.spent = torch.zeros(len(targets.images), 3, dtype=torch.long)

    def run(self) -> _Run:
        """Take all steps; one snapshot a reported number of them."""
        schedule, snapshots = self.schedule, []
        states = starts(self.targets, self.ground, schedule, self.restarts)
        for step in range(schedule.steps):
            asking = self._ask(states, step, gradient=True)
            yield
            at = asking.read()
            spent = self.spent.tolist()
            self._count(backwards=states.image, zero=states.image[at.facts.zero])
            turn = self._turn(states, at.facts.scores, step)
            states = self._go(states, at, turn, step)
            if step in schedule.report_steps:
                snapshots.append(self._snapshot(step, spent))
        asking = self._ask(states, schedule.steps, gradient=False)
        yield
        at = asking.read()
        self._stop(states, self._turn(states, at.facts.scores, schedule.steps))
        del states, asking, at  # what is found takes their room
        return [*snapshots, self._snapshot(schedule.steps, self.spent.tolist())]

    def _ask(self, states: States, step: int, *, gradient: bool) -> Asking:
        asking = ask_states(
            self.model, states, self.targets, self.schedule, (self.restarts, step),
            chunk=self.chunk, gradient=gradient,
        )  # fmt: skip
        self._count(forwards=states.image)
        return asking

    def _count(self, **visits: Tensor) -> None:
        for column, name in enumerate(("forwards", "backwards", "zero")):
            if name in visits:
                times = torch.bincount(visits[name], minlength=len(self.spent))
                self.spent[:, column] += times * (self.schedule.draws or 1)

    def _snapshot(self, step: int, spent: list[list[int]]) -> _Snapshot:
        return _Snapshot(step, self.kept.found(step, self.targets.ids), [Cost(*row) for row in spent])

    def _turn(self, states: States, scores: Tensor, step: int) -> _Turn:
        """Keep what every objective has gained here, and return where it goes; from the last iterate nowhere.

        Of what is kept only the places are chosen: `_Turn.kept` says what to copy there.
        """
        unit = (scores[self.at] - self.low) / (self.high - self.low)
        found = [lane.batched.evaluate(at) for lane, at in zip(self.lanes, unit, strict=True)]
        loss, sign = torch.stack([each[0] for each in found]), torch.stack([each[1] for each in found]).sign()
        ends = _ends(states, scores, self.at.shape[1:])
        offered = Candidates(torch.cat([loss, ends.loss]), torch.cat([self.at, ends.state]))
        if step == self.schedule.steps:
            nowhere = [lane.stay for lane in self.lanes]
        else:
            nowhere = [
                lane.decide(step, Point(*point)) for lane, *point in zip(self.lanes, unit, loss, strict=True)
            ]
        halvings, best, back = (torch.stack(each) for each in zip(*nowhere, strict=True))
        kept = self.kept.choose(step, offered, best, states, scores)
        self.back_sign = torch.where(best, sign.long(), self.back_sign)
        places = torch.where(back, self.kept.back, -1)
        return _Turn(torch.where(back, self.back_sign, sign.long()), halvings, places, kept)

    def _moves(self, turn: _Turn) -> _Moves:
        """Collect the distinct moves of all objectives and point every objective at its next state."""
        key = self.at * 3 + turn.sign + 1
        for each in (turn.halvings, turn.back + 1):
            key = key * (each.max() + 1) + each
        _, first, which = np.unique(key.flatten().numpy(), return_index=True, return_inverse=True)
        # In the order in which the objectives come to them, so that passes are filled alike in any company.
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        moves = [each.flatten()[first[order]] for each in (self.at, turn.sign, turn.halvings, turn.back)]
        self.at = torch.from_numpy(rank[which.reshape(-1)]).view(self.at.shape)
        return _Moves(*moves)

    def _go(self, states: States, at: Evaluated, turn: _Turn, step: int) -> States:
        """Copy what is kept, and return the states of the next iterate."""
        moves = self._moves(turn)
        image, restart = states.image[moves.parent], states.restart[moves.parent]
        size = self.schedule.sizes(step, moves.halvings)
        group, row = self.ground.group[image], torch.empty_like(image)
        numbers, members = [], []
        for g in range(len(states.stacks)):
            mine = (group == g).nonzero().flatten()
            row[mine] = torch.arange(len(mine))
            back = moves.back[mine]
            returning = (back >= 0).nonzero().flatten()
            numbers += [
                *self._copies(states, turn, g),
                states.row[moves.parent[mine]],
                self.ground.row[image[mine]],
                moves.sign[mine],
                size[mine],
                returning,
                back[returning] - self.kept.first[g],
            ]
            members.append(mine)
        sent = send(self.ground.device, *numbers)
        threat, update, stacks = self.schedule.threat, self.schedule.update, []
        for g, (mine, stack) in enumerate(zip(members, states.stacks, strict=True)):
            *copied, source, centre, sign, length, returning, back = sent[10 * g : 10 * g + 10]
            self.kept.copy(g, states, at.slopes[g], *(each.long() for each in copied))
            parents, centres = numbers[10 * g + 4 : 10 * g + 6]
            pixels, memory, slope = _rows(parents, source, stack.pixels, stack.memory, at.slopes[g])
            (clean,) = _rows(centres, centre, self.ground.clean[g])
            if len(back):
                pixels, slope = self.kept.back_to(g, returning.long(), back.long(), pixels, slope)
            sign, length = (each.to(pixels.dtype).view(-1, 1, 1, 1) for each in (sign, length))
            now = Now(pixels, memory, slope, sign, length, clean, step)
            pixels, memory = moved(update, now, threat)
            stacks.append(Stack(mine, pixels, as_shown(threat, pixels, clean), memory))
        return States(image, restart, row, stacks)

    def _copies(self, states: States, turn: _Turn, g: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return rows of a stack to keep, their places within the size, and both of those to return to."""
        new, places = turn.kept
        mine = self.ground.group[states.image[new]] == g
        rows, own = states.row[new[mine]], places[mine]
        returns = torch.isin(own, self.kept.back)
        own = own - self.kept.first[g]
        return rows, own, rows[returns], own[returns]

    def _stop(self, states: States, turn: _Turn) -> None:
        """Copy what is kept of the last iterate."""
        groups = range(len(states.stacks))
        sent = send(self.ground.device, *(part for g in groups for part in self._copies(states, turn, g)))
        for g in groups:
            self.kept.copy(g, states, None, *(each.long() for each in sent[4 * g : 4 * g + 4]))


class _Turn(NamedTuple):
    """Where every objective goes from an iterate, (L, restarts, n) each, and what is kept of it."""

    sign: Tensor
    """Long: sign(dL/df)."""
    halvings: Tensor
    """Long: how often the step has been halved."""
    back: Tensor
    """Long: the place it goes on from, -1 for where it is."""
    kept: Tensor
    """(2, K) long: states and their places."""


class _Moves(NamedTuple):
    """Distinct ways from states to their children, (M,) long each; who takes the same one shares a state."""

    parent: Tensor
    sign: Tensor
    halvings: Tensor
    back: Tensor


def _rows(rows: Tensor, sent: Tensor, *stacks: Tensor) -> tuple[Tensor, ...]:
    """Return rows of stacks, by what was sent to their device; where they are all, in order, the stacks."""
    if torch.equal(rows, torch.arange(len(stacks[0]))):
        return stacks
    return tuple(stack.index_select(0, sent.long()) for stack in stacks)


def _ends(states: States, scores: Tensor, shape: torch.Size) -> Candidates:
    """Return the lowest and the highest score of every (restart, image), of equal ones the first state's."""
    place = (states.restart * shape[1] + states.image).numpy()
    losses = torch.stack([-scores, scores])
    first = []
    for loss in losses.numpy():
        order = np.lexsort((-loss, place))
        first.append(order[np.searchsorted(place[order], np.arange(shape.numel()))])
    state = torch.from_numpy(np.stack(first))
    return Candidates(losses.gather(1, state).view(2, *shape), state.view(2, *shape))


class _Lane(NamedTuple):
    """One objective: its losses and its step sizes, for every (restart, image)."""

    batched: Batched
    control: Control

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
