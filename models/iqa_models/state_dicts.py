"""Files of tensors that somebody wrote: read as data, taken out of their wrappers, held against a model."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from iqa_models.errors import BadCheckpoint

WRAPPERS = ("params", "params_ema", "state_dict", "model_state_dict", "model", "net")
"""Keys under which training code stores a state dict; of several the first counts."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile and trainers write in front of every name, perhaps twice."""

COUNTER = "num_batches_tracked"
"""Ends the names of counters that old torch did not save and no score depends on."""


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read a file of tensors, safetensors or torch's format, on the CPU; nothing in it is run.

    Returns:
        What the file holds: usually names to tensors, in some layouts a dict around that.

    Raises:
        BadCheckpoint: not readable, not a dict, or it needs pickled code.
    """
    if not path.is_file():
        raise BadCheckpoint(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                # Warnings about pickle protocols: the file is read or refused, nothing between.
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(f"{path}: {_why_refused(error)}") from error
    except Exception as error:  # damaged bytes can break a reader in any way
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadCheckpoint(f"{path}: not a file of tensors: {words}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _why_refused(error: Exception) -> str:
    needed = re.search(r"(?:GLOBAL|global:?) ([\w.]+\.[\w.]+)", str(error))
    if needed:
        return (
            f"refused, it needs pickled code ({needed[1]}) and nothing of it was run; "
            "save the bare state dict again, as tensors only"
        )
    return "refused, not a pickle of tensors only and nothing of it was run; damaged, or saved by other means"


def tensors_of(content: Mapping[str, Any], own: Collection[str] = ()) -> dict[str, Tensor]:
    """Return the tensors of a file's content, out of `WRAPPERS` and without `PREFIXES` all names have.

    Args:
        content: what `read_state_dict` returned.
        own: names of the model they are for, which may begin so themselves: once one is met, nothing more is
            taken away.
    """
    for _ in WRAPPERS:  # each once at most: a dict in a file may hold itself
        content = next((content[key] for key in WRAPPERS if _holds_tensors(content.get(key))), content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    while tensors and not any(name in own for name in tensors):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _holds_tensors(value: object) -> bool:
    """Whether a value is a dict of tensors, or one around it; settings may be called `params`, too."""
    return isinstance(value, Mapping) and any(
        isinstance(each, Tensor) or (name in WRAPPERS and isinstance(each, Mapping))
        for name, each in value.items()
    )


def misfit(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    exact: bool = False,
    more: Mapping[str, Collection[str]] | None = None,
) -> str:
    """Say what of some tensors does not fit a state dict, each kind with its names; nothing if all does.

    Args:
        expected: the state dict they are for.
        found: tensors under its names.
        exact: types must be equal too, and a `COUNTER` may not be missing.
        more: further kinds of what is wrong, with their names.
    """
    wrong: dict[str, list[str]] = {
        "missing": [n for n in expected if n not in found and (exact or not n.endswith(COUNTER))],
        "unexpected": [name for name in found if name not in expected],
        "of another form" if exact else "of another shape": [
            f"{name} is {_form(found[name], exact)}, not {_form(tensor, exact)}"
            for name, tensor in expected.items()
            if name in found and _form(found[name], exact) != _form(tensor, exact)
        ],
    }
    for kind, names in (more or {}).items():
        wrong[kind] = [*wrong.get(kind, ()), *names]
    return "; ".join(
        f"{len(names)} {kind}: {listed(sorted(names))}" for kind, names in wrong.items() if names
    )


def _form(tensor: Tensor, exact: bool) -> str:
    return (str(tensor.dtype).removeprefix("torch.") if exact else "") + str(list(tensor.shape))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return the first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
