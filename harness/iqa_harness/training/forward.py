"""One training forward pass of any registered model on crops the loop has drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iqa_harness.training.prepare import batch_norms
from iqa_harness.training.trunks import Encoded, encode
from iqa_models import HyperQuality, QualityModel, SRMQuality, TimmRegressor


class Scored(NamedTuple):
    """What a forward pass gives."""

    scores: Tensor
    """(B,) in float32 or better, on the model's own scale, higher is better."""
    auxiliary: dict[str, Tensor]
    """A model's own weighted losses by name (SRM eq. 21, 27, 28); empty for most models."""


def score_crops(model: QualityModel, crops: Tensor | Encoded, *, outside: bool = False) -> Scored:
    """Score crops (B, 3, h, w) in [0, 1] without the model's input protocol, which is for evaluation.

    What `encode` made of crops stands for them. Values `outside` [0, 1] are refused unless they are meant.
    """
    if isinstance(crops, tuple):
        return score_encoded(model, crops)
    if isinstance(model, SRMQuality | HyperQuality):
        return score_encoded(model, encode(model, crops))
    return Scored(_at_least_float32(model.score_admitted(crops) if outside else model(crops)), {})


def score_encoded(model: QualityModel, encoded: Encoded) -> Scored:
    """Score what `encode` returned: the part of a model behind its trunk."""
    auxiliary: dict[str, Tensor] = {}
    if isinstance(model, SRMQuality):
        trace = model.trace_maps(encoded)
        scores, auxiliary = trace.scores, dict(trace.neck.losses)
    elif isinstance(model, TimmRegressor):
        scores = model.head(*encoded)
    else:
        assert isinstance(model, HyperQuality)  # noqa: S101 - callers ask `has_trunk`
        scores = model.head(encoded)
    return Scored(_at_least_float32(scores if model.spec.higher_is_better else -scores), auxiliary)


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


class CropScorer(QualityModel):
    """A model as its training sees it: crops in, scores out. What adversarial training attacks."""

    def __init__(self, model: QualityModel) -> None:
        super().__init__(model.spec.replace(fixed_size=None, min_size=1))
        self.model = model

    def predict(self, images: Tensor) -> Tensor:
        """Return the scores (B,) of crops (B, 3, h, w), in the direction of the network's own output."""
        scores = score_crops(self.model, images).scores
        return scores if self.spec.higher_is_better else -scores


@contextmanager
def statistics_kept(model: QualityModel) -> Iterator[None]:
    """Run further passes of a step without moving any running statistic: every buffer is as it was after."""
    layers = [layer for layer in batch_norms(model) if layer.training]
    momenta = [layer.momentum for layer in layers]
    # Batch norm's means and variances are left alone, not put back: its backward pass holds on to them.
    kept = {id(mean) for layer in layers for mean in (layer.running_mean, layer.running_var)}
    moving = [module for module in model.modules() if module.training]
    named = [(module, name, b) for module in moving for name, b in module._buffers.items()]
    buffers = [b for _, _, b in named if b is not None and id(b) not in kept]
    values = [buffer.clone() for buffer in buffers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        with torch.no_grad():
            for buffer, value in zip(buffers, values, strict=True):
                buffer.data.copy_(value)  # no change that a later backward pass would count
        for module, name, former in named:  # a model may have put another tensor under the name
            if module._buffers.get(name) is not former:
                setattr(module, name, former)


@contextmanager
def evaluating(model: QualityModel) -> Iterator[None]:
    """Put every module into eval mode inside the block, and each back into its own mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Draws:
    """The state of the generators dropout draws from, so that a second pass can have the same masks."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda: Any = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw inside the block what was drawn after this object was made; afterwards go on as before."""
        with torch.random.fork_rng(devices=[] if self._cuda is None else [self._device]):
            torch.set_rng_state(self._cpu)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self._device)
            yield
