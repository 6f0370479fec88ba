"""What an interrupted run needs to go on, in one safetensors file: tensors, and a record as metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from iqa_harness.errors import TrainingError
from iqa_models import QualityModel
from iqa_models.identity import state_sha256
from iqa_results.storage import write_whole

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
    """On the split that chooses the epoch, whole images; None if the scores are constant."""
    seconds: float
    """Wall-clock time of the epoch, validation included."""
    rates: dict[str, float] = {}
    """Learning rate of each group at the epoch's last step."""
    terms: dict[str, float] = {}
    """Mean of each part of the loss."""
    images_per_second: float | None = None
    """Crops a second of the steps alone."""
    data_share: float | None = None
    """Share of the steps' time that was spent waiting for images."""


class Progress(BaseModel):
    """Where a run stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: str
    """Hash of settings and images; a state of another run is refused."""
    log: tuple[EpochLog, ...]
    """All finished epochs so far."""
    best_epoch: int
    """Epoch of highest SROCC on the split that chooses, the earliest of equals; the last if none has one."""

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return self.log[-1].epoch


class Partway(BaseModel):
    """Where the unfinished epoch stands; the default is its beginning."""

    model_config = ConfigDict(extra="forbid")

    steps: int = 0
    """Steps done."""
    seen: int = 0
    """Images seen."""
    totals: dict[str, float] = {}
    """Sums over those images of the loss (`loss`) and its parts."""
    seconds: float = 0.0
    """Time spent so far."""
    waited: float = 0.0
    """Part of it spent waiting for images."""
    scaler: dict[str, float] = {}
    """State of the loss scaling, empty without."""

    def add(self, terms: Mapping[str, float], count: int) -> None:
        """Count a step on so many images, whose loss and parts are means over them."""
        self.steps += 1
        self.seen += count
        for name, value in terms.items():
            self.totals[name] = self.totals.get(name, 0.0) + value * count


@dataclass
class Training:
    """What changes in the course of a run, restored in place."""

    model: QualityModel
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor]
    """Weights of the best epoch, on the CPU."""
    average: dict[str, Tensor]
    """Moving average of the weights, empty without."""
    device: torch.device
    scaler: torch.amp.GradScaler | None = None


@contextmanager
def averaged(training: Training) -> Iterator[None]:
    """Have the model hold the moving average inside the block, if there is one."""
    if not training.average:
        yield
        return
    model = training.model
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(training.average)
    try:
        yield
    finally:
        model.load_state_dict(own)


def save_state(path: Path, progress: Progress, partway: Partway, training: Training) -> None:
    """Write the state whole or not at all; the one before stays until then."""
    tensors = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in training.best.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in training.average.items()}
    for index, values in training.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
    tensors["generator.cpu"] = torch.get_rng_state()
    if training.device.type == "cuda":
        tensors["generator.cuda"] = torch.cuda.get_rng_state(training.device)
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    if training.scaler is not None:
        partway = partway.model_copy(update={"scaler": training.scaler.state_dict()})
    metadata = {
        "progress": progress.model_dump_json(),
        "partway": partway.model_dump_json(),
        "sha256": state_sha256(plain),
    }
    write_whole(path, safetensors.torch.save(plain, metadata=metadata))


@dataclass(frozen=True)
class StoredState:
    """A state that was read and checked, not yet restored."""

    progress: Progress
    partway: Partway
    tensors: dict[str, Tensor]

    def restore(self, training: Training) -> None:
        """Put model, optimiser, averages, generators and loss scaling where they were."""
        training.model.load_state_dict(_under("model.", self.tensors))
        _restore(training.optimiser, _under("optimiser.", self.tensors))
        training.best = _under("best.", self.tensors)
        training.average = {
            name: value.to(training.device) for name, value in _under("average.", self.tensors).items()
        }
        torch.set_rng_state(self.tensors["generator.cpu"])
        if training.device.type == "cuda" and "generator.cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["generator.cuda"], training.device)
        if training.scaler is not None and self.partway.scaler:
            training.scaler.load_state_dict(self.partway.scaler)


def load_state(path: Path, identity: str) -> StoredState:
    """Read a state.

    Raises:
        TrainingError: the file is damaged, or belongs to other settings or images.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        progress = Progress.model_validate_json(metadata["progress"])
        partway = Partway.model_validate_json(metadata["partway"])
        whole = metadata["sha256"] == state_sha256(tensors)
    except (OSError, KeyError, safetensors.SafetensorError, ValidationError) as error:
        raise TrainingError(f"{path}: no training state can be read from it: {error}") from error
    if not whole:
        raise TrainingError(f"{path}: damaged, its tensors do not match its hash")
    if progress.identity != identity:
        raise TrainingError(
            f"{path}: an unfinished run with other settings or images; overwrite it or train elsewhere"
        )
    return StoredState(progress, partway, tensors)


def _restore(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        # In the parameter's own memory layout: the next steps then round as they would have. The count of
        # steps stays on the CPU, also where the parameter is one number on a card.
        like = name != "step" and tensor.shape == parameter.shape
        value = torch.empty_like(parameter).copy_(tensor) if like else tensor.clone()
        optimiser.state[parameter][name] = value.detach()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
