"""A suite as data: which images, which attacks, what is minimised over."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from iqa_attacks import Attack, AttackError, Norm, ThreatModel, create_attack, create_objective, parse_epsilon


def _radius(value: object) -> object:
    """Read a number or a fraction such as '4/255'."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a radius is a number or a fraction such as '4/255', not {value!r}")
    try:
        return parse_epsilon(value)
    except AttackError as error:
        raise ValueError(str(error)) from error


Radius = Annotated[float, BeforeValidator(_radius), Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Settings):
    """Which images are attacked."""

    name: str
    """Embedded set (`demo`, `smoke`) or path of a CSV."""
    split: Literal["train", "val", "test"] = "test"
    """Split that is attacked."""
    images: int | None = Field(default=None, ge=3)
    """Only the first so many images in the set's order; all if left out."""
    mos_range: tuple[float, float] | None = None
    """Ends of the label scale, for a CSV; an embedded set has its own."""


class _AttackSettings(_Settings):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the attack in tables."""
    norm: Norm = "inf"
    """Norm of the ball."""
    epsilons: tuple[Radius, ...] = Field(min_length=1)
    """Radii on pixels in [0, 1], as numbers or fractions ("4/255"); each is attacked on its own."""
    objectives: tuple[str, ...] = Field(min_length=1)
    """What is maximised; all objectives of an attack share their gradients."""
    batch: int = Field(default=8, ge=2)
    """Consecutive images in a batch of pairwise_inversion."""
    tau: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Temperature of pairwise_inversion, in units of the model's score range."""

    @field_validator("objectives")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"an objective is named twice in {list(names)}")
        for name in names:
            try:
                create_objective(name)
            except AttackError as error:
                raise ValueError(str(error)) from error
        return names

    @field_validator("epsilons")
    @classmethod
    def _distinct(cls, radii: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(radii)) != len(radii):
            raise ValueError("a radius is named twice")
        return tuple(sorted(radii))

    def _common(self, epsilon: float, seed: int) -> dict[str, Any]:
        return {
            "threat": ThreatModel(self.norm, epsilon),
            "objectives": self.objectives,
            "seed": seed,
            "batch": self.batch,
            "tau": self.tau,
        }


class FGSMSettings(_AttackSettings):
    """One step of length epsilon from the clean image."""

    kind: Literal["fgsm"]

    def attack(self, epsilon: float, seed: int) -> Attack:
        """Return the attack at one radius."""
        return create_attack("fgsm", **self._common(epsilon, seed))


class PGDSettings(_AttackSettings):
    """Projected gradient ascent with a fixed step size."""

    kind: Literal["pgd"]
    steps: int = Field(ge=1)
    """Gradient steps of a restart."""
    step_size: Radius | None = None
    """Length of a step in the units of epsilon, the same at every radius."""
    relative_step_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Length of a step as a share of epsilon; give this or `step_size`."""
    restarts: int = Field(default=1, ge=1)
    """Random starts an image."""
    random_start: bool = True
    """Start at a random point of the ball; false starts at the clean image."""
    keep: Literal["best", "last"] = "best"
    """Keep the best iterate, or the last one for parity with other tools."""
    report_steps: tuple[int, ...] = ()
    """Prefixes to report besides the full number of steps: the step sweep."""
    report_epsilons: tuple[Radius, ...] | None = None
    """Radii at which `report_steps` are reported, all if left out: every reported example is verified."""

    @model_validator(mode="after")
    def _one_step_size(self) -> PGDSettings:
        if (self.step_size is None) == (self.relative_step_size is None):
            raise ValueError("give exactly one of step_size and relative_step_size")
        for radius in self.report_epsilons or ():
            if radius not in self.epsilons:
                raise ValueError(f"report_epsilons: {radius:g} is not among the attack's epsilons")
        try:
            self.attack(self.epsilons[0], 0)
        except AttackError as error:
            raise ValueError(str(error)) from error
        return self

    def attack(self, epsilon: float, seed: int) -> Attack:
        """Return the attack at one radius."""
        swept = self.report_epsilons is None or epsilon in self.report_epsilons
        step = self.step_size if self.step_size is not None else (self.relative_step_size or 0) * epsilon
        return create_attack(
            "pgd",
            **self._common(epsilon, seed),
            steps=self.steps,
            step_size=step,
            restarts=self.restarts,
            random_start=self.random_start,
            keep=self.keep,
            report_steps=self.report_steps if swept else (),
        )


AttackSettings = Annotated[FGSMSettings | PGDSettings, Field(discriminator="kind")]


class Suite(_Settings):
    """A benchmark, whole: two runs of equal suites on equal data are comparable."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    """Name of the suite in tables."""
    summary: str
    """One line for a reader who chooses a suite."""
    seed: int = Field(ge=0)
    """Starts are drawn from (seed, image id, restart)."""
    norm: Norm = "inf"
    """Norm the leaderboard is ranked in."""
    main_epsilon: Radius
    """Radius the leaderboard is ranked at; every attack of the minimum must have it."""
    suite_min: tuple[str, ...] = Field(min_length=1)
    """Members of the suite's minimum, as attack/objective (SRM section 3.8.4)."""
    step_sweep: str | None = None
    """Attack whose prefixes are shown as SROCC against steps."""
    cell_images: int = Field(default=16, ge=1)
    """Images in a cell; a multiple of every attack's batch."""
    data: DataSettings
    """Which images are attacked."""
    attacks: tuple[AttackSettings, ...] = Field(min_length=1)
    """What is run."""

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        names = [attack.name for attack in self.attacks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"attacks: {name!r} is named twice")
        if "clean" in names:
            raise ValueError("attacks: 'clean' is what scores without attack are called")
        for attack in self.attacks:
            if attack.norm != self.norm:
                raise ValueError(
                    f"attacks: {attack.name!r} has norm {attack.norm!r}, the suite {self.norm!r}; "
                    "a suite is in one norm, write another for the other"
                )
            if self.norm == "inf" and max(attack.epsilons) > 1:
                raise ValueError(
                    f"attacks: {attack.name!r} has a radius of {max(attack.epsilons):g}, but pixels lie in "
                    "[0, 1]; write grey levels as a fraction, such as '4/255'"
                )
            if self.cell_images % attack.batch:
                raise ValueError(
                    f"cell_images: {self.cell_images} is not a multiple of the batch of {attack.name!r} "
                    f"({attack.batch}); pairwise inversion would see other batches"
                )
        for member in self.suite_min:
            name, _, objective = member.partition("/")
            chosen = next((a for a in self.attacks if a.name == name), None)
            if chosen is None or objective not in chosen.objectives:
                known = [f"{a.name}/{o}" for a in self.attacks for o in a.objectives]
                raise ValueError(f"suite_min: no {member!r}{_near(member, known)}; there are {known}")
            if chosen.norm != self.norm or self.main_epsilon not in chosen.epsilons:
                raise ValueError(
                    f"suite_min: {name!r} does not run at main_epsilon {self.main_epsilon:g} "
                    f"in norm {self.norm!r}"
                )
        if self.step_sweep is not None:
            swept = next((a for a in self.attacks if a.name == self.step_sweep), None)
            if (
                not isinstance(swept, PGDSettings)
                or not swept.report_steps
                or self.main_epsilon not in (swept.report_epsilons or swept.epsilons)
            ):
                raise ValueError(
                    f"step_sweep: {self.step_sweep!r} is no attack with report_steps at main_epsilon"
                )
        return self

    @property
    def sha256(self) -> str:
        """Hash of everything the suite says, whatever the order or spelling of its file."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
