"""Settings of a training run, read from TOML, strict: every key known, every value in range."""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from iqa_harness.errors import TrainingError


class TrainConfig(BaseModel):
    """Everything that decides the weights, next to the images themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name of these settings; the checkpoint's folder carries it."""
    model: str
    """Registered model, as `create_model` takes it."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the model's builder; `seed` among them draws the random weights."""
    data: str = "demo"
    """Data set these settings are meant for; the command line opens it."""
    seed: int = Field(default=0, ge=0)
    """Of order, crops, flips and dropout, each drawn from (seed, epoch, image id)."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch; another number rounds sums otherwise, so one gives equal weights on most machines."""
    epochs: int = Field(ge=1)
    """Passes over the training split."""
    images_per_epoch: int | None = Field(default=None, ge=1)
    """Images of one pass, newly drawn each time; None takes the whole split."""
    batch_size: int = Field(default=16, ge=2)
    """Images of one step; the correlation in the loss is over a batch."""
    crop: int = Field(default=160, ge=1)
    """Side in pixels of the random crop; no image may be smaller."""
    flip: bool = True
    """Whether half of the crops are mirrored left to right."""
    lr_trunk: float = Field(default=5e-4, gt=0)
    """Peak learning rate of parameters under `trunk`."""
    lr_head: float = Field(default=2e-3, gt=0)
    """Peak learning rate of all other parameters."""
    warmup: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps in which the learning rate rises; it falls in the others."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Of AdamW."""
    clip_norm: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient over all parameters."""
    smooth_l1_beta: float = Field(default=0.1, gt=0)
    """Error, as a share of the score range, where the loss turns from quadratic to linear."""
    plcc_weight: float = Field(default=0.2, ge=0)
    """Weight of 1 - PLCC beside the smooth L1 loss."""
    batch_norm: Literal["frozen", "calibrated", "live"] = "frozen"
    """Statistics of batch norm: as they come, measured once on the training split, or updated every step."""
    head_start: Literal["random", "ridge"] = "random"
    """How a pooled head begins: random, or solved in closed form on the trunk's first features."""
    ridge_alpha: float = Field(default=1000.0, gt=0)
    """Penalty of the ridge solution, on standardised features."""


def list_presets(pattern: str = "*") -> list[str]:
    """Return the names of the settings that ship with the harness and match a shell pattern, sorted."""
    names = (item.name for item in _folder().iterdir())
    known = [name.removesuffix(".toml") for name in names if name.endswith(".toml")]
    return sorted(fnmatch.filter(known, pattern))


def load_preset(name: str) -> TrainConfig:
    """Return the settings that ship under a name of `list_presets`.

    Raises:
        TrainingError: no such preset; the message holds the nearest name.
    """
    known = list_presets()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        near = f", did you mean {close[0]!r}?" if close else ""
        raise TrainingError(f"no training preset {name!r}{near}; there are: {', '.join(known)}")
    return _parse(_folder() / f"{name}.toml", f"{name}.toml")


def load_train_config(path: Path) -> TrainConfig:
    """Read settings from a TOML file.

    Raises:
        TrainingError: the file cannot be read, is no TOML, or has an unknown key or a bad value;
            the message names the file and every such key.
    """
    return _parse(path, str(path))


def _folder() -> Traversable:
    return resources.files("iqa_harness.training") / "presets"


def _parse(file: Traversable, shown: str) -> TrainConfig:
    try:
        return TrainConfig.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc']))}: {_message(e['type'], str(e['loc'][0]), e['msg'])}"
            for e in error.errors()
        ]
        raise TrainingError(f"{shown}: {'; '.join(lines)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{shown}: {error}") from error


def _message(kind: str, key: str, message: str) -> str:
    if kind != "extra_forbidden":
        return message
    close = difflib.get_close_matches(key, TrainConfig.model_fields, n=1, cutoff=0.5)
    return "unknown key" + (f", did you mean {close[0]!r}?" if close else "")
