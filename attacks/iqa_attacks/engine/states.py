"""The distinct points a run is at: where they start, what the model says there, how they move on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iqa_attacks.engine.updates import Now, Update
from iqa_attacks.errors import naming
from iqa_attacks.gradients import (
    expected_score,
    expected_score_and_gradient,
    score,
    score_and_gradient,
)
from iqa_attacks.results import Example, Targets
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel


@dataclass(frozen=True)
class Schedule:
    """How far and how often an ascent goes; everything that decides its iterates."""

    threat: ThreatModel
    update: Update
    steps: int
    step_size: float
    restarts: int
    start: Literal["clean", "ball", "sphere"]
    """Start at the clean image, at a random point of the ball, or at one of full size."""
    keep_best: bool
    """Keep the best iterate, the final one included; False keeps the last one."""
    report_steps: tuple[int, ...]
    """Prefixes to report, ascending, the last one being `steps`."""
    batch: int
    """Consecutive images that form one batch of a batch-level objective."""
    seed: int
    draws: int | None
    """Draws of a stochastic model averaged at every point; None evaluates once."""
    falling: bool = False
    """Whether the step falls linearly over the run, to 0 beyond its last step."""

    def size(self, step: int, halvings: int) -> float:
        """Return the length of the step from iterate `step`, so often halved."""
        left = 1 - step / self.steps if self.falling else 1.0
        return self.step_size * left * 0.5**halvings


@dataclass
class States:
    """The distinct (image, restart) points of one iterate, stacked by image size."""

    image: Tensor
    """(S,) long: which image a state is a version of."""
    restart: Tensor
    """(S,) long: counted within the group of restarts that run together."""
    groups: list[Tensor]
    """(S_g,) long each: the states of one size."""
    pixels: list[Tensor]
    """(S_g, C, H, W) each: where the ascent is."""
    shown: list[Tensor]
    """(S_g, C, H, W) each: what the model is shown and an example is made of; `pixels` itself unless only
    images of 8 bits are admissible, whose gradient then passes straight through the rounding."""
    memory: list[Tensor]
    """(S_g, ...) each: what the update carries along."""
    where: list[tuple[int, int]] = field(init=False)
    """Group and row of every state."""

    def __post_init__(self) -> None:
        place = {
            int(s): (g, row) for g, rows in enumerate(self.groups) for row, s in enumerate(rows.tolist())
        }
        self.where = [place[s] for s in range(len(self.image))]


class Evaluated(NamedTuple):
    """What the model says at every state."""

    scores: Tensor
    """(S,) float64."""
    slopes: list[Tensor]
    """(S_g, C, H, W) by group: what the update keeps of the gradients; empty without gradients."""
    zero: Tensor
    """(S,) bool: gradients that are zero in every pixel."""


class Best(NamedTuple):
    """An iterate an objective may be sent back to."""

    example: Example
    pixels: Tensor
    """(C, H, W): where the ascent was, of which the example is the admissible version."""
    slope: Tensor
    """(C, H, W): what the update kept of the gradient there."""
    sign: int
    """sign(dL/df) there."""


class Move(NamedTuple):
    """A state's way to its child; objectives that take the same way go on as one state."""

    parent: int
    sign: int
    halvings: int
    back: int | None
    """Identity of the example it goes on from, None for the parent itself."""


def starts(targets: Targets, schedule: Schedule, restarts: range) -> States:
    """Draw the starts: state (row, i) is restart `restarts[row]` of image i."""
    n = len(targets.images)
    groups, pixels, shown = [], [], []
    for members in targets.by_size():
        rows, stacked = [], []
        for row, restart in enumerate(restarts):
            for i in members:
                image = targets.images[i]
                if schedule.start != "clean":
                    generator = start_generator(schedule.seed, targets.ids[i], restart)
                    draw = (
                        schedule.threat.random_start
                        if schedule.start == "ball"
                        else schedule.threat.random_noise
                    )
                    image = draw(image, generator)
                rows.append(row * n + i)
                stacked.append(image)
        groups.append(torch.tensor(rows))
        pixels.append(torch.stack(stacked))
        clean = torch.stack([targets.images[i] for i in members]).repeat(len(restarts), 1, 1, 1)
        shown.append(_shown(schedule.threat, pixels[-1], clean))
    index = torch.arange(len(restarts) * n)
    memory = [schedule.update.start(p) for p in pixels]
    return States(index % n, index // n, groups, pixels, shown, memory)


def _shown(threat: ThreatModel, pixels: Tensor, clean: Tensor) -> Tensor:
    return pixels if threat.pixels == "float" else threat.admit(pixels, clean)


def evaluate(
    model: QualityModel,
    states: States,
    targets: Targets,
    schedule: Schedule,
    restarts: range,
    step: int,
    *,
    chunk: int,
    gradient: bool,
) -> Evaluated:
    """Score every state, with its slope if `gradient`; a stochastic model by the mean of its draws."""
    scores = torch.empty(len(states.image), dtype=torch.float64)
    zero = torch.zeros(len(states.image), dtype=torch.bool)
    slopes = []
    for rows, pixels in zip(states.groups, states.shown, strict=True):
        ids = [targets.ids[i] for i in states.image[rows].tolist()]
        if schedule.draws is None:
            with naming(ids):
                if not gradient:
                    scores[rows] = score(model, pixels, chunk=chunk)
                    continue
                scores[rows], gradients = score_and_gradient(model, pixels, chunk=chunk)
        else:
            means, sloping = [], []
            for version, image_id, row in zip(pixels, ids, rows.tolist(), strict=True):
                moment = (restarts[int(states.restart[row])], step)
                seeds = draw_seeds(schedule.seed, image_id, moment, schedule.draws)
                with naming([image_id]):
                    if gradient:
                        mean, slope = expected_score_and_gradient(model, version, seeds)
                        sloping.append(slope)
                    else:
                        mean = expected_score(model, version, seeds)
                means.append(mean)
            scores[rows] = torch.tensor(means, dtype=torch.float64)
            if not gradient:
                continue
            gradients = torch.stack(sloping)
        zero[rows] = (gradients.flatten(1) == 0).all(dim=1).cpu()
        slopes.append(schedule.update.slope(gradients, schedule.threat))
    return Evaluated(scores, slopes, zero)


def advance(
    states: States,
    slopes: Sequence[Tensor],
    moves: Sequence[Move],
    bests: dict[int, Best],
    targets: Targets,
    schedule: Schedule,
    step: int,
) -> States:
    """Return the states that distinct moves lead to, in the order of the moves.

    Args:
        states: where the moves start.
        slopes: by group, as `evaluate` returned them.
        moves: distinct.
        bests: by identity, the iterates that moves go back to.
        targets: the images.
        schedule: threat model, update and step size.
        step: iterate the moves start from, 0 for the starts.
    """
    parents = torch.tensor([move.parent for move in moves])
    image, restart = states.image[parents], states.restart[parents]
    place = [states.where[move.parent] for move in moves]
    groups, pixels, shown, memory = [], [], [], []
    for g, (stack, kept, slope) in enumerate(zip(states.pixels, states.memory, slopes, strict=True)):
        rows = [k for k, (group, _) in enumerate(place) if group == g]
        source = torch.tensor([place[k][1] for k in rows], device=stack.device, dtype=torch.long)
        at, along = stack[source], slope[source]
        signs = [moves[k].sign for k in rows]
        for j, k in enumerate(rows):
            back = moves[k].back
            if back is not None:
                at[j], along[j] = bests[back].pixels, bests[back].slope
        size = [schedule.size(step, moves[k].halvings) for k in rows]
        now = Now(
            pixels=at,
            memory=kept[source],
            slope=along,
            sign=torch.tensor(signs).to(stack).view(-1, 1, 1, 1),
            size=torch.tensor(size, dtype=torch.float64).to(stack).view(-1, 1, 1, 1),
            clean=torch.stack([targets.images[i] for i in image[rows].tolist()]),
            step=step,
        )
        moved, carried = schedule.update.move(now, schedule.threat)
        groups.append(torch.tensor(rows))
        pixels.append(moved)
        shown.append(_shown(schedule.threat, moved, now.clean))
        memory.append(carried)
    return States(image, restart, groups, pixels, shown, memory)
