"""An attack as a record of its settings, run through one checked template."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, final

import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.engine.rescored import OwnScores, rescored, with_own_losses
from iqa_attacks.errors import AttackError, BadAttackOption, naming
from iqa_attacks.gradients import expected_score, score
from iqa_attacks.model_state import check_modes, left_as_it_was
from iqa_attacks.objectives import Objective, create_objective
from iqa_attacks.results import Ascent, Cost, Example, Found, Targets, by_size, joined
from iqa_attacks.seeding import draw_seeds
from iqa_attacks.settings import NoKey, NoSetting, Positive, StepSize, check_settings, settings_of
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel

TOGETHER = 64
"""Versions of images that a device other than the CPU scores at once outside the steps of an attack."""

CHOICE = 4
"""Draws, as a multiple of an attack's own, by which what different gradients found is compared."""

Scores = Callable[[Sequence[Tensor], Sequence[str]], Sequence[float]]
"""Gives a model's own scores of versions (3, H, W) of images, each with its image's id."""

Moment = tuple[int | str, ...]
"""What the draws of a stochastic model are for, such as (restart, step)."""


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


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack on scores with all its settings; `run` is the only way to use one.

    Every field is a setting (`iqa_attacks.settings`): it is checked here and is a key of a suite's attack.
    """

    kind: ClassVar[str]
    """Name in the catalogue and in suites."""
    image_by_image: ClassVar[bool] = False
    """Whether it takes no objective of a whole batch; `batch` then does nothing."""
    whole_set: ClassVar[bool] = False
    """Whether its target is all images at once, which no cell may divide; `batch` then does nothing."""
    follows_gradients: ClassVar[bool] = False
    """Whether `search` spends its time on gradients, which a copy of the model may then give."""
    needs_gradient: ClassVar[bool] = True
    """Whether it is of no use on a model without a gradient."""
    only_objectives: ClassVar[tuple[str, ...] | None] = None
    """The objectives it can maximise, None for any."""

    threat: Annotated[ThreatModel, NoSetting()]
    """Ball and box the attacked images must lie in."""
    objectives: Annotated[tuple[str | Objective, ...], NoSetting()]
    """What is maximised, by name or as an object of your own; all share their gradients."""
    seed: Annotated[int, NoKey()] = 0
    """Starts are drawn from (seed, image id, restart)."""
    batch: Annotated[int, Field(ge=2)] = 8
    """Consecutive images in a batch of a batch-level objective (SRM section 3.8.4: 8, in test order). A last
    image that would be left alone joins the batch before it: alone it has none to be compared with."""
    tau: Positive = 0.1
    """Temperature of `pairwise_inversion`, in units of the model's score range."""
    rank_temperature: Positive = 0.1
    """Temperature of `soft_spearman`, in standard deviations of the batch's scores."""
    eot_samples: Annotated[int | None, Field(ge=1), NoKey()] = None
    """Draws averaged at every point of a stochastic model (EOT); a deterministic one is evaluated once."""

    def __post_init__(self) -> None:
        if not self.objectives:
            raise BadAttackOption(f"{self.kind}: needs at least one objective")
        check_settings(self, self.kind)
        for setting in settings_of(type(self)):
            if setting.mark(StepSize):
                self.threat.check_step(f"{self.kind}: {setting.name}", getattr(self, setting.name))
        objectives = self.create_objectives()
        names = [objective.name for objective in objectives]
        if len(set(names)) != len(names):
            raise BadAttackOption(f"{self.kind}: an objective is named twice in {names}")
        for objective in objectives:
            if self.only_objectives is not None and objective.name not in self.only_objectives:
                possible = " and ".join(map(repr, self.only_objectives))
                raise BadAttackOption(f"{self.kind}: its objectives are {possible}, not {objective.name!r}")
            if self.image_by_image and objective.batch_level:
                raise BadAttackOption(
                    f"{self.kind}: works image by image, and {objective.name!r} is a loss of a batch"
                )

    def create_objectives(self) -> list[Objective]:
        """Return the objectives as objects.

        Raises:
            UnknownAttack: no objective of that name.
            BadAttackOption: a temperature out of its range.
        """
        settings = {"tau": self.tau, "rank_temperature": self.rank_temperature}
        return [create_objective(o, **settings) if isinstance(o, str) else o for o in self.objectives]

    @property
    @abstractmethod
    def effort(self) -> Effort:
        """How much the attack does on one image."""

    @abstractmethod
    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Look for the best examples; `run` has checked model and targets.

        Args:
            model: in eval mode; stochastic only if `draws` is a number.
            targets: images, labels, clean scores.
            draws: evaluations to average at every point, None for one.
            chunk: images in one forward or backward pass.
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
        gradients: QualityModel | None = None,
        scores: Scores | None = None,
    ) -> AttackResult:
        """Attack images in evaluation order.

        The images are copied; neither they, nor the model, nor torch's generators are changed. It works in
        whatever gradient mode the caller is in.

        Args:
            model: the model under attack, in eval mode, all of its parts.
            images: (3, H, W) each, on the model's device and in its precision, in [0, 1].
            ids: one unique id an image; starts are drawn from it.
            mos: (n,) labels on [0, 1], higher is better.
            chunk: images in one forward or backward pass; changes memory and speed, and results by no more
                than rounding.
            gradients: a copy of the model (`iqa_models.frozen`) that an attack which follows gradients asks
                instead, and chooses by; scores and losses of what it finds are the model's own all the same.
            scores: gives the model's own scores where nothing is drawn, of clean images and of what a copy
                found, so that who stores them has them already; None asks the model.

        Raises:
            AttackError: unusable input, a model in training mode, or a stochastic model without EOT.
            AttackFailed: the model gave scores or gradients that no attack can use, or changed itself.
        """
        self._check(model, images, ids, mos)
        draws = self.eot_samples if model.is_stochastic else None
        with torch.inference_mode(False), left_as_it_was(model):
            own = [image.detach().clone(memory_format=torch.contiguous_format) for image in images]
            moments = [("score",)] * len(own)
            clean = _exact(self._scores(model, own, ids, moments, draws, scores))
            targets = Targets(own, ids, mos.detach().cpu().double(), clean)
            if gradients is None or not self.follows_gradients:
                found = self._each_way(model, targets, draws, chunk)
            else:  # the copy sees its own clean scores
                check_modes(gradients)
                seen = _exact(self._scores(gradients, own, ids, moments, draws, None))
                met = self._each_way(gradients, targets._replace(clean=seen), draws, chunk)
                own_scores = self.own_scores(model, targets, draws, scores=scores)
                found = self._settled(rescored(met, own_scores), model, targets)
        return AttackResult(found.found, found.cost, clean)

    def _each_way(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Search by every gradient of the model, where gradients are followed, and keep the better.

        Of a stochastic model the ways are compared at draws that none of them has seen, the same for all:
        whichever had been luckier would win otherwise.
        """
        ways = model.ways if self.follows_gradients else (model,)
        found = [self.search(way, targets, draws, chunk) for way in ways]
        if draws is not None and len(ways) > 1 and self.losses_follow_scores:
            own = self.own_scores(model, targets, CHOICE * draws, moment=("choice",))
            found = [self._with_losses(rescored(each, own), model, targets) for each in found]
        return joined(found)

    def _with_losses(self, found: Ascent, model: QualityModel, targets: Targets) -> Ascent:
        batch = max(2, len(targets.images)) if self.whole_set else self.batch
        return with_own_losses(found, self.create_objectives(), targets, model.spec.score_range, batch)

    def _settled(self, found: Ascent, model: QualityModel, targets: Targets) -> Ascent:
        """Return what a copy found, rescored by the model itself, with losses that follow."""
        return self._with_losses(found, model, targets) if self.losses_follow_scores else found

    def own_scores(
        self,
        model: QualityModel,
        targets: Targets,
        draws: int | None,
        *,
        moment: Moment | None = None,
        scores: Scores | None = None,
    ) -> OwnScores:
        """Return what scores examples by a model, with the draws of a moment, or of those they were found at.

        `scores` gives them where nothing is drawn, as for `run`.
        """

        def own(examples: Sequence[Example], images: Sequence[int]) -> Sequence[float]:
            moments = [moment or (example.restart, example.step) for example in examples]
            ids = [targets.ids[i] for i in images]
            pixels = [example.pixels for example in examples]
            return self._scores(model, pixels, ids, moments, draws, scores)

        return own

    def _scores(
        self,
        model: QualityModel,
        versions: Sequence[Tensor],
        ids: Sequence[str],
        moments: Sequence[Moment],
        draws: int | None,
        given: Scores | None,
    ) -> Sequence[float]:
        """Return the scores of versions (3, H, W) of images, as `score_of`; of many at once on a device."""
        if given is not None and draws is None:
            with naming(ids):
                return given(versions, ids)
        if draws is not None or versions[0].device.type == "cpu":
            each = zip(versions, ids, moments, strict=True)
            return [self.score_of(model, *one, draws) for one in each]
        scores = [0.0] * len(versions)
        for places in by_size(versions, TOGETHER):
            with naming([ids[place] for place in places]):
                found = score(model, torch.stack([versions[place] for place in places]), chunk=TOGETHER)
            for place, value in zip(places, found.tolist(), strict=True):
                scores[place] = value
        return scores

    @property
    def losses_follow_scores(self) -> bool:
        """Whether the losses it reports are of the scores it reports, not of scores through something."""
        return True

    def _check(self, model: QualityModel, images: Sequence[Tensor], ids: Sequence[str], mos: Tensor) -> None:
        check_modes(model)
        if model.is_stochastic and self.eot_samples is None:
            raise AttackError(
                f"{model.spec.name} is stochastic and {self.kind} averages no gradients (EOT): its numbers "
                "would overstate robustness; set eot_samples"
            )
        if not len(images) == len(ids) == len(mos):
            raise AttackError(f"{len(images)} images, {len(ids)} ids and {len(mos)} labels: must be equal")
        if not len(images):
            raise AttackError("no images to attack")
        if len(set(ids)) != len(ids):
            raise AttackError("image ids must be unique: starts are drawn from them")
        if not bool(((mos >= 0) & (mos <= 1)).all()):
            raise AttackError("labels must lie on [0, 1]: (mos - low) / (high - low) of the set's MOS range")
        coupled = [o.name for o in self.create_objectives() if o.batch_level]
        if len(images) == 1 and coupled:
            raise AttackError(
                f"{coupled[0]!r} compares images, and {ids[0]!r} is the only one: attack two or more together"
            )
        for image, image_id in zip(images, ids, strict=True):
            with naming([image_id]):
                self.threat.check_image(image)

    def score_of(
        self,
        model: QualityModel,
        pixels: Tensor,
        image_id: str,
        moment: Moment,
        draws: int | None,
    ) -> float:
        """Return the score of one version (3, H, W) of an image as the search sees it.

        Args:
            model: in eval mode.
            pixels: the version.
            image_id: the image.
            moment: what the draws of a stochastic model are for, such as (restart, step).
            draws: how many of them are averaged, None for one evaluation without a seed.
        """
        with naming([image_id]):
            if draws is None:
                return float(score(model, pixels.unsqueeze(0), chunk=1))
            return expected_score(model, pixels, draw_seeds(self.seed, image_id, moment, draws))


def _exact(scores: Sequence[float]) -> Tensor:
    return torch.tensor(scores, dtype=torch.float64)


def stored_score(model: QualityModel, image: Tensor, *, seed: int, image_id: str, draws: int | None) -> float:
    """Return the score of one image (3, H, W) that is stored and judged, on the model's own scale.

    Of a stochastic model it is the mean of `draws` evaluations, the same draws for every version of an
    image; the attack, which sees other draws at every step, cannot fit them.
    """
    if draws is None:
        return float(score(model, image.unsqueeze(0), chunk=1))
    return expected_score(model, image, draw_seeds(seed, image_id, ("score",), draws))
