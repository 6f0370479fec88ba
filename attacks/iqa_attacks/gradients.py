"""Scores and input gradients of many images, in chunks that fit in memory, every one counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.errors import AttackFailed
from iqa_attacks.seeding import seeded
from iqa_models import QualityModel


class ScoredGradient(NamedTuple):
    """Scores (B,) float64 and d score_i / d image_i (B, C, H, W)."""

    scores: Tensor
    gradients: Tensor


def _chunks(images: Tensor, size: int) -> Iterator[Tensor]:
    return (images[first : first + size] for first in range(0, len(images), size))


def score(model: QualityModel, images: Tensor, *, chunk: int) -> Tensor:
    """Score images (B, C, H, W) without a gradient: (B,) float64 on the CPU.

    Raises:
        AttackFailed: a score is not finite.
    """
    with torch.no_grad():
        parts = [model(part).double().cpu() for part in _chunks(images, chunk)]
    return _finite(model, torch.cat(parts))


def score_and_gradient(model: QualityModel, images: Tensor, *, chunk: int) -> ScoredGradient:
    """Score images and differentiate each score by its own image.

    One backward pass of sum(f) a chunk: images do not influence each other's score in eval mode,
    so the gradient of the sum holds every image's own gradient (`check_model` tests that).

    Raises:
        AttackFailed: the score does not depend on the image through the graph, or a score or
            gradient is not finite.
    """
    scores, gradients = [], []
    for part in _chunks(images, chunk):
        leaf = part.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = model(leaf)
            if not output.requires_grad:
                raise AttackFailed(f"{model.spec.name}: the score carries no gradient (detached graph)")
            (gradient,) = torch.autograd.grad(output.sum(), leaf, allow_unused=True)
        if gradient is None:
            raise AttackFailed(f"{model.spec.name}: the score does not depend on the image")
        if not bool(gradient.isfinite().all()):
            raise AttackFailed(f"{model.spec.name}: the input gradient is not finite")
        scores.append(output.detach().double().cpu())
        gradients.append(gradient)
    return ScoredGradient(_finite(model, torch.cat(scores)), torch.cat(gradients))


def _finite(model: QualityModel, scores: Tensor) -> Tensor:
    if not bool(scores.isfinite().all()):
        raise AttackFailed(f"{model.spec.name}: the score is not finite")
    return scores


def expected_score(model: QualityModel, image: Tensor, seeds: Sequence[int]) -> float:
    """Return the mean score of one image (C, H, W) over seeded draws of a stochastic model.

    Every draw is a pass of its own on this image alone: a model may draw once a batch, and neither the
    other images of a batch nor its size may touch an image's draws.
    """
    scores = []
    for seed in seeds:
        with seeded(seed, image.device):
            scores.append(score(model, image.unsqueeze(0), chunk=1))
    return float(torch.cat(scores).mean())


def expected_score_and_gradient(
    model: QualityModel, image: Tensor, seeds: Sequence[int]
) -> tuple[float, Tensor]:
    """Return the mean score and the mean gradient (C, H, W) over seeded draws, as `expected_score`."""
    scores, gradients = [], []
    for seed in seeds:
        with seeded(seed, image.device):
            drawn = score_and_gradient(model, image.unsqueeze(0), chunk=1)
        scores.append(drawn.scores)
        gradients.append(drawn.gradients)
    return float(torch.cat(scores).mean()), torch.cat(gradients).mean(dim=0)
