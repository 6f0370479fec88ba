"""The training loss: closeness to the label, and agreement of a batch with its labels."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def plcc_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - PLCC of scores (B,) and targets (B,): 0 at best, 2 at worst, 1 if either is constant."""
    s, t = scores - scores.mean(), targets - targets.mean()
    # The floor keeps value and gradient finite on constant scores.
    norm = (s.square().sum() + 1e-8).sqrt() * (t.square().sum() + 1e-8).sqrt()
    return 1 - (s * t).sum() / norm


def quality_loss(scores: Tensor, targets: Tensor, *, beta: float, plcc_weight: float) -> Tensor:
    """Return smooth L1 with threshold `beta` plus `plcc_weight` times `plcc_loss`; both inputs (B,)."""
    loss = functional.smooth_l1_loss(scores, targets, beta=beta)
    return loss + plcc_weight * plcc_loss(scores, targets)


def one_cycle(step: int, steps: int, *, warmup: float) -> float:
    """Return the share in (0, 1] of the peak learning rate at one of `steps` steps, counted from 0.

    A half cosine from 1/25 up to 1 over the first `warmup` share of the steps, another one down to
    1/250,000 over the rest (Smith and Topin 2018, in the two-phase cosine form that is common today).
    """
    first, last = 1 / 25, 1 / 250_000
    peak = warmup * steps - 1
    if step <= peak:
        return _half_cosine(first, 1.0, step / peak if peak > 0 else 1.0)
    begin = max(peak, 0.0)
    return _half_cosine(1.0, last, (step - begin) / max(steps - 1 - begin, 1e-12))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
