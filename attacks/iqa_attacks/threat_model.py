"""What an adversary may do: a ball around the image, inside the box of pixels [0, 1]."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from iqa_attacks.errors import AttackError, BadAttackOption, UnknownAttack
from iqa_attacks.images.levels import check_levels, nearest_levels, on_levels, round_2, round_inf
from iqa_attacks.images.similarity import check_window, pull_to_floor, ssim

Norm = Literal["inf", "2", "rmse"]
Pixels = Literal["float", "8bit"]

NORMS: tuple[Norm, ...] = get_args(Norm)
SLACK = 1e-6
"""Absolute slack on a measured size: rounding of float32 pixels, .0003 of a grey level."""

ROUNDS = 8
"""Rounds of a projection in norm 2 on a device that is not asked. Of points up to 3 radii away, as far as a
step leads, the seventh left at most 1e-14 of the radius unused, over every kind of image that was tried; of
points 1,000 radii away the eighth may leave 1e-3. Every round's point is inside."""

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_FRACTION = re.compile(rf"\s*(-?(?:{_NUMBER}))\s*(?:/\s*({_NUMBER})\s*)?")


def parse_epsilon(text: str | float) -> float:
    """Read a radius given as a number or as a fraction such as ``"4/255"`` or ``".5/255"``.

    Raises:
        BadAttackOption: not a positive finite number or fraction.
    """
    if isinstance(text, bool):
        raise BadAttackOption(f"epsilon is a number or a fraction such as '4/255', not {text!r}")
    if isinstance(text, str):
        match = _FRACTION.fullmatch(text)
        if match is None:
            raise BadAttackOption(f"epsilon {text!r} is neither a number nor a fraction such as '4/255'")
        top, bottom = Fraction(match[1]), Fraction(match[2] or 1)
        if bottom == 0:
            raise BadAttackOption(f"epsilon {text!r} divides by zero")
        given: float | Fraction = top / bottom
    else:
        given = text
    try:
        value = float(given)
    except OverflowError:  # an integer of hundreds of digits
        value = math.inf
    if not (math.isfinite(value) and value > 0):
        raise BadAttackOption(f"epsilon must be a positive finite number, not {reprlib.repr(text)}")
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
    """All images within `epsilon` of the clean one in `norm`, with pixels in [0, 1], and what else is asked.

    Norm `rmse` is norm 2 with the radius of an image of n numbers at epsilon sqrt(n): the root mean square
    change of a pixel, which means the same at every size.
    """

    norm: Norm
    epsilon: float
    ssim_floor: float | None = None
    """Lowest SSIM with the clean image; None asks for none."""
    pixels: Pixels = "float"
    """`8bit`: only images that an 8-bit file holds exactly."""

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UnknownAttack(f"no norm {self.norm!r}; there are {', '.join(map(repr, NORMS))}")
        if self.pixels not in get_args(Pixels):
            raise BadAttackOption(f"pixels are 'float' or '8bit', not {self.pixels!r}")
        parse_epsilon(self.epsilon)
        if self.norm != "2" and self.epsilon > 1:
            raise BadAttackOption(
                f"epsilon {self.epsilon:g} in norm {self.norm!r}: pixels lie in [0, 1], all of it within 1; "
                f"write grey levels as a fraction, such as '{self.epsilon:g}/255'"
            )
        if self.ssim_floor is not None and not 0 < self.ssim_floor < 1:
            raise BadAttackOption(f"ssim_floor must lie between 0 and 1, not {self.ssim_floor}")
        if self.pixels == "8bit" and self.ssim_floor is not None:
            raise BadAttackOption(
                "8-bit pixels and ssim_floor do not go together: rounding may break the floor"
            )
        if self.pixels == "8bit" and self.norm == "inf" and self.epsilon < 1 / 255 - SLACK:
            raise BadAttackOption(
                f"8-bit pixels move by whole grey levels: epsilon {self.epsilon:g} is less than one, 1/255"
            )

    @property
    def constraint(self) -> str:
        """What is asked beside box and ball, as rows name it: `ball` if nothing is."""
        if self.ssim_floor is not None:
            return f"ssim>={self.ssim_floor:g}"
        return "ball" if self.pixels == "float" else "8bit"

    def check_image(self, clean: Tensor) -> None:
        """Refuse a clean image (C, H, W) around which this threat model has no meaning, before any work.

        Raises:
            AttackError: too small for the windows of an SSIM floor, between grey levels where only whole ones
                are admissible, or of half precision where either is asked: that cannot hold them.
        """
        if self.constraint != "ball" and clean.dtype.itemsize < 4:
            raise AttackError(f"{self.constraint} needs images of float32 or float64, not {clean.dtype}")
        if self.ssim_floor is not None:
            check_window(clean)
        if self.pixels == "8bit":
            check_levels(clean)

    def check_step(self, where: str, step: float) -> None:
        """Refuse a step that is no positive number, or more than twice the radius, both in units of epsilon.

        From anywhere in the ball twice the radius reaches all of it. A longer step only goes from corner to
        corner and costs up to half of what the attack would reach; mostly it is grey levels written as 1.

        Raises:
            BadAttackOption: the step is refused; `where` names it in the message.
        """
        if not (math.isfinite(step) and step > 0):
            raise BadAttackOption(f"{where} must be positive and finite, not {step}")
        if step > 2 * self.epsilon * (1 + 1e-9):
            raise BadAttackOption(
                f"{where} {step:g} is more than twice the radius {self.epsilon:g} and overshoots the ball; "
                "write grey levels as a fraction, such as '1/255', or the step as a share of the radius"
            )

    def project(self, images: Tensor, clean: Tensor, radii: Tensor | None = None) -> Tensor:
        """Return the point of ball and box nearest to each image, (B, C, H, W), pulled to the SSIM floor.

        Images of half precision are projected in float64 and rounded towards the clean image: the nearest
        number of half precision often lies outside the ball. `radii` (B,) float64, positive and in the units
        of epsilon, give each image a ball of its own.
        """
        if clean.dtype.itemsize < 4:
            return round_towards(self._nearest(images.double(), clean.double(), radii), clean)
        inside = self._nearest(images, clean, radii)
        return inside if self.ssim_floor is None else pull_to_floor(inside, clean, self.ssim_floor)

    def _nearest(self, images: Tensor, clean: Tensor, radii: Tensor | None) -> Tensor:
        if self.norm == "inf":
            return project_inf(
                images, clean, self.epsilon if radii is None else radii.to(clean).view(-1, 1, 1, 1)
            )
        radius = self.radius_2(clean)
        return project_2(images, clean, radius if radii is None else radii * (radius / self.epsilon))

    def shorten(self, change: Tensor) -> Tensor:
        """Return changes (B, C, H, W) projected on the ball alone, wherever the box is."""
        if self.norm == "inf":
            return change.clamp(-self.epsilon, self.epsilon)
        size = self.size(measure(change, torch.zeros_like(change)))
        shrink = self.epsilon / size.clamp_min(self.epsilon)
        return change * shrink.to(change).view(-1, 1, 1, 1)

    def admit(
        self, images: Tensor, clean: Tensor, radii: Tensor | None = None, *, checked: bool = False
    ) -> Tensor:
        """Return an admissible image near each of (B, C, H, W): projected, and of 8 bits if they must be.

        What is admissible already comes back bit for bit. Clean images that are `checked` already
        (`check_image`) are not looked at, which on a device would be a wait. `radii` are those of `project`.

        Raises:
            AttackError: a clean image is itself none of 8 bits, or too small for SSIM.
        """
        inside = self.project(images, clean, radii)
        if self.pixels == "float":
            return inside
        if self.norm == "inf":
            own = None if radii is None else ((radii + SLACK) * 255).floor().view(-1, 1, 1, 1)
            return round_inf(inside, clean, self.levels if own is None else own, checked=checked)
        return round_2(inside, clean, checked=checked)

    @property
    def levels(self) -> int:
        """Whole grey levels that a pixel may move by in norm inf; 0 below one level."""
        return math.floor(min((self.epsilon + SLACK) * 255, 255))

    def violation(self, images: Tensor, clean: Tensor) -> str | None:
        """Return why some of images (B, C, H, W) are not admissible, None if all are."""
        size = self.size(measure(images, clean))
        if not (bool((images >= 0).all()) and bool((images <= 1).all())):
            return "pixels outside [0, 1]"
        if not bool((size <= self.epsilon + SLACK).all()):
            return f"size {float(size.max()):g} in norm {self.norm}, radius {self.epsilon:g}"
        if self.ssim_floor is not None:
            similarity = float(ssim(images, clean).min())
            if not similarity >= self.ssim_floor - SLACK:
                return f"SSIM {similarity:g}, floor {self.ssim_floor:g}"
        if self.pixels == "8bit" and not on_levels(images):
            return "pixels that 8 bits do not hold"
        return None

    def size(self, budget: Budget) -> Tensor:
        """Return measured sizes (B,) in the units of epsilon."""
        return {"inf": budget.linf, "2": budget.l2, "rmse": budget.rmse}[self.norm]

    def radius_2(self, clean: Tensor) -> float:
        """Return the radius in norm 2 for images (B, C, H, W) of one size."""
        return self._radius(clean[0].numel())

    def _radius(self, count: int) -> float:
        return self.epsilon * (math.sqrt(count) if self.norm == "rmse" else 1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest ascent direction of unit size, (B, C, H, W); 0 where the gradient is 0."""
        if self.norm == "inf":
            return gradient.sign()
        unit = unit_length(gradient, lambda rows: rows.norm(dim=1))
        return unit * math.sqrt(gradient[0].numel()) if self.norm == "rmse" else unit

    def random_start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a point of the threat model around one clean image (C, H, W): `ball_change`, projected."""
        moved = clean + self.ball_change(clean.shape, generator).to(clean)
        return self.project(moved.unsqueeze(0), clean.unsqueeze(0)).squeeze(0)

    def ball_change(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Draw a change (C, H, W) uniform in the ball.

        On the CPU in float64, so that it is the same number on every device and in every precision up to
        rounding.
        """
        if self.norm == "inf":
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
            numbers = uniform.numpy()  # in place, and by this thread alone: others draw beside it
            numbers *= 2
            numbers -= 1
            numbers *= self.epsilon
            return uniform
        delta = torch.randn(shape, generator=generator, dtype=torch.float64)
        radius = torch.rand((), generator=generator, dtype=torch.float64) ** (1 / shape.numel())
        change: Tensor = delta / delta.norm() * radius * self._radius(shape.numel())
        return change

    def sphere_change(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Draw a change (C, H, W) of full size, on the CPU in float64.

        Every pixel moves by epsilon up or down (inf), or the change has a random direction and size
        epsilon (2, rmse).
        """
        delta = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.norm == "inf":
            return delta.sign() * self.epsilon
        change: Tensor = delta / delta.norm() * self._radius(shape.numel())
        return change


def unit_length(gradient: Tensor, length_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return gradients (B, C, H, W) of length 1 by a norm of rows (B, n); 0 where the gradient is 0."""
    # Divide by the largest entry first: squares and sums of tiny entries are 0 in float32.
    largest = gradient.abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1)
    scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
    length = length_of(scaled.flatten(1)).view(-1, 1, 1, 1)
    unit: Tensor = scaled / torch.where(length > 0, length, torch.ones_like(length))
    return unit


def to_8_bits(images: Tensor, clean: Tensor, threat: ThreatModel) -> Tensor:
    """Return admissible images (B, C, H, W) as an 8-bit file can hold them without leaving the threat model.

    Every pixel goes to the nearest of 256 levels, in norm inf to the nearest within the radius: of 1.5 levels
    one is left, and below one level nothing but the clean image can be held. In norm 2 and rmse an image
    that rounding would take out of the ball is cut to whole levels instead, those with the largest
    remainders raised as far as its length allows. Under an SSIM floor a change that rounding takes below it
    is shortened and rounded again, to nothing if need be.

    Args:
        images: what is rounded, admissible in `threat` but for its pixels' levels.
        clean: (B, C, H, W) or (1, C, H, W), itself of 8 bits, as every decoded image is.
        threat: where they must stay.

    Raises:
        AttackError: the clean image is none of 8 bits: then it is not known what file holds it.
    """
    rounded = _rounded_in_ball(images, clean, threat)
    if threat.ssim_floor is None:
        return rounded
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0):
        below = ssim(rounded, clean) < threat.ssim_floor
        if not bool(below.any()):
            break
        shorter = _rounded_in_ball(clean + share * (images - clean), clean, threat)
        rounded = torch.where(below.to(images.device).view(-1, 1, 1, 1), shorter, rounded)
    return rounded


def _rounded_in_ball(images: Tensor, clean: Tensor, threat: ThreatModel) -> Tensor:
    rounded = nearest_levels(images)
    if threat.norm == "inf":
        return round_inf(rounded, clean, threat.levels)
    longer = threat.size(measure(rounded, clean)) > threat.epsilon + SLACK
    check_levels(clean)
    return torch.where(longer.view(-1, 1, 1, 1), round_2(images, clean), rounded)


def round_towards(values: Tensor, clean: Tensor) -> Tensor:
    """Round float64 pixels (B, C, H, W) in [0, 1] to the half precision of `clean`, never further from it."""
    rounded = values.to(clean.dtype)
    further = (rounded.double() - clean.double()).abs() > (values - clean.double()).abs()
    # The bits of numbers that are not negative count up: the next of them is the next number.
    step = torch.where(rounded < clean, 1, -1).to(torch.int16)
    return torch.where(further, (rounded.view(torch.int16) + step).view(clean.dtype), rounded)


def project_inf(images: Tensor, clean: Tensor, epsilon: float | Tensor) -> Tensor:
    """Project on {||x - clean||_inf <= epsilon} and [0, 1]: exact, pixel by pixel.

    The radius is one for all images, or (B, 1, 1, 1).
    """
    lower = (clean - epsilon).clamp_min_(0)
    upper = (clean + epsilon).clamp_max_(1)
    return torch.clamp(images, lower, upper)


def project_2(images: Tensor, clean: Tensor, epsilon: float | Tensor) -> Tensor:
    """Project on the intersection of {||x - clean||_2 <= epsilon} and [0, 1], exactly.

    The radius is one for all images, or (B,) float64.

    By the optimality conditions the nearest change is clip(s d, -clean, 1 - clean) for one s in (0, 1] an
    image, with s = 1 if the clipped change is short enough. Otherwise s solves s^2 A + C = epsilon^2, A
    being the squared length of what is not clipped and C of what is. Starting from what a ball without
    box would give, each solution is at most the sought one and clips no less than the one before: a few
    rounds, in float64, and every one of them is inside.

    On the CPU rounds end when nothing grows. A device is not asked, and does `ROUNDS` in any case.
    """
    asks = images.device.type == "cpu"
    inside = images.clamp(0, 1)
    size = (inside.double() - clean.double()).flatten(1).norm(dim=1)
    # What has been projected is no longer than the radius but for rounding, and comes back bit for bit.
    too_long = size > epsilon + (1 + epsilon) * torch.finfo(images.dtype).eps
    if asks and not bool(too_long.any()):
        return inside
    delta = (images - clean).double()
    low, high = -clean.double(), 1 - clean.double()
    length = delta.flatten(1).norm(dim=1)
    s = torch.where(too_long, epsilon / length.clamp_min(epsilon), torch.ones_like(length))
    for _ in range(100 if asks else ROUNDS):
        scaled = delta * s.view(-1, 1, 1, 1)
        change = torch.minimum(torch.maximum(scaled, low), high)
        free = scaled == change
        # Norms: a sum of one row would be divided among threads, and rounded otherwise than in company.
        clipped = (change * ~free).flatten(1).norm(dim=1).square()
        rest = (delta * free).flatten(1).norm(dim=1).square()
        longer = ((epsilon**2 - clipped).clamp_min(0) / rest.clamp_min(1e-300)).sqrt()
        grows = too_long & (rest > 0) & (longer > s * (1 + 1e-14))
        if asks and not bool(grows.any()):
            break
        s = torch.where(grows, longer, s)
    nearest = (clean.double() + change).clamp(0, 1).to(images.dtype)
    return torch.where(too_long.view(-1, 1, 1, 1), nearest, inside)


def measure(images: Tensor, clean: Tensor) -> Budget:
    """Measure ``images - clean`` (B, C, H, W) in float64."""
    delta = (images.double() - clean.double()).flatten(1)
    l2 = delta.norm(dim=1)
    return Budget(delta.abs().amax(dim=1), l2, l2 / math.sqrt(delta.shape[1]))
