"""Projected gradient ascent for many objectives at once, with every gradient shared.

With a sign step (inf) or a normalised step (2) an objective enters only through sign(dL/df_i). All
objectives that start from the same random start and agree on that sign are at the same point, so
their next gradient is the same tensor. The engine therefore runs on the set of distinct
(image, restart, iterate) STATES: every objective has a LANE of pointers into it, and a state is split
only where lanes disagree in sign. What a lane sees is exactly what a run of its own would see.

With a fixed step size the iterate after T steps is a prefix of a longer run, so the results at
`report_steps` are read off one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.gradients import score, score_and_gradient
from iqa_attacks.objectives import Objective
from iqa_attacks.seeding import start_generator
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel

LOWEST_SEEN, HIGHEST_SEEN = "lowest_seen", "highest_seen"


class Example(NamedTuple):
    """One attacked image; lanes that share a state share this object."""

    pixels: Tensor
    """(C, H, W) in the threat model."""
    score: float
    """Score the attack saw, on the model's own scale."""
    restart: int
    """Restart that found it."""
    step: int
    """Iterate of that restart, 0 for its start."""


class Found(NamedTuple):
    """The example chosen for one image, objective and number of steps."""

    image: int
    """Index of the image in the attacked sequence."""
    objective: str
    """Objective, or `lowest_seen` / `highest_seen`: the ends of all scores met on this image."""
    steps: int
    """Length of the prefix it was chosen from."""
    loss: float | None
    """The objective's value, None for the ends."""
    example: Example


class Cost(NamedTuple):
    """Work on one image up to a number of steps, shared by all objectives."""

    forwards: int
    """Evaluations of the model on this image (a gradient includes one)."""
    backwards: int
    """Gradients."""
    zero_gradients: int
    """Gradients that were exactly zero in every pixel."""


@dataclass
class Ascent:
    """What a run found."""

    found: list[Found]
    """One entry an (image, objective, reported number of steps)."""
    cost: dict[tuple[int, int], Cost]
    """Work by (image, steps)."""


@dataclass(frozen=True)
class Schedule:
    """How far and how often the ascent goes; everything that decides its iterates."""

    threat: ThreatModel
    steps: int
    step_size: float
    restarts: int
    random_start: bool
    keep_best: bool
    """Keep the best iterate, the final one included; False keeps the last one."""
    report_steps: tuple[int, ...]
    """Prefixes to report, ascending, the last one being `steps`."""
    batch: int
    """Consecutive images that form one batch of a batch-level objective."""
    seed: int


class Targets(NamedTuple):
    """Images under attack, in evaluation order."""

    images: Sequence[Tensor]
    """(C, H, W) each in [0, 1]; sizes may differ."""
    ids: Sequence[str]
    mos: Tensor
    """(n,) float64 on [0, 1]."""
    clean: Tensor
    """(n,) float64: clean scores on the model's own scale."""


@dataclass
class _Lane:
    """One objective: where it is and the best it has met, for every (restart, image)."""

    objective: Objective
    at: Tensor
    """(restarts, n) long: index of the state the lane is at."""
    best: list[list[Example | None]]
    best_loss: Tensor
    """(restarts, n) float64, -inf before the first evaluation."""


@dataclass
class _States:
    """The distinct (image, restart) points of one iterate, stacked by image size."""

    image: Tensor
    """(S,) long: which image a state is a version of."""
    restart: Tensor
    """(S,) long: counted within the group of restarts that run together."""
    groups: list[Tensor]
    """(S_g,) long each: the states of one size."""
    pixels: list[Tensor]
    """(S_g, C, H, W) each."""
    where: list[tuple[int, int]] = field(init=False)
    """Group and row of every state."""

    def __post_init__(self) -> None:
        place = {
            int(s): (g, row) for g, rows in enumerate(self.groups) for row, s in enumerate(rows.tolist())
        }
        self.where = [place[s] for s in range(len(self.image))]


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
        AttackFailed: scores or gradients that no attack can use.
    """
    best: dict[tuple[int, str, int], Found] = {}
    cost: dict[tuple[int, int], Cost] = {}
    together = max(1, max_states // max(1, len(targets.images)))
    for first in range(0, schedule.restarts, together):
        restarts = range(first, min(first + together, schedule.restarts))
        for steps, found, spent in _ascend_group(model, targets, objectives, schedule, restarts, chunk):
            _merge(best, found)
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
    states = _starts(targets, schedule, restarts)
    start = torch.arange(r * n).view(r, n)
    lanes = [
        _Lane(o, start.clone(), [[None] * n for _ in range(r)], torch.full((r, n), -torch.inf).double())
        for o in objectives
    ]
    # By restart, as the lanes are: ties then go to the earlier restart however restarts are grouped.
    lowest: dict[tuple[int, int], Example] = {}
    highest: dict[tuple[int, int], Example] = {}
    spent = torch.zeros(n, 3, dtype=torch.long)
    snapshots = []

    for step in range(schedule.steps + 1):
        last = step == schedule.steps
        scores, directions, zero = _evaluate(model, states, schedule.threat, chunk, gradient=not last)
        spent[:, 0] += torch.bincount(states.image, minlength=n)

        examples: dict[int, Example] = {}
        for s, value in enumerate(scores.tolist()):
            at = (int(states.restart[s]), int(states.image[s]))
            if at not in lowest or value < lowest[at].score:
                lowest[at] = _example(examples, states, scores, s, restarts, step)
            if at not in highest or value > highest[at].score:
                highest[at] = _example(examples, states, scores, s, restarts, step)

        signs: list[Tensor] = []
        for lane in lanes:
            loss, weight = _objective_at(
                lane.objective, (scores[lane.at] - low) / (high - low), targets.mos, clean, schedule.batch
            )
            better = loss > lane.best_loss if schedule.keep_best else torch.ones_like(loss, dtype=torch.bool)
            for row, i in better.nonzero().tolist():
                s = int(lane.at[row, i])
                lane.best[row][i] = _example(examples, states, scores, s, restarts, step)
            lane.best_loss = torch.where(better, loss, lane.best_loss)
            signs.append(weight.sign().long())

        if step in schedule.report_steps:
            found = [f for lane in lanes for f in _chosen(lane, step)]
            for name, ends in ((LOWEST_SEEN, lowest), (HIGHEST_SEEN, highest)):
                found += [Found(i, name, step, None, example) for (_, i), example in sorted(ends.items())]
            snapshots.append((step, found, [Cost(*row) for row in spent.tolist()]))

        if not last:
            spent[:, 1] += torch.bincount(states.image, minlength=n)
            spent[:, 2] += torch.bincount(states.image[zero], minlength=n)
            states = _step(states, directions, lanes, signs, targets, schedule)
    return snapshots


def _starts(targets: Targets, schedule: Schedule, restarts: range) -> _States:
    """Draw the starts: state (row, i) is restart `restarts[row]` of image i."""
    n = len(targets.images)
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(targets.images):
        sizes.setdefault(tuple(image.shape), []).append(i)
    groups, pixels = [], []
    for members in sizes.values():
        rows, stacked = [], []
        for row, restart in enumerate(restarts):
            for i in members:
                image = targets.images[i]
                if schedule.random_start:
                    generator = start_generator(schedule.seed, targets.ids[i], restart)
                    image = schedule.threat.random_start(image, generator)
                rows.append(row * n + i)
                stacked.append(image)
        groups.append(torch.tensor(rows))
        pixels.append(torch.stack(stacked))
    index = torch.arange(len(restarts) * n)
    return _States(index % n, index // n, groups, pixels)


def _evaluate(
    model: QualityModel, states: _States, threat: ThreatModel, chunk: int, *, gradient: bool
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return scores (S,), steepest directions by group, and which states have a zero gradient (S,)."""
    scores = torch.empty(len(states.image), dtype=torch.float64)
    zero = torch.zeros(len(states.image), dtype=torch.bool)
    directions = []
    for rows, pixels in zip(states.groups, states.pixels, strict=True):
        if gradient:
            evaluated = score_and_gradient(model, pixels, chunk=chunk)
            assert evaluated.gradients is not None  # noqa: S101 - asked for one line above
            scores[rows] = evaluated.scores
            zero[rows] = (evaluated.gradients.flatten(1) == 0).all(dim=1).cpu()
            directions.append(threat.direction(evaluated.gradients))
        else:
            scores[rows] = score(model, pixels, chunk=chunk)
    return scores, directions, zero


def _objective_at(
    objective: Objective, scores: Tensor, mos: Tensor, clean: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """Evaluate an objective on scores (R, n), restart by restart and batch by batch: loss, weight (R, n)."""
    losses, weights = torch.empty_like(scores), torch.empty_like(scores)
    width = batch if objective.batch_level else scores.shape[1]
    for row in range(scores.shape[0]):
        for first in range(0, scores.shape[1], width):
            part = slice(first, first + width)
            losses[row, part], weights[row, part] = objective.evaluate(
                scores[row, part], mos[part], clean[part]
            )
    return losses, weights


def _example(
    made: dict[int, Example], states: _States, scores: Tensor, s: int, restarts: range, step: int
) -> Example:
    """Return the example of a state, copied out of the stack once."""
    if s not in made:
        group, row = states.where[s]
        pixels = states.pixels[group][row].clone()
        made[s] = Example(pixels, float(scores[s]), restarts[int(states.restart[s])], step)
    return made[s]


def _chosen(lane: _Lane, steps: int) -> list[Found]:
    """Return, for every image and restart of the group, the lane's best so far."""
    return [
        Found(i, lane.objective.name, steps, float(lane.best_loss[row, i]), example)
        for row, line in enumerate(lane.best)
        for i, example in enumerate(line)
        if example is not None
    ]


def _step(
    states: _States,
    directions: list[Tensor],
    lanes: list[_Lane],
    signs: list[Tensor],
    targets: Targets,
    schedule: Schedule,
) -> _States:
    """Move every lane one step; lanes at one state with one sign go on as one state."""
    children: dict[tuple[int, int], int] = {}
    for lane, sign in zip(lanes, signs, strict=True):
        moved = torch.empty_like(lane.at)
        for (row, i), parent in zip(_grid(lane.at), lane.at.flatten().tolist(), strict=True):
            moved[row, i] = children.setdefault((parent, int(sign[row, i])), len(children))
        lane.at = moved

    parents = torch.tensor([parent for parent, _ in children])
    sign_of = torch.tensor([sign for _, sign in children])
    group_of = torch.tensor([states.where[int(p)][0] for p in parents])
    row_of = torch.tensor([states.where[int(p)][1] for p in parents])
    image, restart = states.image[parents], states.restart[parents]
    groups, pixels = [], []
    for g, (stack, direction) in enumerate(zip(states.pixels, directions, strict=True)):
        rows = (group_of == g).nonzero().flatten()
        source = row_of[rows].to(stack.device)
        clean = torch.stack([targets.images[i] for i in image[rows].tolist()])
        sign = sign_of[rows].to(stack).view(-1, 1, 1, 1)
        moved_pixels = stack[source] + schedule.step_size * sign * direction[source]
        groups.append(rows)
        pixels.append(schedule.threat.project(moved_pixels, clean))
    return _States(image, restart, groups, pixels)


def _grid(at: Tensor) -> list[tuple[int, int]]:
    rows, columns = at.shape
    return [(row, column) for row in range(rows) for column in range(columns)]


def _merge(best: dict[tuple[int, str, int], Found], found: list[Found]) -> None:
    """Keep the better of what is there and what another restart found; a tie goes to the earlier one.

    A batch-level objective is kept a batch. Its images carry one loss, the batch's, so this choice,
    made image by image, takes the same restart for all of them.
    """
    for new in found:
        key = (new.image, new.objective, new.steps)
        if key not in best or _rank(new) > _rank(best[key]):
            best[key] = new


def _rank(found: Found) -> float:
    if found.objective == LOWEST_SEEN:
        return -found.example.score
    if found.loss is None:
        return found.example.score
    return found.loss
