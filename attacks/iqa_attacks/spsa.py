"""A score attack that estimates gradients from pairs of scores (SPSA; Spall 1992, Uesato et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.catalogue import register_attack
from iqa_attacks.queries import Lane, Proposals, QueryAttack
from iqa_attacks.settings import Count

Share = Annotated[float, Field(gt=0, le=1)]
"""A part of the radius, or of a sum."""


@register_attack
@dataclass(frozen=True, kw_only=True)
class SPSA(QueryAttack):
    """Steps along slopes that are differences of two scores in directions drawn.

    Before each step the score is asked at some pairs of points, on either side of where it is: every pair
    gives the slope in a direction of random signs, the same within a square of pixels. The signs weighted by
    their slopes, with what is carried on of former ones, are the step's direction; steps fall to nothing. All
    that was asked about lies in the ball, and the best of it is kept.
    """

    kind = "spsa"
    directions: Count = 5
    """Pairs before each step: a step takes twice as many queries and one."""
    probe: Share = 0.5
    """Distance of a pair from its middle, as a share of the radius."""
    side: Count | None = None
    """Pixels a side of the squares in which a direction is the same; an eighth of the image's if left out."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Share of the accumulated slopes that is carried on."""
    first_step: Share = 0.5
    """Length of the first step, as a share of the radius."""

    def proposals(
        self, clean: Tensor, generators: Sequence[torch.Generator], lanes: Sequence[Lane]
    ) -> Proposals:
        """Yield the clean images, then pairs and steps in turn."""
        yield clean.unsqueeze(0)
        at = clean.expand(len(lanes), *clean.shape)
        slopes = torch.zeros(at.shape, dtype=torch.float64, device=clean.device)
        steps = max(1, (self.queries - 1) // (2 * self.directions + 1))
        for step in range(steps + 1):  # one more than are whole: what queries are left are asked
            slopes = self.decay * slopes
            for _ in range(self.directions):
                signs = self._signs(clean, generators)
                far = self.probe * self.threat.epsilon * self.threat.direction(signs)
                up = yield self.admit(at + far, clean)
                down = yield self.admit(at - far, clean)
                slopes = slopes + (up - down).to(slopes).view(*up.shape, 1, 1, 1) * signs
            length = self.first_step * self.threat.epsilon * (1 - step / (steps + 1))
            towards = self.threat.direction(slopes.flatten(0, 1)).view_as(at)
            at = self.admit(at + length * towards.to(at), clean)
            yield at

    def _signs(self, clean: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return random signs (B, C, H, W) that are one within a square, on a grid that is drawn, too."""
        channels, height, width = clean.shape[1:]
        side = min(self.side or max(1, min(height, width) // 8), height, width)
        rows, columns = -(-height // side) + 1, -(-width // side) + 1
        drawn = []
        for generator in generators:
            coarse = torch.randint(0, 2, (channels, rows, columns), generator=generator) * 2 - 1
            top, left = torch.randint(0, side, (2,), generator=generator).tolist()
            fine = coarse.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
            drawn.append(fine[:, top : top + height, left : left + width])
        return torch.stack(drawn).to(clean)
