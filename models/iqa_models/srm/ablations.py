"""The ablations by name: what each changes in `SRMConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from iqa_models.errors import BadModelOption
from iqa_models.registry import did_you_mean

ABLATIONS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "none": {},
        "uniform_landmarks": {"landmarks": "uniform"},
        "sampled_landmarks": {"landmarks": "sampled"},
        "kmeans": {"kmeans": True},
        "no_rescaler": {"rescaler": False},
        "no_gate_regulariser": {"entropy_weight": 0.0, "balance_weight": 0.0},
        "no_gain_cap": {"gain_cap": False},
        "rank_8": {"rank": 8},
        "rank_16": {"rank": 16},
        "rank_32": {"rank": 32},
        "rank_64": {"rank": 64},
        "neumann_3": {"solver": "neumann", "neumann_terms": 3},
        "equilibration": {"equilibrate": True},
        "no_dyt": {"dyt": False},
        "kv_pooling_training": {"kv_pooling": "training"},
        "kv_pooling_always": {"kv_pooling": "always"},
    }
)
"""Name of an ablation to the settings it makes; ``none`` is the method itself."""


def ablated(model: str, ablation: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's settings together with those of a named ablation.

    Args:
        model: name, for messages.
        ablation: a key of `ABLATIONS`.
        settings: fields of `SRMConfig`.

    Raises:
        BadModelOption: no such ablation, or a setting that contradicts it.
    """
    if ablation not in ABLATIONS:
        near = did_you_mean(str(ablation), ABLATIONS)
        raise BadModelOption(f"{model}: no ablation {ablation!r}{near}; there are: {', '.join(ABLATIONS)}")
    changes = ABLATIONS[ablation]
    for name, value in changes.items():
        if settings.get(name, value) != value:
            raise BadModelOption(
                f"{model}: ablation {ablation!r} sets {name}={value!r}, but {settings[name]!r} was given"
            )
    return {**settings, **changes}
