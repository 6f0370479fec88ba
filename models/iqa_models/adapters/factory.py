"""``module:PACKAGE.MOD:FACTORY?key=value``: what a function of the user's own returns. Its code is run."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from iqa_models.adapters.foreign import (
    OPTIONS,
    ForeignModel,
    Known,
    load_weights,
    reported,
    require_bytes,
    seeded_apart,
)
from iqa_models.errors import BadModelOption
from iqa_models.quality_model import QualityModel
from iqa_models.registry import register_model

OWN = ("weights", "strip", "takes")


@register_model("module")
def module(of: str, **options: Any) -> ForeignModel:
    """What a function of your own returns, as module:PACKAGE.MOD:FACTORY?key=value.

    Args:
        of: PACKAGE.MOD:FACTORY, importable from Python's path or the current folder. What is there is called
            with the options that are not this way's own; a module that is there already is taken as it is.
        **options: `OPTIONS`; ``weights`` and ``strip``, a file of tensors for the module; ``takes``, see
            `iqa_models.wrapping.Takes`; the others go to the factory.
    """
    place, colon, name = of.partition(":")
    if not (place and colon and name):
        raise BadModelOption(f"module:{of}: write module:PACKAGE.MOD:FACTORY")
    found = _found(of, place, name)
    signature = None if isinstance(found, nn.Module) else _signature(found)
    taken = set() if signature is None else set(signature.parameters)
    ours = {k: v for k, v in options.items() if k in (*OWN, *OPTIONS) and k not in taken}
    rest = {k: v for k, v in options.items() if k not in ours}
    made: Any = found
    if not isinstance(found, nn.Module):
        if signature is not None:
            _require_call(of, signature, rest)
        with reported(f"module:{of}"), seeded_apart():
            made = found(**rest)
    elif rest:
        raise BadModelOption(f"module:{of} is a module, which takes no {', '.join(rest)}")
    if "weights" in ours:
        if not isinstance(made, nn.Module):
            raise BadModelOption(f"module:{of} returns no nn.Module that weights could be loaded into")
        load_weights(made, str(ours["weights"]), str(ours.get("strip", "")))
    return _wrapped({"of": of, **options}, made, found, ours)


def _wrapped(options: dict[str, Any], made: Any, maker: Any, ours: dict[str, Any]) -> ForeignModel:
    """Return what was made as a model under test."""
    of, takes = str(options["of"]), ours.get("takes", "tensors")
    if takes not in ("tensors", "arrays", "bytes"):
        raise BadModelOption(f"module:{of}: takes is tensors, arrays or bytes, not {takes!r}")
    if takes == "bytes":
        require_bytes(f"module:{of}", ours)
    if isinstance(made, nn.Module):
        made.eval()
    if isinstance(made, QualityModel):
        spec = made.spec
        low, high = spec.score_range
        known = Known(
            spec.summary, spec.source, spec.initial_weights,
            (low, high) if spec.higher_is_better else (-high, -low), spec.higher_is_better,
            spec.has_gradient, spec.is_stochastic, spec.min_size, spec.fixed_size, notes=spec.notes,
        )  # fmt: skip
        scorer: Callable[..., Any] = made.predict
    elif callable(made):
        known = Known(f"what {of} returns", of, gradient=None if takes == "tensors" else False)
        scorer = made
    else:
        raise BadModelOption(
            f"module:{of}: must return an nn.Module, a QualityModel or a callable on images, not {made!r:.80}"
        )
    card = {key: value for key, value in options.items() if key in ("of", *ours)}
    model = ForeignModel("module", card, known, scorer, takes)
    model.spec = model.spec.replace(options=options)
    if isinstance(maker, types.FunctionType):
        model.__dict__["maker"] = maker  # its text is part of what the model is
    return model.eval()


def _found(of: str, place: str, name: str) -> Any:
    """Import what is named; the current folder is looked in last."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # as for `python -m`; it stays, for what the module imports later
    with reported(f"module:{of}"):
        found: Any = importlib.import_module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise BadModelOption(f"module:{of}: {place} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise BadModelOption(f"module:{of}: {name} is neither a function nor a module")
    return found


def _signature(found: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except (TypeError, ValueError):  # of C code
        return None


def _require_call(of: str, signature: inspect.Signature, options: dict[str, Any]) -> None:
    """Refuse options that a factory cannot be called with, such as none for a function that scores images."""
    try:
        signature.bind(**options)
    except TypeError as error:
        raise BadModelOption(
            f"module:{of}: {error}; it is called with its options alone, and what it returns is the model"
        ) from error
