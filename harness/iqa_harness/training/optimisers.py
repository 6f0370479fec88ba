"""Parameter groups, the optimiser over them, and each group's learning rate at every step.

A rate is a function of the step alone, so that a resumed run is at the same place.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig

TRUNK = "trunk"
"""Name of the trunk's parameter group."""
HEAD = "head"
"""Name of the group of everything else."""


def parameter_groups(model: nn.Module, config: TrainConfig) -> dict[str, list[nn.Parameter]]:
    """Return what learns by group: trunk, head, then each prefix of `lr_groups`; empty ones left out.

    Raises:
        TrainingError: a prefix of `lr_groups` holds no parameter.
    """
    groups: dict[str, list[nn.Parameter]] = {TRUNK: [], HEAD: [], **{name: [] for name in config.lr_groups}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
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


def learning_rate(config: TrainConfig, group: str, peak: float, step: int, steps_per_epoch: int) -> float:
    """Return a group's learning rate at a step.

    Args:
        config: schedule and its settings.
        group: `TRUNK`, `HEAD` or the prefix of a further group.
        peak: the group's peak rate.
        step: of the whole run, counted from 0.
        steps_per_epoch: steps of one pass.
    """
    if config.schedule == "one_cycle":
        return one_cycle(step, steps_per_epoch * config.epochs, warmup=config.warmup) * peak
    epoch = step // steps_per_epoch
    now, unit = (step, steps_per_epoch) if config.schedule_per == "step" else (epoch, 1)
    rise = round(config.warmup_epochs * unit)
    if now < rise:
        return peak * (now + 1) / rise
    if config.schedule == "cosine":
        return cosine(now - rise, unit * config.epochs - rise, peak, config.eta_min)
    if config.schedule == "multistep" and (group != TRUNK or config.decay_trunk):
        return multistep(epoch, peak, config.milestones, config.gamma)
    return peak


def cosine(now: int, total: int, peak: float, lowest: float) -> float:
    """Return lowest + (peak - lowest) (1 + cos(pi now / total)) / 2 (Loshchilov and Hutter 2017)."""
    return lowest + (peak - lowest) * 0.5 * (1 + math.cos(math.pi * now / total))


def multistep(epoch: int, peak: float, milestones: tuple[int, ...], gamma: float) -> float:
    """Return peak gamma^k, k the number of milestones reached at an epoch, counted from 0."""
    return peak * gamma ** sum(epoch >= milestone for milestone in milestones)


def one_cycle(step: int, steps: int, *, warmup: float) -> float:
    """Return the share in (0, 1] of the peak learning rate at one of `steps` steps, counted from 0.

    A half cosine from 1/25 up to 1 over the first `warmup` share of the steps, another one down to
    1/250,000 over the rest (Smith and Topin 2018, in the two-phase cosine form that is common today).
    """
    first, last = 1 / 25, 1 / 250_000
    peak = warmup * steps - 1
    if step <= peak:
        return _half_cosine(first, 1.0, step / peak if peak > 0 else 1.0)
    begin = max(peak, 0.0)
    return _half_cosine(1.0, last, (step - begin) / max(steps - 1 - begin, 1e-12))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
