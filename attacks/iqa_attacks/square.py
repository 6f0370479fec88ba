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

from iqa_attacks.catalogue import register_attack
from iqa_attacks.queries import Lane, Proposals, QueryAttack
from iqa_attacks.threat_model import ThreatModel

FIRST_AREA = {"inf": 0.8, "2": 0.1, "rmse": 0.1}
"""Share of the image that the first squares cover, by norm: the paper's for budgets of 10,000."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the squares' area is halved; other budgets scale them."""


@register_attack
@dataclass(frozen=True, kw_only=True)
class Square(QueryAttack):
    """Random search for a higher loss, one square of the image a query (`Moves` says how it moves)."""

    kind = "square"
    first_area: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the image that the first squares cover (p in the paper): .8 in norm inf, else .1."""

    @property
    def moves(self) -> Moves:
        """What is proposed, in the threat model's norm."""
        norm = self.threat.norm
        kind = InfMoves if norm == "inf" else L2Moves
        return kind(self.threat, self.queries, self.first_area or FIRST_AREA[norm])

    def proposals(
        self, clean: Tensor, generators: Sequence[torch.Generator], lanes: Sequence[Lane]
    ) -> Proposals:
        """Yield the start, then one square moved on the best of each objective."""
        moves = self.moves
        yield moves.start(clean, generators).unsqueeze(0)
        for query in range(1, self.queries):
            yield moves.propose(torch.stack([lane.at for lane in lanes]), clean, generators, query)


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
