"""The power of an attack: does it find what is known to be there? Plants in a model's score.

A plant is a basin that is reachable by construction: around a hidden admissible image near the clean one
the score rises (or falls) by more than the model's own slope promises, smoothly and from everywhere in the
ball. It stands behind the model's own front end: how high the score is on the way up is read off the model
itself, along a straight change of the clean image. A gradient that is zero, of the wrong sign or shattered
hides the plant as it hides the model's own basins. After Zimmermann et al., Increasing Confidence in
Adversarial Robustness Evaluations, NeurIPS 2022, who plant classes in a network's features; scores need
another construction.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from iqa_attacks import Attack, ThreatModel
from iqa_attacks.gradients import score, score_and_gradient
from iqa_attacks.results import Cost
from iqa_attacks.seeding import start_generator
from iqa_models import QualityModel

WIDTHS = (1 / 2, 1 / 3)
"""Distances from the centre at which half of a plant is left; 1 is that of the clean image from it."""
STEEPNESSES = (0.25, 0.5, 1.0, 2.0)
"""Slopes of a plant where attacks begin, as multiples of what the model's own slope promises there."""
MUST_FIND = 1.0
"""Steepness from which on whoever follows the gradient is drawn to the plant: the flag counts these."""
DEPTH = 0.5
"""Distance of a centre from the clean image in norms 2 and rmse, in radii; a pixel of a uniform point of a
ball in norm inf is as far away in the mean."""
FLOOR = 1e-3
"""Least that a model's slope is taken to promise, in score ranges: of one whose gradient is zero."""
SIZES = (1, 4, 16, 64)
"""Lengths of the lines that are tried, in radii, until the score changes enough along one."""
LONGEST = 0.25
"""Longest change of a pixel on a line."""
POINTS = 4
"""Parts of a line in which the score must move the same way."""
CHANGE = 1e-3
"""Least change of the score along a line, in score ranges: far above what float32 rounds away."""
STRAIGHT = 0.5
"""Least slope of any part of a line, as a share of the mean one."""
FOUND = 0.5
"""Share of the height from which on a plant is found: the example lies within its width."""


class Bed(NamedTuple):
    """Where plants of every grade can stand in a model's score at one image."""

    name: str
    """Id of the image."""
    clean: Tensor
    """(3, H, W) in [0, 1]."""
    centre: Tensor
    """(3, H, W): an admissible image."""
    line: Tensor
    """(3, H, W): change of the clean image along which the model's own score moves one way."""
    change: float
    """By how much it does, from the clean image to the end of the line."""
    sign: int
    """1 for a plant that raises the score, -1 for one that lowers it."""
    promise: float
    """What the model's slope promises within the ball, at a random start, on the model's own scale."""
    far: float
    """Squared distance of that start from the centre; the clean image's is 1."""
    pull: float
    """What the slope of half of that promises."""

    def height(self, width: float, steepness: float) -> float:
        """Return by how much the score moves at the centre of a plant of a grade."""
        slope = 2 * self.pull / width**2 / (1 + self.far / width**2) ** 2
        return steepness * self.promise / slope


class _Row(NamedTuple):
    """The plants of all images of one size, stacked."""

    clean: Tensor
    centre: Tensor
    line: Tensor
    square: Tensor
    """(n,): squared distance at which half of a plant is left."""
    factor: Tensor
    """(n,): height over the model's own change along the line."""
    base: Tensor
    """(n,): the model's clean scores."""


class Planted(QualityModel):
    """A model with one plant of a grade at every one of some images; of no use on others.

    Score: the model's own, plus ``factor (f(clean + near line) - f(clean))``, where ``near``, 1 at the
    centre, falls as ``1 / (1 + (distance / width)^2)`` and f is the model.
    """

    def __init__(self, model: QualityModel, beds: Sequence[Bed], width: float, steepness: float) -> None:
        super().__init__(model.spec.replace(name=f"{model.spec.name}+plants", higher_is_better=True))
        self.model = model
        sizes: dict[torch.Size, list[Bed]] = {}
        for each in beds:
            sizes.setdefault(each.clean.shape, []).append(each)
        self._rows = {size: _row(model, mine, (width, steepness)) for size, mine in sizes.items()}
        self.to(beds[0].clean.device).eval()

    @property
    def ways(self) -> tuple[QualityModel, ...]:
        """The planted model with each gradient that the model has."""
        found = []
        for way in self.model.ways:
            other = copy.copy(self)
            other._modules = {**self._modules, "model": way}
            found.append(other)
        return tuple(found)

    @property
    def recordable(self) -> bool:
        """No: it looks for the image that it is shown a version of."""
        return False

    def near(self, images: Tensor) -> Tensor:
        """Return the share of their plants' heights that images (B, 3, H, W) reach: (B,), 1 at the centre."""
        return self._near(images)[2]

    def _near(self, images: Tensor) -> tuple[_Row, Tensor, Tensor]:
        row = self._rows[images.shape[1:]]
        away = [(images.detach() - clean).abs().flatten(1).sum(dim=1) for clean in row.clean]
        which = torch.stack(away).argmin(dim=0)  # the image that each is a version of
        distance = (images - row.centre[which]).square().flatten(1).sum(dim=1)
        return row, which, 1 / (1 + distance / row.square[which])

    def predict(self, images: Tensor) -> Tensor:
        """Return scores (B,) of versions of the planted images."""
        row, which, near = self._near(images)
        shown = row.clean[which] + near.view(-1, 1, 1, 1) * row.line[which]
        seen = self.model.score_admitted(shown.clamp(0, 1))
        return self.model.score_admitted(images) + row.factor[which] * (seen - row.base[which])


def _row(model: QualityModel, beds: Sequence[Bed], grade: tuple[float, float]) -> _Row:
    clean, centre, line = (torch.stack([getattr(b, n) for b in beds]) for n in ("clean", "centre", "line"))
    factors = torch.tensor([b.sign * b.height(*grade) / b.change for b in beds])
    return _Row(
        clean,
        centre,
        line,
        (clean - centre).square().flatten(1).sum(dim=1) * grade[0] ** 2,
        factors.to(clean),
        score(model, clean, chunk=len(beds)).to(clean),
    )


class Looked(NamedTuple):
    """What an attack found of the plant at one image."""

    near: float
    """Share of the height that its nearest example reaches."""
    cost: Cost
    """Its work on the image."""

    @property
    def found(self) -> bool:
        """Whether an example lies within the plant's width."""
        return self.near >= FOUND


def look(planted: Planted, beds: Sequence[Bed], attack: Attack, mos: Tensor, chunk: int) -> list[Looked]:
    """Run an attack on a planted model and return what it found at every bed.

    Args:
        planted: the model with plants in these beds.
        beds: all of them.
        attack: as the suite has it, with its own objectives: whatever any of them found counts.
        mos: (n,) labels on [0, 1].
        chunk: images in one pass.

    Raises:
        AttackError: the attack cannot be run, or the model gives what no attack can use.
    """
    result = attack.run(
        planted, [each.clean for each in beds], [each.name for each in beds], mos, chunk=chunk
    )
    near = [0.0] * len(beds)
    with torch.no_grad():
        for found in result.found:
            reached = float(planted.near(found.example.pixels.unsqueeze(0)))
            near[found.image] = max(near[found.image], reached)
    longest = max(steps for _, steps in result.cost)
    return [Looked(value, result.cost[place, longest]) for place, value in enumerate(near)]


def make_bed(
    model: QualityModel, clean: Tensor, threat: ThreatModel, sign: int, *, seed: int, name: str
) -> Bed | None:
    """Return where plants can stand at an image, None if its score moves along no line straight enough.

    Args:
        model: deterministic, with a gradient, in eval mode.
        clean: the image (3, H, W), on the model's device.
        threat: what is admissible.
        sign: 1 to raise, -1 to lower.
        seed: with the image's name, of the centre and of the start.
        name: of the image.

    Raises:
        AttackFailed: no usable score or gradient.
    """
    generator = start_generator(seed, f"plant {name}", 0)
    batch = clean.unsqueeze(0)
    share = 1.0 if threat.norm == "inf" else DEPTH
    centre = threat.admit(batch + share * threat.ball_change(clean.shape, generator).to(batch), batch)
    distance = float((centre - batch).double().square().sum())
    found = _line(model, clean, threat, generator)
    if found is None or not distance:
        return None
    start = threat.random_start(clean, generator).unsqueeze(0)
    promise = _promise(threat, score_and_gradient(model, start, chunk=1).gradients)
    away = (centre - start).double()
    return Bed(
        name,
        clean,
        centre[0],
        *found,
        sign,
        max(promise, FLOOR * _range(model)),
        float(away.square().sum()) / distance,
        _promise(threat, away) / distance,
    )


def _promise(threat: ThreatModel, gradient: Tensor) -> float:
    """Return what a slope (1, 3, H, W) gains over a radius if it stays as it is."""
    if threat.norm == "inf":
        return float(gradient.double().abs().sum()) * threat.epsilon
    return float(gradient.double().norm()) * threat.radius_2(gradient)


def _line(
    model: QualityModel, clean: Tensor, threat: ThreatModel, generator: torch.Generator
) -> tuple[Tensor, float] | None:
    """Return a line along which the score moves one way and how far: of the shortest ones the straightest.

    Values decide, no gradient: a masked one must not choose.
    """
    radius = threat.epsilon
    if threat.norm != "inf":
        radius = threat.radius_2(clean.unsqueeze(0)) / math.sqrt(clean.numel())
    soft = functional.avg_pool2d(clean, 5, stride=1, padding=2, count_include_pad=False)
    grain = (torch.randint(0, 2, clean.shape, generator=generator) * 2 - 1).to(clean)
    ways = (torch.ones_like(clean), (clean - clean.mean()).sign(), (soft - clean).sign(), grain)
    for size in SIZES:
        length = min(size * radius, LONGEST)
        best: tuple[float, Tensor, float] | None = None
        for way in (each * side for each in ways for side in (1, -1)):
            line = (clean + length * way).clamp(0, 1) - clean
            points = torch.stack([clean + part / POINTS * line for part in range(POINTS + 1)])
            scores = score(model, points.clamp(0, 1), chunk=len(points))
            change = float(scores[-1] - scores[0])
            if abs(change) < CHANGE * _range(model):
                continue
            straight = float((scores.diff() / change).min()) * POINTS
            if straight >= STRAIGHT and (best is None or straight > best[0]):
                best = straight, line, change
        if best is not None:
            return best[1:]
    return None


def _range(model: QualityModel) -> float:
    low, high = model.spec.score_range
    return high - low
