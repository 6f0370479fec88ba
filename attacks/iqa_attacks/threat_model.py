"""What an adversary may do: a ball around the image, inside the box of pixels [0, 1]."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iqa_attacks.errors import BadAttackOption, UnknownAttack

Norm = Literal["inf", "2"]

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")


def parse_epsilon(text: str | float) -> float:
    """Read a radius given as a number or as a fraction such as ``"4/255"`` or ``".5/255"``.

    Raises:
        BadAttackOption: not a positive finite number or fraction.
    """
    if isinstance(text, str):
        match = _FRACTION.fullmatch(text)
        if match is None:
            raise BadAttackOption(f"epsilon {text!r} is neither a number nor a fraction such as '4/255'")
        top, bottom = Fraction(match[1]), Fraction(match[2] or 1)
        if bottom == 0:
            raise BadAttackOption(f"epsilon {text!r} divides by zero")
        value = float(top / bottom)
    else:
        value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise BadAttackOption(f"epsilon must be a positive finite number, not {text!r}")
    return value


class Budget(NamedTuple):
    """Measured size of perturbations, each (B,) in float64."""

    linf: Tensor
    """Largest absolute pixel change."""
    l2: Tensor
    """Euclidean norm of the change."""
    rmse: Tensor
    """Root mean square change, l2 / sqrt(3 H W)."""


@dataclass(frozen=True)
class ThreatModel:
    """All images within `epsilon` of the clean one in `norm`, with pixels in [0, 1]."""

    norm: Norm
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in ("inf", "2"):
            raise UnknownAttack(f"no norm {self.norm!r}; there are 'inf' and '2'")
        parse_epsilon(self.epsilon)

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return the point of the threat model nearest to each image, (B, C, H, W)."""
        if self.norm == "inf":
            return project_inf(images, clean, self.epsilon)
        return project_2(images, clean, self.epsilon)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest ascent direction of unit size, (B, C, H, W); 0 where the gradient is 0."""
        if self.norm == "inf":
            return gradient.sign()
        # Divide by the largest entry first: the square of a tiny gradient is 0 in float32.
        largest = gradient.abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1)
        scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
        length = scaled.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        unit: Tensor = scaled / torch.where(length > 0, length, torch.ones_like(length))
        return unit

    def random_start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a point of the threat model around one clean image (C, H, W).

        Uniform in the ball, then projected on the box. Drawn on the CPU in float64, so that a start
        is the same number on every device and in every precision up to rounding.
        """
        shape = clean.shape
        if self.norm == "inf":
            delta = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
            delta = delta * self.epsilon
        else:
            delta = torch.randn(shape, generator=generator, dtype=torch.float64)
            radius = torch.rand((), generator=generator, dtype=torch.float64) ** (1 / clean.numel())
            delta = delta / delta.norm() * radius * self.epsilon
        start = clean + delta.to(clean)
        return self.project(start.unsqueeze(0), clean.unsqueeze(0)).squeeze(0)

    def random_noise(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noise of full size around one clean image (C, H, W), then project on the box.

        Every pixel moves by epsilon up or down (inf), or the change has a random direction and length
        epsilon (2). Drawn on the CPU in float64.
        """
        delta = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        delta = delta.sign() if self.norm == "inf" else delta / delta.norm()
        start = clean + (delta * self.epsilon).to(clean)
        return self.project(start.unsqueeze(0), clean.unsqueeze(0)).squeeze(0)


def project_inf(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Project on {||x - clean||_inf <= epsilon} and [0, 1]: exact, pixel by pixel."""
    lower = (clean - epsilon).clamp_min(0)
    upper = (clean + epsilon).clamp_max(1)
    return torch.minimum(torch.maximum(images, lower), upper)


def project_2(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Project on the intersection of {||x - clean||_2 <= epsilon} and [0, 1], exactly.

    By the optimality conditions the nearest change is clip(d / (1 + m), -clean, 1 - clean) for one
    m >= 0 an image, with m = 0 if the clipped change is short enough. Its length falls with m, so m is
    found by bisection, in float64; the end that lies inside is returned.
    """
    delta = (images - clean).double()
    low, high = -clean.double(), 1 - clean.double()

    def change(shrink: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(delta * shrink.view(-1, 1, 1, 1), low), high)

    def too_long(shrink: Tensor) -> Tensor:
        length: Tensor = change(shrink).flatten(1).norm(dim=1)
        return length > epsilon

    # shrink = 1 / (1 + m) in [0, 1]; `inside` always satisfies the ball, 0 being the clean image.
    outside = torch.ones(len(images), dtype=torch.float64, device=images.device)
    inside = torch.where(too_long(outside), torch.zeros_like(outside), outside)
    for _ in range(60):
        middle = (inside + outside) / 2
        long = too_long(middle)
        outside = torch.where(long, middle, outside)
        inside = torch.where(long, inside, middle)
    nearest: Tensor = (clean.double() + change(inside)).clamp(0, 1)
    return nearest.to(images.dtype)


def measure(images: Tensor, clean: Tensor) -> Budget:
    """Measure ``images - clean`` (B, C, H, W) in float64."""
    delta = (images.double() - clean.double()).flatten(1)
    l2 = delta.norm(dim=1)
    return Budget(delta.abs().amax(dim=1), l2, l2 / math.sqrt(delta.shape[1]))
