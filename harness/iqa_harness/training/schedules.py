"""Learning rates as closed forms of the step: a resumed run is at the same place."""

from __future__ import annotations

import math

from iqa_harness.training.config import TrainConfig

TRUNK = "trunk"
"""Name of the trunk's parameter group."""
HEAD = "head"
"""Name of the group of everything else."""


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
