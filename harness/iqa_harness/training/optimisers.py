"""Parameter groups with learning rates of their own, and the optimiser over them."""

from __future__ import annotations

import torch
from torch import nn

from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.schedules import HEAD, TRUNK, learning_rate


def parameter_groups(model: nn.Module, config: TrainConfig) -> dict[str, list[nn.Parameter]]:
    """Return the parameters by group: trunk, head, then each prefix of `lr_groups`; empty ones left out.

    Raises:
        TrainingError: a prefix of `lr_groups` holds no parameter.
    """
    groups: dict[str, list[nn.Parameter]] = {TRUNK: [], HEAD: [], **{name: [] for name in config.lr_groups}}
    for name, parameter in model.named_parameters():
        groups[_group_of(name, config)].append(parameter)
    for prefix in config.lr_groups:
        if not groups[prefix]:
            raise TrainingError(
                f"{config.name}: lr_groups: no parameter of {config.model!r} begins with {prefix!r}"
            )
    return {name: parameters for name, parameters in groups.items() if parameters}


def create_optimiser(model: nn.Module, config: TrainConfig, epoch: int = 1) -> torch.optim.Optimizer:
    """Return the optimiser of an epoch, counted from 1; without quirks every epoch has the same.

    HyperIQA's code consumes the iterator of its head's parameters in the first epoch, so that every
    optimiser it builds later has an empty head group.
    """
    peaks = {TRUNK: config.lr_trunk, HEAD: config.lr_head, **config.lr_groups}
    groups = []
    for name, parameters in parameter_groups(model, config).items():
        forgotten = config.quirks == "hyperiqa_author" and epoch > 1 and name == HEAD
        peak = peaks[name]
        groups.append({"params": [] if forgotten else parameters, "lr": peak, "peak_lr": peak, "group": name})
    if config.optimiser == "adam":
        return torch.optim.Adam(groups, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def rebuilds_every_epoch(config: TrainConfig) -> bool:
    """Whether each epoch has an optimiser of its own, its moments at zero."""
    return config.quirks == "hyperiqa_author"


def set_rates(
    optimiser: torch.optim.Optimizer, config: TrainConfig, step: int, steps_per_epoch: int
) -> dict[str, float]:
    """Set every group's learning rate for a step counted from 0; return the rates by group."""
    rates = {}
    for group in optimiser.param_groups:
        rate = learning_rate(config, group["group"], group["peak_lr"], step, steps_per_epoch)
        group["lr"] = rates[group["group"]] = rate
    return rates


def _group_of(name: str, config: TrainConfig) -> str:
    prefixes = dict.fromkeys(config.trunk_prefixes, TRUNK) | {p: p for p in config.lr_groups}
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    return prefixes[max(fitting, key=len)] if fitting else HEAD
