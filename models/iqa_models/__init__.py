"""What is under test: models, their cards and checkpoints. A name is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Under their own names: so a type checker knows that they are meant for others.
    from iqa_models.cheats import CHEATS as CHEATS
    from iqa_models.checkpoint import load_checkpoint as load_checkpoint
    from iqa_models.checkpoint import save_checkpoint as save_checkpoint
    from iqa_models.errors import BadCheckpoint as BadCheckpoint
    from iqa_models.errors import BadInput as BadInput
    from iqa_models.errors import BadModelOption as BadModelOption
    from iqa_models.errors import BadModelState as BadModelState
    from iqa_models.errors import HubError as HubError
    from iqa_models.errors import MissingWeights as MissingWeights
    from iqa_models.errors import ModelError as ModelError
    from iqa_models.errors import UnknownModel as UnknownModel
    from iqa_models.hyper import HyperQuality as HyperQuality
    from iqa_models.hyper import ImportReport as ImportReport
    from iqa_models.hyper import import_checkpoint as import_checkpoint
    from iqa_models.identity import weights_sha256 as weights_sha256
    from iqa_models.linear import LinearQuality as LinearQuality
    from iqa_models.quality_model import QualityModel as QualityModel
    from iqa_models.registry import create_model as create_model
    from iqa_models.registry import describe_model as describe_model
    from iqa_models.registry import has_random_head as has_random_head
    from iqa_models.registry import list_models as list_models
    from iqa_models.registry import register_model as register_model
    from iqa_models.regressor import TimmRegressor as TimmRegressor
    from iqa_models.spec import ModelSpec as ModelSpec
    from iqa_models.srm import SRMNeck as SRMNeck
    from iqa_models.srm import SRMQuality as SRMQuality
    from iqa_models.wrapping import WrappedModel as WrappedModel
    from iqa_models.wrapping import wrap as wrap

_PLACES = {
    "CHEATS": "cheats",
    **dict.fromkeys(("load_checkpoint", "save_checkpoint"), "checkpoint"),
    **dict.fromkeys(("BadCheckpoint", "BadInput", "BadModelOption", "BadModelState"), "errors"),
    **dict.fromkeys(("HubError", "MissingWeights", "ModelError", "UnknownModel"), "errors"),
    **dict.fromkeys(("HyperQuality", "ImportReport", "import_checkpoint"), "hyper"),
    "weights_sha256": "identity",
    "LinearQuality": "linear",
    "QualityModel": "quality_model",
    **dict.fromkeys(("create_model", "describe_model", "has_random_head"), "registry"),
    **dict.fromkeys(("list_models", "register_model"), "registry"),
    "TimmRegressor": "regressor",
    "ModelSpec": "spec",
    **dict.fromkeys(("SRMNeck", "SRMQuality"), "srm"),
    **dict.fromkeys(("WrappedModel", "wrap"), "wrapping"),
}
"""Where each of them stands: most need torch, the list of models does not."""

__all__ = sorted(_PLACES)  # noqa: PLE0605 - read from the one table of them


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
