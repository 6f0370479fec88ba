"""Attacks that follow the gradient of the score: FGSM, PGD, MI-FGSM, APGD; noise is their yardstick."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from iqa_attacks.attack import Attack, Effort
from iqa_attacks.catalogue import register_attack
from iqa_attacks.engine.ascent import ascend
from iqa_attacks.engine.rescored import rescored
from iqa_attacks.engine.states import Schedule
from iqa_attacks.engine.updates import AutoStep, Momentum, Plain, Update
from iqa_attacks.errors import BadAttackOption
from iqa_attacks.images.jpeg import Compressed, check_qualities
from iqa_attacks.results import Ascent, Targets
from iqa_attacks.settings import AtSomeRadii, Count, NoKey, StepSize
from iqa_models import QualityModel


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """An attack that runs on shared states."""

    follows_gradients = True
    jpeg_qualities: tuple[int, ...] = ()
    """JPEG qualities the attack must survive: it maximises its objectives on the mean score over them (EOT);
    what it found is scored as it is. None for the image itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_qualities(self.jpeg_qualities)

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """How far and how often the ascent goes."""

    def scheduled(self, update: Update, steps: int, step_size: float, **course: Any) -> Schedule:
        """Return a schedule in the attack's ball, with its batch and seed; `course` is the rest of it."""
        return Schedule(self.threat, update, steps, step_size, self.batch, self.seed, **course)

    @property
    def losses_follow_scores(self) -> bool:
        """Not through JPEG, whose losses are of scores that are not reported."""
        return not self.jpeg_qualities

    @property
    def effort(self) -> Effort:
        """Steps, step size and restarts of the schedule."""
        return Effort(self.schedule.steps, self.schedule.step_size, self.schedule.restarts)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Run all objectives together."""
        seen = Compressed(model, self.jpeg_qualities) if self.jpeg_qualities else model
        schedule = replace(self.schedule, draws=draws)
        found = ascend(seen, targets, self.create_objectives(), schedule, chunk=chunk)
        return self._as_they_are(found, model, targets, draws) if self.jpeg_qualities else found

    def _as_they_are(self, found: Ascent, model: QualityModel, targets: Targets, draws: int | None) -> Ascent:
        """Return what an attack through JPEG found, with the images' own scores and all its work counted.

        A point costs an evaluation a quality, and what was found once more as it is: to a prefix is counted
        what was found up to it.
        """
        spent = {key: cost.times(len(self.jpeg_qualities)) for key, cost in found.cost.items()}
        for (image, steps), cost in spent.items():
            chosen = {id(f.example) for f in found.found if f.image == image and f.steps <= steps}
            forwards = cost.forwards + len(chosen) * (draws or 1)
            spent[image, steps] = cost._replace(forwards=forwards)
        return Ascent(rescored(found, self.own_scores(model, targets, draws)).found, spent)


@register_attack
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient ascent with a fixed step size (Madry et al. 2018; SRM section 3.8.4)."""

    kind = "pgd"
    steps: Count
    """Gradient steps of a restart."""
    step_size: Annotated[float, StepSize(share_key="relative_step_size")]
    """Length of a step, in the units of epsilon."""
    restarts: Count = 1
    """Random starts an image."""
    random_start: bool = True
    """Start at a random point of the ball; False starts at the clean image."""
    keep: Literal["best", "last"] = "best"
    """`best` iterate by the objective, the final one included, or `last`, for parity with other tools."""
    report_steps: Annotated[tuple[int, ...], AtSomeRadii("report_epsilons")] = ()
    """Prefixes to report besides the full number of steps: the step sweep."""
    falling: bool = False
    """Let the step fall linearly to 0: wide steps first, fine ones last. Stronger at equal cost with a first
    step of epsilon; a prefix is then no shorter run, so none can be reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise BadAttackOption(f"{self.kind}: restarts without a random start all do the same")
        if self.falling and self.report_steps:
            raise BadAttackOption(f"{self.kind}: report_steps needs a fixed step size, not a falling one")
        for steps in self.report_steps:
            if not 1 <= steps <= self.steps:
                raise BadAttackOption(f"{self.kind}: report_steps {steps} is not within 1..{self.steps}")

    @property
    def update(self) -> Update:
        """A step of fixed length."""
        return Plain()

    @property
    def schedule(self) -> Schedule:
        """How far and how often the ascent goes."""
        return self.scheduled(
            self.update,
            self.steps,
            self.step_size,
            restarts=self.restarts,
            start="ball" if self.random_start else "clean",
            keep_best=self.keep == "best",
            report_steps=self.report_steps,
            falling=self.falling,
        )


@register_attack
@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """PGD along accumulated gradients (Dong et al. 2018).

    As published: `random_start=False`, a step size of epsilon / steps, decay 1.
    """

    kind = "mifgsm"
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """mu: share of the accumulated gradient that is carried on."""

    @property
    def update(self) -> Update:
        """A step along the accumulated gradient."""
        return Momentum(self.decay)


@register_attack
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD (Croce & Hein 2020) for scores: no step size to choose, no early stop.

    Starts with steps of 2 eps and momentum .75; at 22, 41, 57 ... % of the steps it halves the step and
    goes back to the best iterate where progress was poor, image by image and objective by objective. Under a
    batch-level objective an image's progress is what its own score contributes, the others' being those of
    now; the batch's best moment is kept. Runs of other lengths have other checkpoints: prefixes are not
    reported.
    """

    kind = "apgd"
    steps: Count
    """Gradient steps of a restart."""
    restarts: Count = 1
    """Random starts an image."""

    @property
    def schedule(self) -> Schedule:
        """How far and how often the ascent goes."""
        step_size = 2 * self.threat.epsilon
        return self.scheduled(AutoStep(self.steps), self.steps, step_size, restarts=self.restarts)


@register_attack
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of length epsilon from the clean image (Goodfellow et al. 2015).

    `drift` has no slope at the clean image; both ways lead up, and its step goes up.
    """

    kind = "fgsm"

    @property
    def schedule(self) -> Schedule:
        """One step from the clean image, its end kept."""
        return self.scheduled(Plain(), 1, self.threat.epsilon, start="clean", keep_best=False)


@register_attack
@dataclass(frozen=True, kw_only=True)
class Noise(GradientAttack):
    """The yardstick every attack must beat: the best of some draws of noise of full size.

    Every pixel moves by epsilon up or down (norm inf), or the change has a random direction and length
    epsilon (norm 2); then the box. A draw counts as a restart of no steps.
    """

    kind = "noise"
    follows_gradients = False
    needs_gradient = False
    samples: Count = 1
    """Draws an image."""
    jpeg_qualities: Annotated[tuple[int, ...], NoKey()] = ()
    """No key of a suite: noise that looks for what JPEG keeps is no yardstick."""

    @property
    def schedule(self) -> Schedule:
        """Starts only."""
        return self.scheduled(Plain(), 0, 0.0, restarts=self.samples, start="sphere")
