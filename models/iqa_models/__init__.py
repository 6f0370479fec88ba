"""What is under test: models, their cards and checkpoints."""

from iqa_models.cheats import CHEATS
from iqa_models.checkpoint import load_checkpoint, save_checkpoint
from iqa_models.errors import (
    BadCheckpoint,
    BadInput,
    BadModelOption,
    BadModelState,
    MissingWeights,
    ModelError,
    UnknownModel,
)
from iqa_models.hyper import HyperQuality, ImportReport, import_checkpoint
from iqa_models.identity import weights_sha256
from iqa_models.linear import LinearQuality
from iqa_models.quality_model import QualityModel
from iqa_models.registry import (
    create_model,
    describe_model,
    has_random_head,
    list_models,
    register_model,
)
from iqa_models.regressor import TimmRegressor
from iqa_models.spec import ModelSpec
from iqa_models.srm import SRMNeck, SRMQuality
from iqa_models.wrapping import WrappedModel, wrap

__all__ = [
    "CHEATS",
    "BadCheckpoint",
    "BadInput",
    "BadModelOption",
    "BadModelState",
    "HyperQuality",
    "ImportReport",
    "LinearQuality",
    "MissingWeights",
    "ModelError",
    "ModelSpec",
    "QualityModel",
    "SRMNeck",
    "SRMQuality",
    "TimmRegressor",
    "UnknownModel",
    "WrappedModel",
    "create_model",
    "describe_model",
    "has_random_head",
    "import_checkpoint",
    "list_models",
    "load_checkpoint",
    "register_model",
    "save_checkpoint",
    "weights_sha256",
    "wrap",
]
