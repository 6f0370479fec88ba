"""Attacks that follow the gradient of the score: FGSM, PGD, MI-FGSM, APGD; noise is their yardstick."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

from iqa_attacks.attack import Attack, Effort, Runtime
from iqa_attacks.engine.ascent import ascend
from iqa_attacks.engine.states import Schedule
from iqa_attacks.engine.updates import AutoStep, Momentum, Plain, Update
from iqa_attacks.errors import BadAttackOption
from iqa_attacks.gradients import expected_score, score
from iqa_attacks.images.jpeg import Compressed, check_qualities
from iqa_attacks.results import Ascent, Cost, Example, Targets
from iqa_attacks.seeding import draw_seeds
from iqa_models import QualityModel


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """An attack that runs on shared states."""

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

    @property
    def effort(self) -> Effort:
        """Steps, step size and restarts of the schedule."""
        return Effort(self.schedule.steps, self.schedule.step_size, self.schedule.restarts)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, runtime: Runtime) -> Ascent:
        """Run all objectives together."""
        schedule = replace(self.schedule, draws=draws)
        found = ascend(
            Compressed(model, self.jpeg_qualities) if self.jpeg_qualities else model,
            targets,
            self.create_objectives(),
            schedule,
            chunk=runtime.chunk,
            max_states=runtime.max_states,
        )
        return self._as_they_are(found, model, targets, draws) if self.jpeg_qualities else found

    def _as_they_are(self, found: Ascent, model: QualityModel, targets: Targets, draws: int | None) -> Ascent:
        """Return what an attack through JPEG found, with the images' own scores and all its work counted.

        A point costs an evaluation a quality, and what was found once more as it is: to a prefix is counted
        what was found up to it.
        """
        times = len(self.jpeg_qualities)
        spent = {key: Cost(*(times * count for count in cost)) for key, cost in found.cost.items()}
        for (image, steps), cost in spent.items():
            chosen = {id(f.example) for f in found.found if f.image == image and f.steps <= steps}
            forwards = cost.forwards + len(chosen) * (draws or 1)
            spent[image, steps] = cost._replace(forwards=forwards)
        own: dict[int, Example] = {}
        for each in found.found:
            example = each.example
            if id(example) not in own:
                if draws is None:
                    value = float(score(model, example.pixels.unsqueeze(0), chunk=1))
                else:
                    moment = (example.restart, example.step)
                    seeds = draw_seeds(self.seed, targets.ids[each.image], moment, draws)
                    value = expected_score(model, example.pixels, seeds)
                own[id(example)] = example._replace(score=value)
        return Ascent([each._replace(example=own[id(each.example)]) for each in found.found], spent)


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
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
    falling: bool = False
    """Let the step fall linearly to 0: wide steps first, fine ones last. Stronger at equal cost with a first
    step of epsilon; a prefix is then no shorter run, so none can be reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_counts(self.kind, self.steps, self.restarts)
        self.threat.check_step(f"{self.kind}: step_size", self.step_size)
        if self.keep not in ("best", "last"):
            raise BadAttackOption(f"{self.kind}: keep is 'best' or 'last', not {self.keep!r}")
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
        return Schedule(
            threat=self.threat,
            update=self.update,
            steps=self.steps,
            step_size=self.step_size,
            restarts=self.restarts,
            start="ball" if self.random_start else "clean",
            keep_best=self.keep == "best",
            report_steps=tuple(sorted({*self.report_steps, self.steps})),
            batch=self.batch,
            seed=self.seed,
            draws=None,
            falling=self.falling,
        )


@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """PGD along accumulated gradients (Dong et al. 2018).

    As published: `random_start=False`, a step size of epsilon / steps, decay 1.
    """

    kind = "mifgsm"
    decay: float = 1.0
    """mu: share of the accumulated gradient that is carried on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise BadAttackOption(f"mifgsm: decay must be finite and not negative, not {self.decay}")

    @property
    def update(self) -> Update:
        """A step along the accumulated gradient."""
        return Momentum(self.decay)


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
    steps: int
    """Gradient steps of a restart."""
    restarts: int = 1
    """Random starts an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_counts(self.kind, self.steps, self.restarts)

    @property
    def schedule(self) -> Schedule:
        """How far and how often the ascent goes."""
        return Schedule(
            threat=self.threat,
            update=AutoStep(self.steps),
            steps=self.steps,
            step_size=2 * self.threat.epsilon,
            restarts=self.restarts,
            start="ball",
            keep_best=True,
            report_steps=(self.steps,),
            batch=self.batch,
            seed=self.seed,
            draws=None,
        )


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of length epsilon from the clean image (Goodfellow et al. 2015).

    `drift` has no slope at the clean image; both ways lead up, and its step goes up.
    """

    kind = "fgsm"

    @property
    def schedule(self) -> Schedule:
        """One step from the clean image, its end kept."""
        return Schedule(
            threat=self.threat,
            update=Plain(),
            steps=1,
            step_size=self.threat.epsilon,
            restarts=1,
            start="clean",
            keep_best=False,
            report_steps=(1,),
            batch=self.batch,
            seed=self.seed,
            draws=None,
        )


@dataclass(frozen=True, kw_only=True)
class Noise(GradientAttack):
    """The yardstick every attack must beat: the best of some draws of noise of full size.

    Every pixel moves by epsilon up or down (norm inf), or the change has a random direction and length
    epsilon (norm 2); then the box. A draw counts as a restart of no steps.
    """

    kind = "noise"
    samples: int = 1
    """Draws an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise BadAttackOption(f"noise: samples start at 1, not {self.samples}")

    @property
    def schedule(self) -> Schedule:
        """Starts only."""
        return Schedule(
            threat=self.threat,
            update=Plain(),
            steps=0,
            step_size=0.0,
            restarts=self.samples,
            start="sphere",
            keep_best=True,
            report_steps=(0,),
            batch=self.batch,
            seed=self.seed,
            draws=None,
        )


def _check_counts(kind: str, steps: int, restarts: int) -> None:
    if steps < 1 or restarts < 1:
        raise BadAttackOption(f"{kind}: steps ({steps}) and restarts ({restarts}) start at 1")
