"""The largest change of a linear form within ball and box, in closed form or by its one-dimensional dual."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqa_attacks.threat_model import SLACK, ThreatModel
from iqa_models.linear import LinearQuality

UNIT = 2.0**-24
"""Rounding of a float32 number, relative."""
LONGEST = 128
"""Additions one after the other in torch's own sum, at the most: longer ones are added in a tree."""
_HALVINGS = 100


def admitted_radius(threat: ThreatModel, count: int) -> float:
    """Return the radius, in norm inf or 2, within which an image of `count` numbers is admitted."""
    admitted = threat.epsilon + SLACK
    return admitted * math.sqrt(count) if threat.norm == "rmse" else admitted


def largest_change(weight: Tensor, image: Tensor, threat: ThreatModel) -> float:
    """Return the largest w.(x' - x) over admissible images x', rounded up.

    In norm inf it is a sum over pixels. In norm 2 it is the dual, which holds at any multiplier: sum of
    max(w d - l d^2 / 2) over the box plus l r^2 / 2, at the l whose change clip(w / l) is as long as the
    ball.

    Args:
        weight: float64, of the image's shape.
        image: the clean image (C, H, W) in [0, 1].
        threat: the ball; an SSIM floor or whole grey levels only leave less.
    """
    x, w = image.double().flatten(), weight.flatten()
    scale = float(w.abs().max())
    if scale == 0 or not math.isfinite(scale):
        return scale
    w = w / scale
    radius = admitted_radius(threat, x.numel())
    low, high = -x, 1 - x
    if threat.norm == "inf":
        low, high = low.clamp_min(-radius), high.clamp_max(radius)
        change = torch.where(w > 0, high, low)
        return scale * _up(w * change)
    whole = torch.where(w > 0, high, low) * (w != 0)
    if float(whole.norm()) <= radius:
        return scale * _up(w * whole)
    small, large = 0.0, 1.0
    while float((large * w).clamp(low, high).norm()) < radius:
        large *= 2
    for _ in range(_HALVINGS):
        middle = (small + large) / 2
        short = float((middle * w).clamp(low, high).norm()) < radius
        small, large = (middle, large) if short else (small, middle)
    change = (large * w).clamp(low, high)
    terms = w * change - change.square() / (2 * large)
    return scale * (_up(terms) + radius**2 / (2 * large) * (1 + 1e-12))


def linear_interval(model: LinearQuality, image: Tensor, threat: ThreatModel) -> tuple[float, float]:
    """Return an interval of a linear model's scores around one image (C, H, W), its own rounding included."""
    weight = model.weight(*image.shape[-2:]).detach().cpu().double()
    weight = weight / weight.numel()
    x = image.detach().cpu().double()
    score = float(model.bias.detach()) + float((weight * x).sum())
    unit = UNIT if model.pattern.dtype == torch.float32 else UNIT**2
    most = float(weight.abs().sum()) + abs(float(model.bias.detach()))
    rounding = (min(weight.numel(), LONGEST) + 4) * unit * most
    up, down = largest_change(weight, x, threat), largest_change(-weight, x, threat)
    return score - down - rounding, score + up + rounding


def _up(terms: Tensor) -> float:
    """Return a float64 sum with what its rounding may have taken."""
    return float(terms.sum()) + 1e-12 * float(terms.abs().sum())
