"""The distinct points a run is at: where they start, what the model says there, how they move on.

Pixels stay on their device; which image and restart a state is of, and what it does next, are vectors of the
host. A state is known by its place in those vectors, and by its row among the states of its size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_attacks.engine.parcel import upload
from iqa_attacks.engine.updates import Update
from iqa_attacks.errors import naming
from iqa_attacks.gradients import Coming, Facts, ask_mean, judged
from iqa_attacks.results import Targets, by_size
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
    batch: int
    """Consecutive images that form one batch of a batch-level objective."""
    seed: int
    restarts: int = 1
    start: Literal["clean", "ball", "sphere"] = "ball"
    """Start at the clean image, at a random point of the ball, or at one of full size."""
    keep_best: bool = True
    """Keep the best iterate, the final one included; False keeps the last one."""
    report_steps: tuple[int, ...] = ()
    """Prefixes to report besides the whole run."""
    draws: int | None = None
    """Draws of a stochastic model averaged at every point; None evaluates once."""
    falling: bool = False
    """Whether the step falls linearly over the run, to 0 beyond its last step."""

    def sizes(self, step: int, halvings: Tensor) -> Tensor:
        """Return the lengths (B,) float64 of steps from iterate `step`, so often (B,) halved."""
        left = 1 - step / self.steps if self.falling else 1.0
        return torch.from_numpy(np.ldexp(self.step_size * left, -halvings.numpy()))


DRAWERS = 16
"""Most threads that draw starts for a device; on the CPU one, beside which a pass has nothing to wait for."""


class Ground:
    """The clean images of a run on their device, those of one size in one stack."""

    def __init__(self, targets: Targets) -> None:
        groups = by_size(targets.images)
        self.members = [torch.tensor(members) for members in groups]
        """(n_g,) long each: the images of one size."""
        self.clean = [_stacked([targets.images[i] for i in members]) for members in groups]
        """(n_g, C, H, W) each."""
        self.group, self.row = torch.zeros(2, len(targets.images), dtype=torch.long)
        """(n,) long each: which stack an image is in, and where."""
        for g, members in enumerate(self.members):
            self.group[members], self.row[members] = g, torch.arange(len(members))

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.clean[0].device


def _stacked(images: Sequence[Tensor]) -> Tensor:
    return images[0].unsqueeze(0) if len(images) == 1 else torch.stack(list(images))


class Stack(NamedTuple):
    """The states of one size, all (S_g, C, H, W) but the first."""

    states: Tensor
    """(S_g,) long on the host: which they are, ascending."""
    pixels: Tensor
    """Where the ascent is."""
    shown: Tensor
    """What the model is shown and an example is made of; `pixels` itself unless only images of 8 bits are
    admissible, whose gradient then passes straight through the rounding."""
    memory: Tensor
    """(S_g, ...): what the update carries along."""


class States(NamedTuple):
    """The distinct (image, restart) points of one iterate."""

    image: Tensor
    """(S,) long: which image a state is a version of."""
    restart: Tensor
    """(S,) long: counted within the group of restarts that run together."""
    row: Tensor
    """(S,) long: its place in the stack of its size."""
    stacks: list[Stack]
    """By size, as in `Ground`."""


class Evaluated(NamedTuple):
    """What the model says at every state."""

    facts: Facts
    """By state."""
    slopes: list[Tensor]
    """(S_g, C, H, W) by size: what the update keeps of the gradients; empty without gradients."""


class Asking(NamedTuple):
    """What a model was asked at every state; nothing of it is read yet."""

    model: QualityModel
    names: list[str]
    """(S,) ids of the images, in the order of the numbers."""
    order: Tensor
    """(S,) long: the states in that order."""
    numbers: Coming
    slopes: list[Tensor]
    draws: int

    def read(self) -> Evaluated:
        """Return what the model says: one wait for the device.

        Raises:
            AttackFailed: a score or a gradient is not finite.
        """
        near = self.numbers.wait()
        with naming(self.names):
            facts = judged(self.model, near, self.draws)
        # From the order of the stacks to that of the states.
        back = self.order.argsort()
        return Evaluated(Facts(facts.scores[back], facts.zero[back]), self.slopes)


def starts(targets: Targets, ground: Ground, schedule: Schedule, restarts: range) -> States:
    """Draw the starts: state (row, i) is restart `restarts[row]` of image i."""
    n = len(targets.images)
    index = torch.arange(len(restarts) * n)
    places = torch.empty_like(index)
    stacks = []
    for members, clean in zip(ground.members, ground.clean, strict=True):
        rows = (torch.arange(len(restarts)).view(-1, 1) * n + members).flatten()
        places[rows] = torch.arange(len(rows))
        centres = clean if len(restarts) == 1 else clean.repeat(len(restarts), 1, 1, 1)
        pixels = centres
        if schedule.start != "clean":
            ids = [targets.ids[i] for i in members.tolist()]
            changes = _changes(schedule, clean, [(i, r) for r in restarts for i in ids])
            pixels = schedule.threat.project(centres + changes, centres)
        shown = as_shown(schedule.threat, pixels, centres)
        stacks.append(Stack(rows, pixels, shown, schedule.update.start(pixels)))
    return States(index % n, index // n, places, stacks)


def _changes(schedule: Schedule, like: Tensor, moments: Sequence[tuple[str, int]]) -> Tensor:
    """Draw the changes (B, C, H, W) of starts, by (id, restart), and bring them to the device."""
    threat = schedule.threat
    draw = threat.ball_change if schedule.start == "ball" else threat.sphere_change

    def drawn(moment: tuple[str, int]) -> Tensor:
        return draw(like.shape[1:], start_generator(schedule.seed, *moment))

    if like.device.type == "cpu":
        return torch.stack([drawn(moment).to(like.dtype) for moment in moments])

    def written(moment: tuple[str, int]) -> Tensor:
        # Pinned by who draws, and one by one: memory to send from is made in small pieces, and used again.
        pinned = torch.empty(like.shape[1:], dtype=like.dtype, device="cpu", pin_memory=like.is_cuda)
        if like.dtype.itemsize < 4:  # NumPy has no bfloat16
            return pinned.copy_(drawn(moment))
        pinned.numpy()[...] = drawn(moment).numpy()  # by this thread alone
        return pinned

    with ThreadPoolExecutor(min(DRAWERS, os.cpu_count() or 1)) as pool:
        return torch.stack([upload(change, like.device) for change in pool.map(written, moments)])


def as_shown(threat: ThreatModel, pixels: Tensor, clean: Tensor) -> Tensor:
    """Return what the model is shown of points (B, C, H, W)."""
    return pixels if threat.pixels == "float" else threat.admit(pixels, clean, checked=True)


def ask_states(
    model: QualityModel,
    states: States,
    targets: Targets,
    schedule: Schedule,
    moment: tuple[range, int],
    *,
    chunk: int,
    gradient: bool,
) -> Asking:
    """Ask for every state's score, with its slope if `gradient`; of a stochastic model the mean of its draws.

    Nothing is waited for.

    Args:
        model: in eval mode.
        states: all of one iterate.
        targets: the images.
        schedule: threat model, update and draws.
        moment: the restarts that run together, and the iterate.
        chunk: images in one pass.
        gradient: whether slopes are wanted.
    """
    names = [targets.ids[i] for i in states.image.tolist()]
    restarts, step = moment
    numbers, slopes = [], []
    for stack in states.stacks:
        ids = [names[s] for s in stack.states.tolist()]
        seeds = None
        if schedule.draws is not None:
            moments = [(restarts[row], step) for row in states.restart[stack.states].tolist()]
            seeds = [
                draw_seeds(schedule.seed, *each, schedule.draws) for each in zip(ids, moments, strict=True)
            ]
        with naming(ids):
            asked = ask_mean(model, stack.shown, seeds, chunk=chunk, gradient=gradient)
        numbers.append(asked.numbers)
        if asked.gradients is not None:
            slopes.append(schedule.update.slope(asked.gradients, schedule.threat))
    order = torch.cat([stack.states for stack in states.stacks])
    return Asking(
        model, [names[s] for s in order.tolist()], order, Coming(numbers), slopes, schedule.draws or 1
    )
