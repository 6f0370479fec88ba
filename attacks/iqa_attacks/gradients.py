"""Scores and input gradients of many images, in chunks that fit in memory, every one counted.

What is shown to the model is a copy: one that writes into its input changes nobody's images. Gradients are
taken whatever mode the caller is in: under `torch.no_grad` and `torch.inference_mode`, too.
"""

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
        AttackFailed: a score is not finite, or the model cannot take images of this precision.
    """
    with torch.inference_mode(False), torch.no_grad():
        parts = [_evaluate(model, part.clone()).double().cpu() for part in _chunks(images, chunk)]
    return _finite(model, torch.cat(parts))


def score_and_gradient(model: QualityModel, images: Tensor, *, chunk: int) -> ScoredGradient:
    """Score images and differentiate each score by its own image.

    One backward pass of sum(f) a chunk: images do not influence each other's score in eval mode,
    so the gradient of the sum holds every image's own gradient (`check_model` tests that).

    Raises:
        AttackFailed: the score does not depend on the image through the graph, a score or gradient is not
            finite, or the model cannot take images of this precision.
    """
    scores, gradients = [], []
    with torch.inference_mode(False), torch.enable_grad():
        for part in _chunks(images, chunk):
            leaf = part.detach().clone().requires_grad_()
            output = _evaluate(model, leaf.clone())
            if not output.requires_grad:
                raise AttackFailed(f"{model.spec.name}: the score carries no gradient (detached graph)")
            (gradient,) = torch.autograd.grad(output.sum(), leaf, allow_unused=True)
            if gradient is None:
                raise AttackFailed(f"{model.spec.name}: the score does not depend on the image")
            scores.append(output.detach().double().cpu())
            gradients.append(gradient)
    found = ScoredGradient(_finite(model, torch.cat(scores)), torch.cat(gradients))
    _require(found.gradients.isfinite().flatten(1).all(dim=1), f"{model.spec.name}: the input gradient")
    return found


def _evaluate(model: QualityModel, images: Tensor) -> Tensor:
    try:
        scores: Tensor = model(images)
    except RuntimeError as error:
        of_weights = {str(w.dtype) for w in model.parameters() if w.is_floating_point()}
        about_types = any(words in str(error) for words in ("dtype", "type (", "scalar type"))
        if of_weights <= {str(images.dtype)} or not about_types:
            raise
        held = " and ".join(sorted(of_weights))
        raise AttackFailed(
            f"{model.spec.name}: its weights are {held}, the images {images.dtype}, and it cannot mix them "
            f"({error}); call .to({images.dtype}) on the model, or convert the images in predict()"
        ) from error
    return scores


def _finite(model: QualityModel, scores: Tensor) -> Tensor:
    _require(scores.isfinite(), f"{model.spec.name}: the score")
    return scores


def _require(finite: Tensor, what: str) -> None:
    if not bool(finite.all()):
        raise AttackFailed(f"{what} is not finite", image=int((~finite).nonzero()[0]))


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
