"""What an attack is given and what it hands back, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LOWEST_SEEN, HIGHEST_SEEN = "lowest_seen", "highest_seen"


class Example(NamedTuple):
    """One attacked image; objectives that chose the same point share this object."""

    pixels: Tensor
    """(C, H, W) in the threat model."""
    score: float
    """Score the attack saw, on the model's own scale."""
    restart: int
    """Restart that found it."""
    step: int
    """Iterate (or query) of that restart, 0 for its start."""


class Best:
    """The best version met of each of some images of one size, by numbers of which the largest is wanted."""

    def __init__(self, like: Tensor, restart: int = 0) -> None:
        """Start with none, of images (B, C, H, W), in a restart."""
        self.restart, self.at = restart, torch.empty_like(like)
        """(B, C, H, W)."""
        self.loss = torch.full((len(like),), -torch.inf, dtype=torch.float64)
        self.scores, self.steps = torch.zeros_like(self.loss), torch.zeros(len(like), dtype=torch.long)
        self._made: dict[int, Example] = {}

    def take(
        self, tried: Tensor, loss: Tensor, scores: Tensor, step: int, rows: Tensor | None = None
    ) -> None:
        """Keep versions (R, C, H, W) whose number (R,) is larger than before, of the images `rows` or all."""
        better = (loss > (self.loss if rows is None else self.loss[rows])).nonzero().flatten()
        if len(better):
            own = better if rows is None else rows[better]
            self.at[own.to(tried.device)] = tried[better.to(tried.device)]
            self.loss[own], self.scores[own], self.steps[own] = loss[better], scores[better], step
            for j in own.tolist():
                self._made.pop(j, None)

    def example(self, j: int) -> Example:
        """Return the best of one image, one object for as long as it is the best."""
        if j not in self._made:
            score, step = float(self.scores[j]), int(self.steps[j])
            self._made[j] = Example(self.at[j].clone(), score, self.restart, step)
        return self._made[j]


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

    def plus(self, other: Cost) -> Cost:
        """Return the work of both."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> Cost:
        """Return so many times the work."""
        return Cost(*(count * each for each in self))


class Targets(NamedTuple):
    """Images under attack, in evaluation order."""

    images: Sequence[Tensor]
    """(C, H, W) each in [0, 1]; sizes may differ."""
    ids: Sequence[str]
    mos: Tensor
    """(n,) float64 on [0, 1]."""
    clean: Tensor
    """(n,) float64: clean scores on the model's own scale."""


def by_size(images: Sequence[Tensor], most: int | None = None) -> list[list[int]]:
    """Return the places of images, those of one size together, in order, and at most so many."""
    sizes: dict[torch.Size, list[int]] = {}
    for place, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(place)
    step = most or len(images)
    return [places[at : at + step] for places in sizes.values() for at in range(0, len(places), step)]


@dataclass
class Ascent:
    """What a run found."""

    found: list[Found]
    """One entry an (image, objective, reported number of steps)."""
    cost: dict[tuple[int, int], Cost]
    """Work by (image, steps)."""


def ends(image: int, steps: int, examples: Sequence[Example]) -> list[Found]:
    """Return the entries of the lowest and the highest score met on an image."""
    return [
        Found(image, name, steps, None, end(examples, key=lambda example: example.score))
        for name, end in ((LOWEST_SEEN, min), (HIGHEST_SEEN, max))
    ]


def joined(ascents: Sequence[Ascent]) -> Ascent:
    """Return the better of what several searches found, image by image, and the work of all."""
    first, *others = ascents
    if not others:
        return first
    best: dict[tuple[int, str, int], Found] = {}
    cost: dict[tuple[int, int], Cost] = {}
    for ascent in ascents:
        merge(best, ascent.found)
        for key, spent in ascent.cost.items():
            cost[key] = cost.get(key, Cost(0, 0, 0)).plus(spent)
    return Ascent([best[key] for key in sorted(best)], cost)


def merge(best: dict[tuple[int, str, int], Found], found: Sequence[Found]) -> None:
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
