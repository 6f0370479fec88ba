"""An attack as a record of its settings, run through one checked template."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from iqa_attacks.errors import AttackError, BadAttackOption
from iqa_attacks.gradients import expected_score, score
from iqa_attacks.objectives import Objective, create_objective
from iqa_attacks.results import Ascent, Cost, Found, Targets
from iqa_attacks.seeding import draw_seeds
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel


class AttackResult(NamedTuple):
    """What an attack found; nothing in it is trusted until the harness has measured it again."""

    found: list[Found]
    """One entry an (image, objective, reported number of steps)."""
    cost: dict[tuple[int, int], Cost]
    """Work by (image, steps), shared by all objectives."""
    clean: Tensor
    """(n,) float64: scores of the unattacked images; of a stochastic model the mean of its draws."""


class Effort(NamedTuple):
    """How much an attack does on one image."""

    steps: int
    """Gradient steps, or queries of a black-box attack."""
    step_size: float
    """Length of a step at the beginning, in the units of epsilon; 0 for an attack without one."""
    restarts: int


class Runtime(NamedTuple):
    """What may change memory and speed, and no result beyond rounding."""

    chunk: int
    """Images in one forward or backward pass."""
    max_states: int
    """Starts run together, images times restarts."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack on scores with all its settings; `run` is the only way to use one."""

    kind: ClassVar[str]
    threat: ThreatModel
    """Ball and box the attacked images must lie in."""
    objectives: tuple[str | Objective, ...]
    """What is maximised, by name or as an object of your own; all share their gradients."""
    seed: int = 0
    """Starts are drawn from (seed, image id, restart)."""
    batch: int = 8
    """Consecutive images in a batch of a batch-level objective (SRM section 3.8.4: 8, in test order)."""
    tau: float = 0.1
    """Temperature of `pairwise_inversion`, in units of the model's score range."""
    rank_temperature: float = 0.1
    """Temperature of `soft_spearman`, in standard deviations of the batch's scores."""
    eot_samples: int | None = None
    """Draws averaged at every point of a stochastic model (EOT); a deterministic one is evaluated once."""

    def __post_init__(self) -> None:
        if not self.objectives:
            raise BadAttackOption(f"{self.kind}: needs at least one objective")
        names = [objective.name for objective in self.create_objectives()]
        if len(set(names)) != len(names):
            raise BadAttackOption(f"{self.kind}: an objective is named twice in {names}")
        if self.batch < 2:
            raise BadAttackOption(f"{self.kind}: batch must be at least 2, not {self.batch}")
        if self.eot_samples is not None and self.eot_samples < 1:
            raise BadAttackOption(f"{self.kind}: eot_samples must be at least 1, not {self.eot_samples}")

    def create_objectives(self) -> list[Objective]:
        """Return the objectives as objects.

        Raises:
            UnknownAttack: no objective of that name.
            BadAttackOption: a temperature out of its range.
        """
        return [
            create_objective(o, tau=self.tau, rank_temperature=self.rank_temperature)
            if isinstance(o, str)
            else o
            for o in self.objectives
        ]

    @property
    @abstractmethod
    def effort(self) -> Effort:
        """How much the attack does on one image."""

    @abstractmethod
    def search(self, model: QualityModel, targets: Targets, draws: int | None, runtime: Runtime) -> Ascent:
        """Look for the best examples; `run` has checked model and targets.

        Args:
            model: in eval mode; stochastic only if `draws` is a number.
            targets: images, labels, clean scores.
            draws: evaluations to average at every point, None for one.
            runtime: chunk sizes.
        """

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
            model: the model under attack, in eval mode.
            images: (3, H, W) each, on the model's device and in its precision, in [0, 1].
            ids: one unique id an image; starts are drawn from it.
            mos: (n,) labels on [0, 1], higher is better.
            chunk: images in one forward or backward pass.
            max_states: starts run together (memory), images times restarts.

        Raises:
            AttackError: unusable input, a model in training mode, or a stochastic model without EOT.
            AttackFailed: the model gave scores or gradients that no attack can use.
        """
        if model.training:
            raise AttackError(f"{model.spec.name} is in training mode; call .eval() first")
        if model.is_stochastic and self.eot_samples is None:
            raise AttackError(
                f"{model.spec.name} is stochastic and {self.kind} averages no gradients (EOT): its numbers "
                "would overstate robustness; set eot_samples"
            )
        if not len(images) == len(ids) == len(mos):
            raise AttackError(f"{len(images)} images, {len(ids)} ids and {len(mos)} labels: must be equal")
        if len(set(ids)) != len(ids):
            raise AttackError("image ids must be unique: starts are drawn from them")
        if not bool(((mos >= 0) & (mos <= 1)).all()):
            raise AttackError("labels must lie on [0, 1]: (mos - low) / (high - low) of the set's MOS range")
        draws = self.eot_samples if model.is_stochastic else None
        clean = torch.tensor(
            [
                stored_score(model, image, seed=self.seed, image_id=image_id, draws=draws)
                for image, image_id in zip(images, ids, strict=True)
            ],
            dtype=torch.float64,
        )
        targets = Targets(images, ids, mos.double().cpu(), clean)
        found = self.search(model, targets, draws, Runtime(chunk, max_states))
        return AttackResult(found.found, found.cost, clean)


def stored_score(model: QualityModel, image: Tensor, *, seed: int, image_id: str, draws: int | None) -> float:
    """Return the score of one image (3, H, W) that is stored and judged, on the model's own scale.

    Of a stochastic model it is the mean of `draws` evaluations, the same draws for every version of an
    image; the attack, which sees other draws at every step, cannot fit them.
    """
    if draws is None:
        return float(score(model, image.unsqueeze(0), chunk=1))
    return expected_score(model, image, draw_seeds(seed, image_id, ("score",), draws))
