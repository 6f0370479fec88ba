"""Square attack on scores: random search with squares, no gradient (Andriushchenko et al. 2020).

The attack keeps what raises a loss; it tries squares of +-2 eps in norm inf, windows of one length in
norm 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.catalogue import register_attack
from iqa_attacks.queries import Lane, Proposals, QueryAttack

FIRST_AREA = {"inf": 0.8, "2": 0.1, "rmse": 0.1}
"""Share of the image that the first squares cover, by norm: the paper's for budgets of 10,000."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the squares' area is halved; other budgets scale them."""


@register_attack
@dataclass(frozen=True, kw_only=True)
class Square(QueryAttack):
    """Random search for a higher loss, one square of the image a query.

    In norm inf it starts from vertical stripes of +-eps; then one square goes up or down by 2 eps, channel by
    channel. In norm 2 it starts from a grid of bumps; then one window is emptied into another, the whole
    change keeping its length. The window that gains keeps its own direction and adds a bump, half up and half
    down, of random sign a channel and lying or standing (Andriushchenko et al. 2020, algorithm 3). What the
    change had not used of the radius, because the box cut it off, goes to that window, too.
    """

    kind = "square"
    first_area: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the image that the first squares cover (p in the paper): .8 in norm inf, else .1."""

    def proposals(
        self, clean: Tensor, generators: Sequence[torch.Generator], lanes: Sequence[Lane]
    ) -> Proposals:
        """Yield the start, then one square moved on the best of each objective."""
        yield self.start(clean, generators).unsqueeze(0)
        for query in range(1, self.queries):
            yield self.propose(torch.stack([lane.at for lane in lanes]), clean, generators, query)

    def start(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the first versions (B, C, H, W) of clean images: stripes, or a grid of about 5 by 5."""
        first = self._stripes if self.threat.norm == "inf" else self._bumps
        return self.threat.admit(clean + first(clean, generators) * self.threat.epsilon, clean)

    def propose(self, at: Tensor, clean: Tensor, generators: Sequence[torch.Generator], query: int) -> Tensor:
        """Return the versions (K, B, C, H, W) to try next, from the best (K, B, C, H, W) so far.

        All draws come from the images' generators, none from scores: every objective sees the same places and
        signs, whatever it keeps.
        """
        height, width = clean.shape[-2:]
        first_area = self.first_area or FIRST_AREA[self.threat.norm]
        area = first_area / 2 ** halvings(query, self.queries)
        side = min(max(round(math.sqrt(area * height * width)), 1), height, width)
        move = self._with_a_square if self.threat.norm == "inf" else self._with_a_window
        return self.admit(move(at, clean, generators, side), clean)

    @staticmethod
    def _stripes(clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return a sign a channel and column."""
        channels, _, width = clean.shape[1:]
        return torch.stack([_signs((channels, 1, width), g) for g in generators]).to(clean)

    def _with_a_square(
        self, at: Tensor, clean: Tensor, generators: Sequence[torch.Generator], side: int
    ) -> Tensor:
        """Move one square an image."""
        change = torch.zeros_like(clean)
        for j, generator in enumerate(generators):
            rows, columns = _window(clean.shape, side, generator)
            signs = _signs((clean.shape[1], 1, 1), generator).to(clean)
            change[j, :, rows, columns] = 2 * self.threat.epsilon * signs
        return at + change

    def _bumps(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return bumps on a grid, a change of unit size."""
        channels, height, width = clean.shape[1:]
        side = max(1, min(height, width) // 5)
        change = torch.zeros_like(clean)
        for j, generator in enumerate(generators):
            for top in range((height % side) // 2, height - side + 1, side):
                for left in range((width % side) // 2, width - side + 1, side):
                    window = change[j, :, top : top + side, left : left + side]
                    window.copy_(_bump(side, generator) * _signs((channels, 1, 1), generator))
        return self.threat.direction(change)

    def _with_a_window(
        self, at: Tensor, clean: Tensor, generators: Sequence[torch.Generator], side: int
    ) -> Tensor:
        """Move length from one window to another, an image."""
        change = (at - clean).double()
        radius = self.threat.radius_2(clean)
        for j, generator in enumerate(generators):
            into, out = (_window(clean.shape, side, generator) for _ in range(2))
            signs = _signs((clean.shape[1], 1, 1), generator)
            fresh = (_bump(side, generator) * signs).to(change)
            self._shift(change[:, j], into, out, fresh, radius)
        unit = self.threat.direction(change.flatten(0, 1)).view_as(change)
        return clean + (unit * self.threat.epsilon).to(clean)

    @staticmethod
    def _shift(
        change: Tensor, into: tuple[slice, slice], out: tuple[slice, slice], fresh: Tensor, radius: float
    ) -> None:
        """Empty the window `out` of changes (K, C, H, W) into the window `into`."""
        either = torch.zeros(change.shape[-2:], dtype=torch.bool, device=change.device)
        either[into] = True
        either[out] = True
        unused = (radius**2 - change.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0)
        inside = change.square() * either
        length = (inside.sum(dim=(2, 3), keepdim=True) + unused / change.shape[1]).sqrt()
        old = change[:, :, *into]
        own = old.square().sum(dim=(2, 3), keepdim=True).sqrt()
        mixed = fresh + old / own.clamp_min(1e-10)
        unit = mixed / mixed.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-10)
        change[:, :, *out] = 0
        change[:, :, *into] = unit * length


def halvings(query: int, queries: int) -> int:
    """Return how often the squares' area has been halved at a query of a budget."""
    return sum(query * 10_000 > limit * queries for limit in HALVINGS)


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


def _window(shape: torch.Size, side: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Return the rows and columns of a square at a place drawn, of images of a shape (..., H, W)."""
    top, left = (int(torch.randint(0, size - side + 1, (), generator=generator)) for size in shape[-2:])
    return slice(top, top + side), slice(left, left + side)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator) * 2 - 1
