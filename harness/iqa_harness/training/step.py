"""One optimisation step: forward, loss, robust part, backward, clip, update; a bad number stops it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_harness.errors import TrainingError
from iqa_harness.machine.devices import use_devices
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.environment import autocast
from iqa_harness.training.forward import Draws, score_crops
from iqa_harness.training.losses import training_loss
from iqa_harness.training.robust import Adversary, create_adversary, gradient_norm_penalty
from iqa_harness.training.robust_settings import GradientNorm
from iqa_harness.training.state import Training
from iqa_harness.training.trunks import Encoded
from iqa_models import QualityModel

SMALLEST_SCALE = 1.0
"""Loss scale below which fp16 training is given up: gradients overflow however small the loss is."""


class NotFinite(TrainingError):
    """A loss or gradient that is not a finite number."""


class StepResult(NamedTuple):
    """What one step did."""

    terms: dict[str, float]
    """The loss and its parts."""
    gradient_norm: float
    """Over all parameters, before clipping; NaN in a step that loss scaling left out."""


@dataclass
class Stepper:
    """Takes steps on one model."""

    config: TrainConfig
    model: QualityModel
    training: Training
    adversary: Adversary | None = None

    def __post_init__(self) -> None:
        self.adversary = create_adversary(self.config)
        if self.adversary is not None and self.model.is_stochastic:
            raise TrainingError(
                f"{self.config.name}: {self.config.model!r} is stochastic in evaluation; adversarial "
                "training averages no draws"
            )
        # Gathered once: clipping walks them at every step.
        self._parameters = list(self.model.parameters())
        if self.adversary is not None:
            use_devices({str(each.device) for each in self._parameters}, None, exact=True)

    def __call__(self, crops: Tensor | Encoded, labels: Tensor, ids: Sequence[str]) -> StepResult:
        """Do one step; learning rates are set already.

        Args:
            crops: (B, 3, h, w) in [0, 1], or a frozen trunk's maps of them, on the device.
            labels: (B,) on [0, 1], on the device.
            ids: one a crop, unique within the run: random starts are drawn from them.

        Raises:
            NotFinite: the loss or the gradient is not finite; nothing was updated.
            TrainingError: a batch of one crop that the model cannot be trained on.
        """
        optimiser, scaler = self.training.optimiser, self.training.scaler
        optimiser.zero_grad(set_to_none=True)
        if self.adversary is not None and isinstance(crops, Tensor):
            crops, labels = self.adversary(self.model, crops, labels, ids)
        try:
            loss, terms = self._loss(crops, labels)
        except ValueError as error:
            if len(labels) > 1:
                raise
            # Live batch norm has no deviation of one value a channel.
            raise TrainingError(
                f"{self.config.name}: the last batch is a single crop ({error}); take another batch_size"
            ) from error
        if not bool(torch.isfinite(loss)):
            raise NotFinite(f"loss {loss.item():g}{_listed(terms)}")
        torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
        if scaler is not None:
            scaler.unscale_(optimiser)
        # Without a bound the norm is only measured.
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.clip_norm or torch.inf)
        if scaler is None:
            if not bool(torch.isfinite(norm)):
                raise NotFinite(f"loss {loss.item():g}, gradient norm {norm.item():g}")
            optimiser.step()
        else:
            scaler.step(optimiser)  # leaves the step out if a gradient overflowed, and halves the scale
            scaler.update()
            if scaler.get_scale() < SMALLEST_SCALE:
                raise NotFinite(f"gradients overflow fp16 at a loss scale of {scaler.get_scale():g}")
        self._average()
        return StepResult({"loss": loss.item(), **{k: v.item() for k, v in terms.items()}}, norm.item())

    def _loss(self, crops: Tensor | Encoded, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        config, (low, high) = self.config, self.model.spec.score_range
        # Only a second pass needs the generators' state.
        robust = config.robust
        draws = Draws(self.training.device) if isinstance(robust, GradientNorm) else None
        with autocast(config, self.training.device):
            raw, auxiliary = score_crops(self.model, crops)
            if config.loss_scale == "unit":
                quality = training_loss(config, (raw - low) / (high - low), labels, 1.0)
            else:
                quality = training_loss(config, raw, low + (high - low) * labels, high - low)
            terms = {"quality": quality, **auxiliary}
            if draws is not None and isinstance(robust, GradientNorm) and isinstance(crops, Tensor):
                penalty = gradient_norm_penalty(self.model, crops, raw, robust, draws=draws, span=high - low)
                terms["gradient_norm"] = robust.weight * penalty
        loss = quality
        for name, value in terms.items():
            if name != "quality":
                loss = loss + value
        return loss, terms if len(terms) > 1 else {}

    @torch.no_grad()
    def _average(self) -> None:
        average, decay = self.training.average, self.config.ema_decay
        if not average:
            return
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)


def _listed(terms: dict[str, Tensor]) -> str:
    text = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
    return f" ({text})" if text else ""
