"""What happens once before the first step: batch norm statistics and the head's start."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.trunks import Encoded, encode, has_trunk, trunk_of
from iqa_models import QualityModel, TimmRegressor


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norm layers of a model."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def freeze_trunk(config: TrainConfig, model: QualityModel) -> None:
    """Take a model's trunk out of training.

    Raises:
        TrainingError: the model has no trunk apart from its head.
    """
    if not has_trunk(model):
        raise TrainingError(
            f"{config.name}: trunk: {config.model!r} has none apart from its head; set it to trained"
        )
    trunk_of(model).requires_grad_(False)


def training_mode(model: nn.Module, *, live_batch_norm: bool, frozen_trunk: bool = False) -> None:
    """Put a model into training mode; batch norm keeps its statistics unless it is live.

    A frozen trunk stays in eval mode: no statistic of it moves, and it drops no path.
    """
    model.train()
    if frozen_trunk:
        trunk_of(model).eval()
    if not live_batch_norm:
        for layer in batch_norms(model):
            layer.eval()


@torch.no_grad()
def calibrate_batch_norm(model: QualityModel, batches: Iterable[Tensor]) -> None:
    """Replace batch norm's statistics by the mean over the given batches (B, 3, H, W) in [0, 1].

    A trunk with random weights needs this before its statistics can be frozen: it has none.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
    training_mode(model, live_batch_norm=True)
    for images in batches:
        model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


@torch.no_grad()
def start_head(
    model: TimmRegressor, batches: Iterable[Tensor | Encoded], labels: Tensor, *, ridge_alpha: float | None
) -> None:
    """Fit the head's standardisation on the given images, and its linear part if `ridge_alpha` is given.

    Args:
        model: its trunk is left as it is.
        batches: images (B, 3, H, W) in [0, 1], or the trunk's features of them.
        labels: wanted scores on the model's scale, (N,) for all batches together.
        ridge_alpha: penalty of the closed-form solution; None leaves the linear part alone.
    """
    model.eval()
    encoded = [each if isinstance(each, tuple) else encode(model, each) for each in batches]
    features = torch.cat([each for (each,) in encoded])
    scaled = model.head.standardise_on(features)
    if ridge_alpha is not None:
        weight, bias = ridge(scaled, labels, ridge_alpha)
        model.head.set_linear(weight, float(bias))


def ridge(features: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the weight (F,) and bias (), in float64, that minimise ||Zw + b - y||^2 + alpha ||w||^2.

    Z are the features (N, F), y the labels (N,). The bias is not penalised. Solved in float64.
    """
    # MPS has no float64: there, the host solves it.
    z, y = (each.cpu() if each.device.type == "mps" else each for each in (features, labels))
    z, y = z.double(), y.double()
    z_mean, y_mean = z.mean(0), y.mean()
    z, y = z - z_mean, y - y_mean
    gram = z.T @ z + alpha * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    weight = torch.linalg.solve(gram, z.T @ y)
    return weight.to(features), y_mean - z_mean @ weight
