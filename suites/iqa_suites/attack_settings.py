"""Settings of each kind of attack, as a suite writes them."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from iqa_attacks import (
    Attack,
    AttackError,
    Norm,
    Pixels,
    ThreatModel,
    create_attack,
    create_objective,
    parse_epsilon,
)


def _radius(value: object) -> object:
    """Read a number or a fraction such as '4/255'."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a radius is a number or a fraction such as '4/255', not {value!r}")
    try:
        return parse_epsilon(value)
    except AttackError as error:
        raise ValueError(str(error)) from error


Radius = Annotated[float, BeforeValidator(_radius), Field(gt=0)]


_TEMPERATURES = {"tau": "pairwise_inversion", "rank_temperature": "soft_spearman"}
"""Settings that one objective alone has."""


class Settings(BaseModel):
    """A part of a suite: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnyAttackSettings(Settings):
    """What every attack of a suite has."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the attack in tables."""


class OwnAttackSettings(AnyAttackSettings):
    """An attack that is run on the model it is judged by."""

    kind: str
    """Kind of attack."""
    norm: Norm = "inf"
    """Norm of the ball: inf, 2, or rmse, whose radius is the root mean square change of a pixel."""
    epsilons: tuple[Radius, ...] = Field(min_length=1)
    """Radii on pixels in [0, 1], as numbers or fractions ("4/255"); each is attacked on its own."""
    pixels: Pixels = "float"
    """8bit lets only images through that an 8-bit file holds exactly."""
    ssim_floor: StrictFloat | None = Field(default=None, gt=0, lt=1)
    """Lowest similarity (SSIM) with the clean image that an example may have, beside the ball."""
    objectives: tuple[str, ...] = Field(min_length=1)
    """What is maximised; all objectives of an attack share their gradients."""
    batch: StrictInt = Field(default=8, ge=2)
    """Consecutive images in a batch of pairwise_inversion or soft_spearman."""
    tau: StrictFloat = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Temperature of pairwise_inversion, in units of the model's score range."""
    rank_temperature: StrictFloat = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Temperature of soft_spearman, in standard deviations of the batch's scores."""

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

    def attack(self, epsilon: float, seed: int, eot_samples: int | None = None) -> Attack:
        """Return the attack at one radius."""
        return create_attack(
            self.kind,
            threat=self.threat(epsilon),
            objectives=self.objectives,
            seed=seed,
            batch=self.batch,
            tau=self.tau,
            rank_temperature=self.rank_temperature,
            eot_samples=eot_samples,
            **self.own(epsilon),
        )

    def threat(self, epsilon: float) -> ThreatModel:
        """Return what the adversary may do at one radius."""
        return ThreatModel(self.norm, epsilon, self.ssim_floor, self.pixels)

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return the settings that only this kind of attack has, at one radius."""
        return {}

    @property
    def couples_images(self) -> bool:
        """Whether an objective of it looks at a whole batch of images."""
        return any(create_objective(name).batch_level for name in self.objectives)

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        for setting, objective in _TEMPERATURES.items():
            if self._is_changed(setting) and objective not in self.objectives:
                raise ValueError(f"{setting} is of the objective {objective!r}, which is not among these")
        if self._is_changed("batch") and self.kind in ("square", "torchattacks"):
            raise ValueError(f"{self.kind} attacks image by image: leave batch out")
        return self

    def _is_changed(self, setting: str) -> bool:
        # Not whether it was written: a suite that was stored and read again has every key.
        return bool(getattr(self, setting) != type(self).model_fields[setting].default)

    @model_validator(mode="after")
    def _can_be_created(self) -> Self:
        try:
            for epsilon in self.epsilons:
                self.attack(epsilon, 0)
        except AttackError as error:
            raise ValueError(str(error)) from error
        return self


class _GradientSettings(OwnAttackSettings):
    jpeg_qualities: tuple[StrictInt, ...] = ()
    """JPEG qualities over which the score is averaged while attacking (EOT), so that the example survives."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return the qualities."""
        return {"jpeg_qualities": self.jpeg_qualities}


class FGSMSettings(_GradientSettings):
    """One step of length epsilon from the clean image."""

    kind: Literal["fgsm"]


class NoiseSettings(OwnAttackSettings):
    """The best of some draws of noise of full size: the yardstick of every attack."""

    kind: Literal["noise"]
    samples: StrictInt = Field(default=1, ge=1)
    """Draws an image."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return the number of draws."""
        return {"samples": self.samples}


class APGDSettings(_GradientSettings):
    """Auto-PGD for scores: it chooses its own step sizes."""

    kind: Literal["apgd"]
    steps: StrictInt = Field(ge=1)
    """Gradient steps of a restart."""
    restarts: StrictInt = Field(default=1, ge=1)
    """Random starts an image."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return steps and restarts."""
        return {**super().own(epsilon), "steps": self.steps, "restarts": self.restarts}


class SquareSettings(OwnAttackSettings):
    """Random search with squares: no gradient, image by image."""

    kind: Literal["square"]
    queries: StrictInt = Field(ge=1)
    """Evaluations of an objective on an image, the start included."""
    restarts: StrictInt = Field(default=1, ge=1)
    """Searches an image."""
    first_area: StrictFloat | None = Field(default=None, gt=0, le=1)
    """Share of the image that the first squares cover; .8 in norm inf, else .1."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return budget, restarts and the first squares' area."""
        return {"queries": self.queries, "restarts": self.restarts, "first_area": self.first_area}


class UniversalSettings(OwnAttackSettings):
    """One perturbation for all images, trained on another split; raises or lowers every score."""

    kind: Literal["universal"]
    steps: StrictInt = Field(ge=1)
    """Steps of the training, each on one batch of training images."""
    step_size: Radius | None = None
    """Length of the first step in the units of epsilon, falling to 0; a quarter of epsilon if left out."""
    training_split: Literal["train", "val"] = "train"
    """Split of the training images."""
    training_images: StrictInt | None = Field(default=None, ge=1)
    """Only the first so many of them; all if left out."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return the training."""
        return {
            "steps": self.steps,
            "step_size": 0.25 * epsilon if self.step_size is None else self.step_size,
            "training_split": self.training_split,
            "training_images": self.training_images,
        }


class TorchattacksSettings(OwnAttackSettings):
    """An attack of the torchattacks library, for the objectives raise and lower."""

    kind: Literal["torchattacks"]
    attack_name: str = Field(alias="attack")
    """Name in torchattacks: MIFGSM, PGDL2, ..."""
    options: dict[str, StrictInt | StrictFloat | StrictBool | str] = {}
    """Its own settings (steps, alpha, ...); the library's defaults hold for the others."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return the library's name and options."""
        return {"attack": self.attack_name, "options": self.options}


class _SteppedSettings(_GradientSettings):
    steps: StrictInt = Field(ge=1)
    """Gradient steps of a restart."""
    step_size: Radius | None = None
    """Length of a step in the units of epsilon, the same at every radius."""
    relative_step_size: StrictFloat | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Length of a step as a share of epsilon; give this or `step_size`."""
    restarts: StrictInt = Field(default=1, ge=1)
    """Random starts an image."""
    random_start: StrictBool = True
    """Start at a random point of the ball; false starts at the clean image."""
    keep: Literal["best", "last"] = "best"
    """Keep the best iterate, or the last one for parity with other tools."""
    report_steps: tuple[StrictInt, ...] = ()
    """Prefixes to report besides the full number of steps: the step sweep."""
    falling: StrictBool = False
    """Let the step fall linearly to 0, the given one being the first; excludes report_steps."""
    report_epsilons: tuple[Radius, ...] | None = Field(default=None, min_length=1)
    """Radii at which `report_steps` are reported, all if left out: every reported example is verified."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return steps, step size, starts and what is kept.

        Raises:
            ValueError: not exactly one of the two step sizes is given.
        """
        if (self.step_size is None) == (self.relative_step_size is None):
            raise ValueError("give exactly one of step_size and relative_step_size")
        if self.report_epsilons is not None and not self.report_steps:
            raise ValueError("report_epsilons says where report_steps are reported: give both, or none")
        for radius in self.report_epsilons or ():
            if radius not in self.epsilons:
                raise ValueError(f"report_epsilons: {radius:g} is not among the attack's epsilons")
        swept = self.report_epsilons is None or epsilon in self.report_epsilons
        step = self.step_size if self.step_size is not None else (self.relative_step_size or 0) * epsilon
        return {
            **super().own(epsilon),
            "steps": self.steps,
            "step_size": step,
            "restarts": self.restarts,
            "random_start": self.random_start,
            "keep": self.keep,
            "report_steps": self.report_steps if swept else (),
            "falling": self.falling,
        }


class PGDSettings(_SteppedSettings):
    """Projected gradient ascent with a fixed step size."""

    kind: Literal["pgd"]


class MIFGSMSettings(_SteppedSettings):
    """The same along accumulated gradients."""

    kind: Literal["mifgsm"]
    decay: StrictFloat = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Share of the accumulated gradient that is carried on (mu)."""

    def own(self, epsilon: float) -> dict[str, Any]:
        """Return PGD's settings and the decay."""
        return {**super().own(epsilon), "decay": self.decay}


class TransferSettings(AnyAttackSettings):
    """Examples found on every other model of the run, scored on this one.

    Norm, radii and everything else are those of the attack it names. Results are named
    `NAME:SURROGATE/OBJECTIVE`; as a member of the minimum, `NAME/OBJECTIVE` is the lowest of them.
    """

    kind: Literal["transfer"]
    of: str = Field(pattern=r"^[a-z][a-z0-9_]*/[a-z][a-z0-9_]*$")
    """Attack of the suite and the objective whose examples are tried, as attack/objective."""

    @property
    def source(self) -> tuple[str, str]:
        """Name of the attack and of the objective."""
        name, _, objective = self.of.partition("/")
        return name, objective


AttackSettings = Annotated[
    FGSMSettings
    | PGDSettings
    | MIFGSMSettings
    | APGDSettings
    | NoiseSettings
    | SquareSettings
    | UniversalSettings
    | TorchattacksSettings
    | TransferSettings,
    Field(discriminator="kind"),
]
ATTACK_SETTINGS: dict[str, type[AnyAttackSettings]] = {
    "fgsm": FGSMSettings,
    "pgd": PGDSettings,
    "mifgsm": MIFGSMSettings,
    "apgd": APGDSettings,
    "noise": NoiseSettings,
    "square": SquareSettings,
    "universal": UniversalSettings,
    "torchattacks": TorchattacksSettings,
    "transfer": TransferSettings,
}
"""Settings by kind."""


def near(name: str, known: list[str]) -> str:
    """Return ", did you mean 'X'?" for the nearest of the known names, '' if none is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
