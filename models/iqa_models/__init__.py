"""What is under test: models, their cards and checkpoints."""

from iqa_models.errors import (
    BadCheckpoint,
    BadInput,
    BadModelOption,
    MissingWeights,
    ModelError,
    UnknownModel,
)
from iqa_models.linear import LinearQuality
from iqa_models.quality_model import QualityModel
from iqa_models.registry import create_model, describe_model, list_models, register_model
from iqa_models.spec import ModelSpec

__all__ = [
    "BadCheckpoint",
    "BadInput",
    "BadModelOption",
    "LinearQuality",
    "MissingWeights",
    "ModelError",
    "ModelSpec",
    "QualityModel",
    "UnknownModel",
    "create_model",
    "describe_model",
    "list_models",
    "register_model",
]
