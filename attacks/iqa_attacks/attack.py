"""Attacks as records of their settings, created by name and run through one checked template."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from iqa_attacks.engine import Ascent, Cost, Found, Schedule, Targets, ascend
from iqa_attacks.errors import AttackError, BadAttackOption, UnknownAttack
from iqa_attacks.gradients import score
from iqa_attacks.objectives import PairwiseInversion, create_objective
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel


class AttackResult(NamedTuple):
    """What an attack found; nothing in it is trusted until the harness has measured it again."""

    found: list[Found]
    """One entry an (image, objective, reported number of steps)."""
    cost: dict[tuple[int, int], Cost]
    """Work by (image, steps), shared by all objectives."""
    clean: Tensor
    """(n,) float64: scores of the unattacked images."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack on scores with all its settings; `run` is the only way to use one."""

    kind: ClassVar[str]
    threat: ThreatModel
    """Ball and box the attacked images must lie in."""
    objectives: tuple[str, ...]
    """What is maximised, by name; all share their gradients."""
    seed: int = 0
    """Starts are drawn from (seed, image id, restart)."""
    batch: int = 8
    """Consecutive images in a batch of `pairwise_inversion` (SRM section 3.8.4: 8, in test order)."""
    tau: float = 0.1
    """Temperature of `pairwise_inversion`, in units of the model's score range."""

    def __post_init__(self) -> None:
        if not self.objectives:
            raise BadAttackOption(f"{self.kind}: needs at least one objective")
        if len(set(self.objectives)) != len(self.objectives):
            raise BadAttackOption(f"{self.kind}: an objective is named twice in {list(self.objectives)}")
        for name in self.objectives:
            create_objective(name, tau=self.tau)
        if self.batch < 2:
            raise BadAttackOption(f"{self.kind}: batch must be at least 2, not {self.batch}")

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """How far and how often the ascent goes."""

    @property
    def couples_images(self) -> bool:
        """Whether an image's result depends on the others of its batch."""
        return PairwiseInversion.name in self.objectives

    @final
    def run(
        self,
        model: QualityModel,
        images: Sequence[Tensor],
        ids: Sequence[str],
        mos: Tensor,
        *,
        chunk: int = 8,
        max_states: int = 64,
    ) -> AttackResult:
        """Attack images in evaluation order.

        Args:
            model: the model under attack, in eval mode and deterministic.
            images: (3, H, W) each, on the model's device and in its precision, in [0, 1].
            ids: one unique id an image; starts are drawn from it.
            mos: (n,) labels on [0, 1], higher is better.
            chunk: images in one forward or backward pass.
            max_states: starts run together (memory), images times restarts.

        Raises:
            AttackError: unusable input, a model in training mode, or a stochastic model, which needs EOT.
            AttackFailed: the model gave scores or gradients that no attack can use.
        """
        if model.training:
            raise AttackError(f"{model.spec.name} is in training mode; call .eval() first")
        if model.is_stochastic:
            raise AttackError(
                f"{model.spec.name} is stochastic and {self.kind} averages no gradients (EOT): "
                "its numbers would overstate robustness"
            )
        if not len(images) == len(ids) == len(mos):
            raise AttackError(f"{len(images)} images, {len(ids)} ids and {len(mos)} labels: must be equal")
        if len(set(ids)) != len(ids):
            raise AttackError("image ids must be unique: starts are drawn from them")
        if not bool(((mos >= 0) & (mos <= 1)).all()):
            raise AttackError("labels must lie on [0, 1]: (mos - low) / (high - low) of the set's MOS range")
        clean = torch.cat([score(model, image.unsqueeze(0), chunk=1) for image in images])
        targets = Targets(images, ids, mos.double().cpu(), clean)
        found: Ascent = ascend(
            model,
            targets,
            [create_objective(name, tau=self.tau) for name in self.objectives],
            self.schedule,
            chunk=chunk,
            max_states=max_states,
        )
        return AttackResult(found.found, found.cost, clean)


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent with a fixed step size (Madry et al. 2018; SRM section 3.8.4)."""

    kind = "pgd"
    steps: int
    """Gradient steps of a restart."""
    step_size: float
    """Length of a step, in the units of epsilon."""
    restarts: int = 1
    """Random starts an image."""
    random_start: bool = True
    """Start at a random point of the ball; False starts at the clean image."""
    keep: str = "best"
    """`best` iterate by the objective, the final one included, or `last`, for parity with other tools."""
    report_steps: tuple[int, ...] = ()
    """Prefixes to report besides the full number of steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1:
            raise BadAttackOption(f"pgd: steps ({self.steps}) and restarts ({self.restarts}) start at 1")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise BadAttackOption(f"pgd: step_size must be positive and finite, not {self.step_size}")
        if self.keep not in ("best", "last"):
            raise BadAttackOption(f"pgd: keep is 'best' or 'last', not {self.keep!r}")
        if self.restarts > 1 and not self.random_start:
            raise BadAttackOption("pgd: restarts without a random start all do the same")
        for steps in self.report_steps:
            if not 1 <= steps <= self.steps:
                raise BadAttackOption(f"pgd: report_steps {steps} is not within 1..{self.steps}")

    @property
    def schedule(self) -> Schedule:
        """How far and how often the ascent goes."""
        return Schedule(
            threat=self.threat,
            steps=self.steps,
            step_size=self.step_size,
            restarts=self.restarts,
            random_start=self.random_start,
            keep_best=self.keep == "best",
            report_steps=tuple(sorted({*self.report_steps, self.steps})),
            batch=self.batch,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step of length epsilon from the clean image (Goodfellow et al. 2015).

    `drift` has no slope at the clean image; both ways lead up, and its step goes up.
    """

    kind = "fgsm"

    @property
    def schedule(self) -> Schedule:
        """One step from the clean image, its end kept."""
        return Schedule(
            threat=self.threat,
            steps=1,
            step_size=self.threat.epsilon,
            restarts=1,
            random_start=False,
            keep_best=False,
            report_steps=(1,),
            batch=self.batch,
            seed=self.seed,
        )


_ATTACKS: dict[str, type[Attack]] = {cls.kind: cls for cls in (FGSM, PGD)}


def list_attacks() -> list[str]:
    """Return the kinds of attack, sorted."""
    return sorted(_ATTACKS)


def create_attack(kind: str, **settings: Any) -> Attack:
    """Create an attack by kind.

    Raises:
        UnknownAttack: no attack of that kind; the message holds the nearest one.
        BadAttackOption: an unknown or missing setting, or one out of its range.
    """
    if kind not in _ATTACKS:
        raise UnknownAttack(f"no attack {kind!r}{_near(kind, list_attacks())}; there are {list_attacks()}")
    cls = _ATTACKS[kind]
    known = [f.name for f in fields(cls)]
    for name in settings:
        if name not in known:
            raise BadAttackOption(f"{kind} has no setting {name!r}{_near(name, known)}; it takes {known}")
    try:
        return cls(**settings)
    except TypeError as error:
        raise BadAttackOption(f"{kind}: {error}") from error


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
