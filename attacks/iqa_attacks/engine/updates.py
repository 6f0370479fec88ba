"""How an iterate moves: a plain step, a step with momentum, or APGD's.

An update sees an objective only through sign(dL/df) and, for APGD, through comparisons of its loss. What
it carries from iterate to iterate (MEMORY) belongs to the state, so that two objectives share a state
only if their whole pasts agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from iqa_attacks.threat_model import ThreatModel, unit_length


class Point(NamedTuple):
    """Where every image is, or was, under one objective; both (restarts, n) float64."""

    scores: Tensor
    loss: Tensor
    """For a batch-level objective the batch's, at that moment."""

    def where(self, chosen: Tensor, other: Point) -> Point:
        """Return this point where `chosen`, elsewhere the other."""
        return Point(*(torch.where(chosen, a, b) for a, b in zip(self, other, strict=True)))


Above = Callable[[Point], Tensor]
"""Says, bool (restarts, n), where the objective is larger now than if that image alone still had its score of
a former point; where that image makes no difference, whether the batch's loss is larger than it was then."""


class Decision(NamedTuple):
    """What one objective does next, all (restarts, n)."""

    halvings: Tensor
    """Long: how often its step size has been halved."""
    best: Tensor
    """Bool: True where the current iterate is the best so far and must be kept to go back to."""
    back: Tensor
    """Bool: True where it goes on from its best iterate instead of the current one."""


class Control:
    """One objective's step size in every (restart, image); this one never changes it."""

    def __init__(self, shape: torch.Size) -> None:
        self.halvings = torch.zeros(shape, dtype=torch.long)
        self.nowhere = torch.zeros(shape, dtype=torch.bool)

    def decide(self, step: int, now: Point, above: Above) -> Decision:
        """Return what to do after iterate `step`, which is at `now`."""
        return Decision(self.halvings, self.nowhere, self.nowhere)


class Update(ABC):
    """How an iterate moves."""

    goes_back: ClassVar[bool] = False
    """Whether an objective may be sent back to its best iterate, whose slope must then be kept."""

    def slope(self, gradient: Tensor, threat: ThreatModel) -> Tensor:
        """Return what is kept of a gradient (B, C, H, W): here the steepest direction of unit size."""
        return threat.direction(gradient)

    def start(self, pixels: Tensor) -> Tensor:
        """Return the memory of starts (B, C, H, W): none."""
        return pixels[:, :0]

    def control(self, shape: torch.Size) -> Control:
        """Return an objective's step-size control for (restarts, n)."""
        return Control(shape)

    @abstractmethod
    def move(self, now: Now, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Return the next iterates (B, C, H, W), inside the threat model, and their memory."""


class Now(NamedTuple):
    """Iterates that are about to move, all with B entries."""

    pixels: Tensor
    """(B, C, H, W)."""
    memory: Tensor
    """What `start` or the last `move` returned."""
    slope: Tensor
    """What `slope` kept of the gradient at `pixels`."""
    sign: Tensor
    """(B, 1, 1, 1): sign(dL/df)."""
    size: Tensor
    """(B, 1, 1, 1): length of the step."""
    clean: Tensor
    """(B, C, H, W): centre of the ball."""
    step: int
    """Iterate that moves, 0 for the start."""


IN_CACHE = 2**21
"""Bytes of iterates that move at a time on a CPU: some ten passes over them find them in its cache."""


def moved(update: Update, now: Now, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """Return what `Update.move` gives, on a CPU of a few iterates at a time."""
    count, size = len(now.pixels), max(1, IN_CACHE // now.pixels[0].nbytes)
    if now.pixels.device.type != "cpu" or count <= size:
        return update.move(now, threat)

    def part(at: slice) -> Now:
        pixels, memory, slope, sign, length, clean, step = now
        return Now(pixels[at], memory[at], slope[at], sign[at], length[at], clean[at], step)

    given = [update.move(part(slice(first, first + size)), threat) for first in range(0, count, size)]
    pixels, memory = (torch.cat(each) for each in zip(*given, strict=True))
    return pixels, memory


@dataclass(frozen=True)
class Plain(Update):
    """A step of fixed length along the steepest direction: FGSM and PGD."""

    def move(self, now: Now, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Step and project."""
        return threat.project(now.pixels + now.size * now.sign * now.slope, now.clean), now.memory


@dataclass(frozen=True)
class Momentum(Update):
    """A step along accumulated gradients (Dong et al. 2018): g <- mu g + grad L / ||grad L||_1."""

    decay: float
    """mu."""

    def slope(self, gradient: Tensor, threat: ThreatModel) -> Tensor:
        """Return the gradient divided by its L1 norm, 0 where it is 0."""
        return unit_length(gradient, lambda rows: rows.abs().sum(dim=1))

    def start(self, pixels: Tensor) -> Tensor:
        """Return zeros: nothing is accumulated yet."""
        return torch.zeros_like(pixels)

    def move(self, now: Now, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Accumulate, step along the steepest direction of the sum, project."""
        velocity = self.decay * now.memory + now.sign * now.slope
        return threat.project(now.pixels + now.size * threat.direction(velocity), now.clean), velocity


@dataclass(frozen=True)
class AutoStep(Update):
    """APGD (Croce & Hein 2020, algorithm 1): momentum .75, step halved at checkpoints, back to the best.

    Memory is the previous iterate. A loss takes part by comparisons with itself only, so any objective will
    do. One that couples a batch is compared image by image too, by what it would be with that one score set
    back: an image of which nothing is to be gained any more does not halve the steps of the others. One that
    makes no difference by itself, as in the minimum over a batch, goes with the batch.
    """

    goes_back = True
    steps: int
    """Length of the run, which decides the checkpoints."""
    momentum: float = 0.75
    """alpha: share of the new step; 1 - alpha goes to the previous one."""
    rho: float = 0.75
    """Share of the steps since the last checkpoint that must have raised the loss."""

    def start(self, pixels: Tensor) -> Tensor:
        """Return the start itself: there is no previous step."""
        return pixels

    def control(self, shape: torch.Size) -> Control:
        """Return the halving of step sizes at checkpoints."""
        return _Halving(shape, checkpoints(self.steps), self.rho)

    def move(self, now: Now, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Step, project, mix with the previous step, project."""
        stepped = threat.project(now.pixels + now.size * now.sign * now.slope, now.clean)
        if now.step == 0:
            return stepped, now.pixels
        mixed = (
            now.pixels
            + self.momentum * (stepped - now.pixels)
            + (1 - self.momentum) * (now.pixels - now.memory)
        )
        return threat.project(mixed, now.clean), now.pixels


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return APGD's checkpoints w_j = ceil(p_j steps): p = 0, 22, 41, 57, 70, 80, 87, 93, 99 %.

    p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06); counted in percent, so that
    rounding cannot move a checkpoint. The first one, 0, is left out, and so are repeated ones.
    """
    percent = [0, 22]
    while (following := percent[-1] + max(percent[-1] - percent[-2] - 3, 6)) < 100:
        percent.append(following)
    return tuple(sorted({-(-p * steps // 100) for p in percent[1:]}))


class _Halving(Control):
    """Halve the step and go back to the best iterate where a stretch between checkpoints was poor."""

    def __init__(self, shape: torch.Size, at: tuple[int, ...], rho: float) -> None:
        super().__init__(shape)
        self.at, self.rho = at, rho
        self.last = 0
        self.gains = torch.zeros(shape, dtype=torch.long)
        self.previous = self.best = Point(*[torch.zeros(shape, dtype=torch.float64)] * 2)
        self.rose = self.nowhere
        """Where the best is younger than the last checkpoint."""
        self.halved = self.nowhere
        """Where the last checkpoint halved the step."""

    def decide(self, step: int, now: Point, above: Above) -> Decision:
        """Apply both conditions of the paper at a checkpoint; between checkpoints count the gains."""
        if step == 0:
            self.previous = self.best = now
            return Decision(self.halvings, ~self.nowhere, self.nowhere)
        self.gains = self.gains + above(self.previous)
        better = above(self.best)
        self.best = now.where(better, self.best)
        self.previous = now
        self.rose = self.rose | better
        if step not in self.at:
            return Decision(self.halvings, better, self.nowhere)
        few_gains = self.gains < self.rho * (step - self.last)
        stuck = ~self.halved & ~self.rose
        self.halved = few_gains | stuck
        self.halvings = self.halvings + self.halved
        self.previous = self.best.where(self.halved, now)
        self.last, self.rose, self.gains = step, self.nowhere, torch.zeros_like(self.gains)
        return Decision(self.halvings, better, self.halved)
