"""What an attack is given and what it hands back, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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

    def by_size(self) -> list[list[int]]:
        """Return the indices of the images, those of one size together, in order."""
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(self.images):
            sizes.setdefault(tuple(image.shape), []).append(i)
        return list(sizes.values())


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
