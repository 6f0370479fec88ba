"""What is under test: models, their cards and checkpoints. A name is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_models.cheats import CHEATS
    from iqa_models.checkpoint import load_checkpoint, save_checkpoint
    from iqa_models.errors import (
        BadCheckpoint,
        BadInput,
        BadModelOption,
        BadModelState,
        HubError,
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
    "HubError",
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

_PLACES = {
    "CHEATS": "cheats",
    **dict.fromkeys(("load_checkpoint", "save_checkpoint"), "checkpoint"),
    **dict.fromkeys(
        (
            "BadCheckpoint",
            "BadInput",
            "BadModelOption",
            "BadModelState",
            "HubError",
            "MissingWeights",
            "ModelError",
            "UnknownModel",
        ),
        "errors",
    ),
    **dict.fromkeys(("HyperQuality", "ImportReport", "import_checkpoint"), "hyper"),
    "weights_sha256": "identity",
    "LinearQuality": "linear",
    "QualityModel": "quality_model",
    **dict.fromkeys(
        ("create_model", "describe_model", "has_random_head", "list_models", "register_model"), "registry"
    ),
    "TimmRegressor": "regressor",
    "ModelSpec": "spec",
    **dict.fromkeys(("SRMNeck", "SRMQuality"), "srm"),
    **dict.fromkeys(("WrappedModel", "wrap"), "wrapping"),
}
"""Where each of them stands: most need torch, the list of models does not."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
