"""Scores and input gradients of many images, in chunks that fit in memory, every one counted.

What is shown to the model is a copy: one that writes into its input changes nobody's images. Gradients are
taken whatever mode the caller is in: under `torch.no_grad` and `torch.inference_mode`, too. Products are in
full float32 on every device, unless a copy for gradients allows less.

`ask` and `ask_mean` wait for no device and look at no number; what they return is read and judged at once,
together with anything else that has been asked (`read`), or sent for and read later (`Coming`, `judged`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.errors import AttackFailed
from iqa_attacks.seeding import seeded
from iqa_models import QualityModel
from iqa_models.precision import float32_products


class ScoredGradient(NamedTuple):
    """Scores (B,) float64 and d score_i / d image_i (B, C, H, W)."""

    scores: Tensor
    gradients: Tensor


class Asked(NamedTuple):
    """What a model says of images, on their device, unread."""

    scores: Tensor
    """(B, K) float64 of K draws, 1 of a model that draws nothing."""
    gradients: Tensor | None
    """(B, C, H, W), means over the draws; None if not asked for."""

    @property
    def numbers(self) -> Tensor:
        """(B, K) or (B, K + 2) float64: the scores, and the least and the largest entry of the gradient.

        The two say all that is asked of a gradient: they are not finite if any entry is not, and both 0 if
        all are.
        """
        if self.gradients is None:
            return self.scores
        rows = self.gradients.flatten(1)  # on a CPU `aminmax` is ten times slower
        ends = torch.stack([rows.amin(dim=1), rows.amax(dim=1)], dim=1)
        return torch.cat([self.scores, _exact(ends)], dim=1)


def _exact(numbers: Tensor) -> Tensor:
    """Return numbers in float64, where they are if their device has it: MPS has none."""
    return (numbers.cpu() if numbers.device.type == "mps" else numbers).double()


class Facts(NamedTuple):
    """What was read: scores and gradients are finite."""

    scores: Tensor
    """(B,) float64 on the CPU, means over the draws."""
    zero: Tensor
    """(B,) bool: gradients that are zero in every pixel; all False where none were asked for."""


def score(model: QualityModel, images: Tensor, *, chunk: int) -> Tensor:
    """Score images (B, C, H, W) without a gradient: (B,) float64 on the CPU.

    Raises:
        AttackFailed: a score is not finite, or the model cannot take images of this precision.
    """
    return read(model, [ask(model, images, chunk=chunk, gradient=False, admitted=False).numbers]).scores


def score_and_gradient(model: QualityModel, images: Tensor, *, chunk: int) -> ScoredGradient:
    """Score images and differentiate each score by its own image.

    Raises:
        AttackFailed: the score does not depend on the image through the graph, a score or gradient is not
            finite, or the model cannot take images of this precision.
    """
    asked = ask(model, images, chunk=chunk, gradient=True, admitted=False)
    assert asked.gradients is not None  # noqa: S101 - asked for
    return ScoredGradient(read(model, [asked.numbers]).scores, asked.gradients)


def ask(
    model: QualityModel,
    images: Tensor,
    *,
    chunk: int,
    gradient: bool,
    admitted: bool = True,
    seeds: Sequence[int] | None = None,
) -> Asked:
    """Ask a model for scores, with gradients or without, and wait for nothing.

    One backward pass of sum(f) a chunk: images do not influence each other's score in eval mode,
    so the gradient of the sum holds every image's own gradient (`check_model` tests that).

    Args:
        model: in eval mode.
        images: (B, C, H, W).
        chunk: most images in a pass. Away from the CPU passes are of few sizes (`padded`), filled up with
            an image of theirs, so that a device chooses its kernels, or records them, once.
        gradient: whether gradients are wanted.
        admitted: whether the values are known to lie in [0, 1]; otherwise the model looks, which is a wait.
        seeds: one an image, for a model that draws by image.

    Raises:
        AttackFailed: the score carries no gradient, or the model cannot take images of this precision.
    """
    scores, gradients = [], []
    grad = torch.enable_grad if gradient else torch.no_grad
    products = float32_products(images.device, tensor_float32=model.tensor_float32)
    with torch.inference_mode(False), grad(), products:
        for start, stop, size in _passes(len(images), chunk, images.device):
            part = _filled(images[start:stop].detach(), size)
            drawn = None if seeds is None else [*seeds[start:stop], *[seeds[start]] * (size - stop + start)]
            if not gradient:
                found = _evaluate(model, part.clone(), admitted, drawn)
            else:
                found, slope = _differentiate(model, part, admitted, drawn)
                gradients.append(slope[: stop - start])
            scores.append(_exact(found[: stop - start].detach()))
    return Asked(torch.cat(scores).unsqueeze(1), torch.cat(gradients) if gradient else None)


def ask_mean(
    model: QualityModel,
    images: Tensor,
    seeds: Sequence[Sequence[int]] | None,
    *,
    chunk: int,
    gradient: bool,
) -> Asked:
    """Ask a model as `ask` does, a stochastic one for its scores at seeded draws and their mean gradient.

    A model that draws by image is asked for all draws of several images at once. Of any other one every draw
    is a pass of its own on one image alone: it may draw once a batch, and neither the other images of a batch
    nor its size may touch an image's draws.

    Args:
        model: in eval mode.
        images: (B, C, H, W).
        seeds: (B, K); None for a model that draws nothing.
        chunk: most images in a pass.
        gradient: whether gradients are wanted.
    """
    if seeds is None:
        return ask(model, images, chunk=chunk, gradient=gradient)
    draws = len(seeds[0])
    together = max(1, chunk // draws) if model.draws_by_image else 1
    parts = []
    for first in range(0, len(images), together):
        some, own = images[first : first + together], seeds[first : first + together]
        if model.draws_by_image:
            repeated, each = some.repeat_interleave(draws, dim=0), [s for row in own for s in row]
            asked = ask(model, repeated, chunk=chunk, gradient=gradient, seeds=each)
        else:
            asked = _one_by_one(model, some, own[0], gradient=gradient)
        slopes = asked.gradients
        if slopes is not None:
            slopes = slopes.reshape(len(some), draws, *slopes.shape[1:]).mean(dim=1)
        parts.append(Asked(asked.scores.view(len(some), draws), slopes))
    return _joined(parts)


def _one_by_one(
    model: QualityModel, image: Tensor, seeds: Sequence[int], *, gradient: bool, admitted: bool = True
) -> Asked:
    """Return scores (K, 1) and gradients (K, C, H, W) of one image (1, C, H, W), draw after draw."""
    parts = []
    for seed in seeds:
        with seeded(seed, image.device):
            parts.append(ask(model, image, chunk=1, gradient=gradient, admitted=admitted))
    return _joined(parts)


def _joined(parts: Sequence[Asked]) -> Asked:
    """Return what was asked in parts, one after another."""
    slopes = [part.gradients for part in parts if part.gradients is not None]
    return Asked(torch.cat([part.scores for part in parts]), torch.cat(slopes) if slopes else None)


class Coming:
    """Numbers on their way to the host: waiting for them waits for nothing that is asked of a GPU later."""

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        """Send for rows (B, K) of one device, one after another."""
        self._numbers = torch.cat(list(numbers))
        self._sent: torch.cuda.Event | None = None
        if self._numbers.is_cuda:
            stream = torch.cuda.current_stream(self._numbers.device)
            near = torch.empty_like(self._numbers, device="cpu", pin_memory=True)
            self._numbers = near.copy_(self._numbers, non_blocking=True)
            self._sent = stream.record_event()

    def wait(self) -> Tensor:
        """Return the numbers on the CPU, in one wait."""
        if self._sent is not None:
            self._sent.synchronize()
        return self._numbers.cpu()


def read(model: QualityModel, numbers: Sequence[Tensor], draws: int = 1) -> Facts:
    """Read what a model was asked (`Asked.numbers`), in one wait, and refuse what no attack can use.

    Raises:
        AttackFailed: a score or a gradient is not finite; the error bears the image's place among all.
    """
    return judged(model, Coming(numbers).wait(), draws)


def judged(model: QualityModel, near: Tensor, draws: int) -> Facts:
    """Return what numbers (B, draws) or (B, draws + 2) on the CPU say, and refuse what no attack can use.

    Raises:
        AttackFailed: as `read`.
    """
    scores, ends = near[:, :draws], near[:, draws:]
    _require(scores.isfinite().all(dim=1), f"{model.spec.name}: the score")
    _require(ends.isfinite().all(dim=1), f"{model.spec.name}: the input gradient")
    zero = (ends == 0).all(dim=1) & bool(ends.shape[1])
    return Facts(scores.mean(dim=1), zero)


def _passes(count: int, chunk: int, device: torch.device) -> Iterator[tuple[int, int, int]]:
    """Yield first image, last one + 1 and size of each pass."""
    if device.type == "cpu":
        for first in range(0, count, chunk):
            stop = min(first + chunk, count)
            yield first, stop, stop - first
        return
    passes = -(-count // chunk)
    size = padded(-(-count // passes), chunk)
    for first in range(0, count, size):
        yield first, min(first + size, count), size


def padded(count: int, chunk: int) -> int:
    """Return the size of a pass: 1, 2, 4, 6, a multiple of 8, above 64 of 16, and at most `chunk`."""
    step = 16 if count > 64 else 8 if count > 6 else 2 if count > 1 else 1
    return min(chunk, -(-count // step) * step)


def _filled(images: Tensor, size: int) -> Tensor:
    """Return images (B, C, H, W) filled up to (size, C, H, W) with the first."""
    missing = size - len(images)
    return torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images


def _differentiate(
    model: QualityModel, images: Tensor, admitted: bool, seeds: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Return scores and gradients of images, from a recording if the model has one."""

    def compute(shown: Tensor) -> tuple[Tensor, Tensor]:
        leaf = shown.detach().requires_grad_()
        output = _evaluate(model, leaf.clone(), admitted, seeds)
        if not output.requires_grad:
            raise AttackFailed(f"{model.spec.name}: the score carries no gradient (detached graph)")
        scale = model.gradient_scale
        (gradient,) = torch.autograd.grad(output.sum() * scale, leaf, allow_unused=True)
        if gradient is None:
            raise AttackFailed(f"{model.spec.name}: the score does not depend on the image")
        return output.detach(), gradient if scale == 1 else gradient / scale

    if model.graphs is None or not admitted or seeds is not None:
        return compute(images)
    return model.graphs.run(compute, images)


def _evaluate(model: QualityModel, images: Tensor, admitted: bool, seeds: Sequence[int] | None) -> Tensor:
    try:
        scores: Tensor = model.score_admitted(images, seeds) if admitted else model(images)
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


def _require(finite: Tensor, what: str) -> None:
    if not bool(finite.all()):
        raise AttackFailed(f"{what} is not finite", image=int((~finite).nonzero()[0]))


def expected_score(model: QualityModel, image: Tensor, seeds: Sequence[int]) -> float:
    """Return the mean score of one image (C, H, W) over seeded draws of a stochastic model.

    Every draw is a pass of its own, whatever the model can: a stored score depends on nothing else.
    """
    asked = _one_by_one(model, image.unsqueeze(0), seeds, gradient=False, admitted=False)
    return float(read(model, [asked.scores.view(1, -1)], len(seeds)).scores)


def expected_score_and_gradient(
    model: QualityModel, image: Tensor, seeds: Sequence[int]
) -> tuple[float, Tensor]:
    """Return the mean score and the mean gradient (C, H, W) over seeded draws, as `expected_score`."""
    asked = _one_by_one(model, image.unsqueeze(0), seeds, gradient=True, admitted=False)
    assert asked.gradients is not None  # noqa: S101 - asked for
    mean = Asked(asked.scores.view(1, -1), asked.gradients.mean(dim=0, keepdim=True))
    assert mean.gradients is not None  # noqa: S101
    return float(read(model, [mean.numbers], len(seeds)).scores), mean.gradients[0]
