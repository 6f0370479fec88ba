"""Where a model divides into a trunk and the rest, for training that leaves the trunk alone."""

from __future__ import annotations

from torch import Tensor, nn

from iqa_models import HyperQuality, QualityModel, SRMQuality, TimmRegressor

Encoded = tuple[Tensor, ...]
"""What a trunk hands to the rest of its model: stage maps (B, C_s, H_s, W_s), or pooled features (B, F)."""


def has_trunk(model: QualityModel) -> bool:
    """Whether `encode` can be asked of a model."""
    return isinstance(model, SRMQuality | HyperQuality | TimmRegressor)


def trunk_of(model: nn.Module) -> nn.Module:
    """Return the trunk of a model that `has_trunk`."""
    assert isinstance(model, SRMQuality | HyperQuality | TimmRegressor)  # noqa: S101 - callers ask `has_trunk`
    return model.trunk


def encode(model: QualityModel, crops: Tensor) -> Encoded:
    """Return what a model's trunk makes of crops (B, 3, h, w) in [0, 1], without the input protocol."""
    if isinstance(model, TimmRegressor):
        return (model.features(crops),)
    assert isinstance(model, SRMQuality | HyperQuality)  # noqa: S101 - callers ask `has_trunk`
    return tuple(model.trunk(model.normalise(crops)))


def encode_images(model: QualityModel, images: Tensor) -> Encoded:
    """Return what the trunk makes of images (B, 3, H, W) under a protocol of one crop an image."""
    if isinstance(model, SRMQuality | HyperQuality):
        images = model.protocol.crops(images)
    return encode(model, images)
