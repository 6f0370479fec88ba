"""Square attack on scores: random search with squares, no gradient (Andriushchenko et al. 2020).

The attack keeps what raises a loss; what it tries comes from `Moves`: squares of +-2 eps in norm inf, windows
of one length in norm 2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.attack import Attack, Effort
from iqa_attacks.catalogue import register_attack
from iqa_attacks.errors import naming
from iqa_attacks.gradients import expected_score, score
from iqa_attacks.objectives import Objective
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Ascent, Cost, Example, Found, Targets, merge
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.settings import Count
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel

FIRST_AREA = {"inf": 0.8, "2": 0.1, "rmse": 0.1}
"""Share of the image that the first squares cover, by norm: the paper's for budgets of 10,000."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the squares' area is halved; other budgets scale them."""


@register_attack
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search for a higher loss, one square of the image a query (`Moves` says how it moves).

    Squares and signs come from (seed, image id, restart) and do not depend on what is kept, so every
    objective sees the same proposals. Objectives that couple a batch are refused: images are searched one
    by one.
    """

    kind = "square"
    image_by_image = True
    queries: Count
    """Evaluations of an objective on an image, the start included."""
    restarts: Count = 1
    """Searches an image, each with squares of its own."""
    first_area: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the image that the first squares cover (p in the paper): .8 in norm inf, else .1."""

    @property
    def effort(self) -> Effort:
        """Queries and restarts; no step size."""
        return Effort(self.queries, 0.0, self.restarts)

    @property
    def moves(self) -> Moves:
        """What is proposed, in the threat model's norm."""
        norm = self.threat.norm
        kind = InfMoves if norm == "inf" else L2Moves
        return kind(self.threat, self.queries, self.first_area or FIRST_AREA[norm])

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Search for every objective, restart after restart, images of one size together."""
        objectives = self.create_objectives()
        best: dict[tuple[int, str, int], Found] = {}
        for restart in range(self.restarts):
            for members in targets.by_size():
                searched = _Images(model, targets, members, self.seed, restart, draws, chunk)
                merge(best, self._search(searched, objectives))
        # The start is one for all objectives; after it each has an image of its own.
        queries = self.restarts * (1 + (self.queries - 1) * len(objectives)) * (draws or 1)
        cost = {(i, self.queries): Cost(queries, 0, 0) for i in range(len(targets.images))}
        return Ascent([best[key] for key in sorted(best)], cost)

    def _search(self, on: _Images, objectives: Sequence[Objective]) -> list[Found]:
        """Return the best of one restart on images of one size, for every objective, and the ends met."""
        clean, mos, clean_scores = on.clean, on.targets.mos[on.members], on.unit(on.targets.clean[on.members])
        generators = [start_generator(self.seed, image_id, on.restart) for image_id in on.ids]
        seen, moves = _Seen(len(on.members)), self.moves
        lanes = [_Lane(objective, clean) for objective in objectives]
        for query in range(self.queries):
            if query == 0:
                tried = moves.start(clean, generators).unsqueeze(0)
            else:
                tried = moves.propose(torch.stack([lane.at for lane in lanes]), clean, generators, query)
            scores = on.scores(tried, query)
            seen.look(tried, scores, on.restart, query)
            for k, lane in enumerate(lanes):
                row = k if query else 0
                loss = lane.objective.value(on.unit(scores[row]), mos, clean_scores)
                lane.take(tried[row], loss, scores[row], query)
        found = [
            Found(i, lane.objective.name, self.queries, float(lane.loss[j]), lane.example(j, on.restart))
            for lane in lanes
            for j, i in enumerate(on.members)
        ]
        for name, ends in ((LOWEST_SEEN, seen.lowest), (HIGHEST_SEEN, seen.highest)):
            found += [
                Found(i, name, self.queries, None, end) for i, end in zip(on.members, ends, strict=True)
            ]
        return found


@dataclass(frozen=True)
class _Images:
    """Images of one size under search, and how versions of them are scored."""

    model: QualityModel
    targets: Targets
    members: list[int]
    seed: int
    restart: int
    draws: int | None
    chunk: int

    @property
    def ids(self) -> list[str]:
        return [self.targets.ids[i] for i in self.members]

    @property
    def clean(self) -> Tensor:
        """(B, C, H, W)."""
        return torch.stack([self.targets.images[i] for i in self.members])

    def unit(self, scores: Tensor) -> Tensor:
        """Return scores on [0, 1] of the model's range."""
        low, high = self.model.spec.score_range
        return (scores - low) / (high - low)

    def scores(self, tried: Tensor, query: int) -> Tensor:
        """Return the scores (K, B) of versions (K, B, C, H, W)."""
        ids = self.ids * len(tried)
        versions = tried.flatten(0, 1)
        if self.draws is None:
            with naming(ids):
                return score(self.model, versions, chunk=self.chunk).view(len(tried), -1)
        means = []
        for version, image_id in zip(versions, ids, strict=True):
            seeds = draw_seeds(self.seed, image_id, (self.restart, query), self.draws)
            with naming([image_id]):
                means.append(expected_score(self.model, version, seeds))
        return torch.tensor(means, dtype=torch.float64).view(len(tried), -1)


class _Lane:
    """One objective's best so far on some images."""

    def __init__(self, objective: Objective, clean: Tensor) -> None:
        self.objective = objective
        self.at = torch.empty_like(clean)
        """(B, C, H, W)."""
        self.loss = torch.full((len(clean),), -torch.inf, dtype=torch.float64)
        self.scores, self.steps = [0.0] * len(clean), [0] * len(clean)

    def take(self, tried: Tensor, loss: Tensor, scores: Tensor, query: int) -> None:
        """Keep versions (B, C, H, W) where a query raised the loss (B,)."""
        for j in (loss > self.loss).nonzero().flatten().tolist():
            self.at[j], self.loss[j] = tried[j], loss[j]
            self.scores[j], self.steps[j] = float(scores[j]), query

    def example(self, j: int, restart: int) -> Example:
        """Return the best of one image."""
        return Example(self.at[j].clone(), self.scores[j], restart, self.steps[j])


class _Seen:
    """The ends of all scores met on some images."""

    def __init__(self, count: int) -> None:
        nothing = torch.empty(0)
        self.lowest = [Example(nothing, math.inf, 0, 0)] * count
        self.highest = [Example(nothing, -math.inf, 0, 0)] * count

    def look(self, tried: Tensor, scores: Tensor, restart: int, query: int) -> None:
        """Take in versions (K, B, C, H, W) and their scores (K, B)."""
        for j, (down, up) in enumerate(
            zip(scores.argmin(dim=0).tolist(), scores.argmax(dim=0).tolist(), strict=True)
        ):
            if float(scores[down, j]) < self.lowest[j].score:
                self.lowest[j] = Example(tried[down, j].clone(), float(scores[down, j]), restart, query)
            if float(scores[up, j]) > self.highest[j].score:
                self.highest[j] = Example(tried[up, j].clone(), float(scores[up, j]), restart, query)


def halvings(query: int, queries: int) -> int:
    """Return how often the squares' area has been halved at a query of a budget."""
    return sum(query * 10_000 > limit * queries for limit in HALVINGS)


@dataclass(frozen=True)
class Moves(ABC):
    """Proposals for images of one size. All draws come from the images' generators, none from scores.

    So every objective sees the same places and signs, whatever it keeps.
    """

    threat: ThreatModel
    queries: int
    first_area: float
    """Share of the image that the first squares cover (p in the paper)."""

    @abstractmethod
    def start(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the first versions (B, C, H, W) of clean images."""

    @abstractmethod
    def propose(self, at: Tensor, clean: Tensor, generators: Sequence[torch.Generator], query: int) -> Tensor:
        """Return the versions (K, B, C, H, W) to try next, from the best (K, B, C, H, W) so far."""

    def _side(self, clean: Tensor, query: int) -> int:
        height, width = clean.shape[-2:]
        area = self.first_area / 2 ** halvings(query, self.queries)
        return min(max(round(math.sqrt(area * height * width)), 1), height, width)

    def _admit(self, moved: Tensor, clean: Tensor) -> Tensor:
        around = clean.expand_as(moved).flatten(0, 1)
        return self.threat.admit(moved.flatten(0, 1), around).view_as(moved)


class InfMoves(Moves):
    """Vertical stripes of +-eps first; then one square goes up or down by 2 eps, channel by channel."""

    def start(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return stripes, a sign a channel and column."""
        channels, _, width = clean.shape[1:]
        signs = torch.stack([_signs((channels, 1, width), g) for g in generators])
        return self.threat.admit(clean + self.threat.epsilon * signs.to(clean), clean)

    def propose(self, at: Tensor, clean: Tensor, generators: Sequence[torch.Generator], query: int) -> Tensor:
        """Move one square an image."""
        channels, height, width = clean.shape[1:]
        side = self._side(clean, query)
        change = torch.zeros_like(clean)
        for j, generator in enumerate(generators):
            top, left = _corner(height, width, side, generator)
            signs = _signs((channels, 1, 1), generator).to(clean)
            change[j, :, top : top + side, left : left + side] = 2 * self.threat.epsilon * signs
        return self._admit(at + change, clean)


class L2Moves(Moves):
    """A grid of bumps first; then one window is emptied into another, the whole change keeping its length.

    The window that gains keeps its own direction and adds a bump, half up and half down, of random sign a
    channel and lying or standing (Andriushchenko et al. 2020, algorithm 3). What the change had not used
    of the radius, because the box cut it off, goes to that window, too.
    """

    def start(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return bumps on a grid of about five by five."""
        channels, height, width = clean.shape[1:]
        side = max(1, min(height, width) // 5)
        change = torch.zeros_like(clean)
        for j, generator in enumerate(generators):
            for top in range((height % side) // 2, height - side + 1, side):
                for left in range((width % side) // 2, width - side + 1, side):
                    window = change[j, :, top : top + side, left : left + side]
                    window.copy_(_bump(side, generator) * _signs((channels, 1, 1), generator))
        return self.threat.admit(clean + self.threat.direction(change) * self.threat.epsilon, clean)

    def propose(self, at: Tensor, clean: Tensor, generators: Sequence[torch.Generator], query: int) -> Tensor:
        """Move length from one window to another, an image."""
        channels, height, width = clean.shape[1:]
        side = self._side(clean, query)
        change = (at - clean).double()
        radius = self.threat.radius_2(clean)
        for j, generator in enumerate(generators):
            into, out = (_corner(height, width, side, generator) for _ in range(2))
            signs = _signs((channels, 1, 1), generator)
            fresh = (_bump(side, generator) * signs).to(change)
            self._shift(change[:, j], _window(into, side), _window(out, side), fresh, radius)
        moved = clean + (
            self.threat.direction(change.flatten(0, 1)).view_as(change) * self.threat.epsilon
        ).to(clean)
        return self._admit(moved, clean)

    @staticmethod
    def _shift(
        change: Tensor, into: tuple[slice, ...], out: tuple[slice, ...], fresh: Tensor, radius: float
    ) -> None:
        """Empty the window `out` of changes (K, C, H, W) into the window `into`."""
        either = torch.zeros(change.shape[-2:], dtype=torch.bool, device=change.device)
        either[into[1:]] = True
        either[out[1:]] = True
        unused = (radius**2 - change.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0)
        inside = change.square() * either
        length = (inside.sum(dim=(2, 3), keepdim=True) + unused / change.shape[1]).sqrt()
        old = change[:, into[0], into[1], into[2]]
        own = old.square().sum(dim=(2, 3), keepdim=True).sqrt()
        mixed = fresh + old / own.clamp_min(1e-10)
        unit = mixed / mixed.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-10)
        change[:, out[0], out[1], out[2]] = 0
        change[:, into[0], into[1], into[2]] = unit * length


def _bump(side: int, generator: torch.Generator) -> Tensor:
    """Return a change (side, side) of length 1: a mound in one half, a hollow in the other."""
    if side == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    half = side // 2
    bump = torch.cat([_mound(half, side), -_mound(side - half, side)])
    if bool(torch.randint(0, 2, (), generator=generator)):
        bump = bump.T
    unit: Tensor = bump / bump.norm()
    return unit


def _mound(height: int, width: int) -> Tensor:
    """Return rectangles stacked around the centre (height, width), the inner ones higher.

    Entry (r, s) is sum_{k=0}^{M} 1 / (n + 1 - k)^2 with n = height // 2 and
    M = n - max(|r - height // 2|, |s - width // 2|), counted from 0, and 0 where M is negative.
    """
    n = height // 2
    rows = (torch.arange(height) - height // 2).abs().view(-1, 1)
    columns = (torch.arange(width) - width // 2).abs()
    reach = n - torch.maximum(rows, columns)
    sums = torch.cat([torch.zeros(1), 1 / (n + 1 - torch.arange(n + 1)) ** 2]).double().cumsum(dim=0)
    return sums[(reach + 1).clamp_min(0)]


def _corner(height: int, width: int, side: int, generator: torch.Generator) -> tuple[int, int]:
    top = int(torch.randint(0, height - side + 1, (), generator=generator))
    return top, int(torch.randint(0, width - side + 1, (), generator=generator))


def _window(corner: tuple[int, int], side: int) -> tuple[slice, slice, slice]:
    top, left = corner
    return slice(None), slice(top, top + side), slice(left, left + side)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator) * 2 - 1
