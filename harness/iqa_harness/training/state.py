"""What an interrupted run needs to go on, in one safetensors file: tensors, and a record as metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from iqa_harness.errors import TrainingError
from iqa_models.checkpoint import write_atomically

STATE = "training-state.safetensors"
"""Name of the file; it disappears when the checkpoint is written."""


class EpochLog(BaseModel):
    """One line of ``log.jsonl``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    """Counted from 1; 0 is the model before its first step."""
    loss: float | None
    """Mean training loss over the epoch's images, None for epoch 0."""
    val_srocc: float | None
    """On the validation split, whole images; None if the scores are constant."""
    seconds: float
    """Wall-clock time of the epoch, validation included."""


class Progress(BaseModel):
    """Where a run stands after an epoch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: str
    """Hash of settings and images; a state of another run is refused."""
    log: tuple[EpochLog, ...]
    """All epochs so far."""
    best_epoch: int
    """Epoch with the highest validation SROCC, the earliest of equals."""

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return self.log[-1].epoch


def save_state(
    path: Path,
    progress: Progress,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
) -> None:
    """Write the state whole or not at all; the one of the epoch before stays until then."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
    plain = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(
        plain, metadata={"progress": progress.model_dump_json(), "sha256": _digest(plain)}
    )
    write_atomically(path, content)


def load_state(
    path: Path, identity: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]]:
    """Restore model and optimiser in place; return the progress and the best epoch's weights.

    Raises:
        TrainingError: the file is damaged, or belongs to other settings or images.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        progress = Progress.model_validate_json(metadata["progress"])
        whole = metadata["sha256"] == _digest(tensors)
    except (OSError, KeyError, safetensors.SafetensorError, ValidationError) as error:
        raise TrainingError(f"{path}: no training state can be read from it: {error}") from error
    if not whole:
        raise TrainingError(f"{path}: damaged, its tensors do not match its hash")
    if progress.identity != identity:
        raise TrainingError(
            f"{path}: an unfinished run with other settings or images; overwrite it or train elsewhere"
        )
    model.load_state_dict(_under("model.", tensors))
    _restore(optimiser, _under("optimiser.", tensors))
    return progress, _under("best.", tensors)


def _restore(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        # In the parameter's own memory layout: the next steps then round as they would have.
        value = (
            torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor.clone()
        )
        optimiser.state[parameter][name] = value.detach()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
