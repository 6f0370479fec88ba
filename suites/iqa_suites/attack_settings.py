"""Settings of each kind of attack, as a suite writes them: derived from the attack's own fields.

An attack of the catalogue needs nothing here. Its class says what its settings are (`iqa_attacks.settings`);
what a suite adds is the same for all: a name, radii instead of one radius, and shares of the radius.
"""

from __future__ import annotations

import functools
from dataclasses import MISSING
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictFloat,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from iqa_attacks import (
    AtSomeRadii,
    Attack,
    AttackError,
    Learner,
    Lesson,
    NoKey,
    Norm,
    Pixels,
    Setting,
    StepSize,
    ThreatModel,
    create_objective,
    find_attack,
    list_attacks,
    objectives_with_settings,
    parse_epsilon,
    settings_of,
    unsaid,
)
from iqa_models.registry import did_you_mean


def _radius(value: object) -> object:
    """Read a number or a fraction such as '4/255'."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a radius is a number or a fraction such as '4/255', not {value!r}")
    try:
        return parse_epsilon(value)
    except AttackError as error:
        raise ValueError(str(error)) from error


Radius = Annotated[float, BeforeValidator(_radius), Field(gt=0)]


Share = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
"""A part of the radius."""


class Settings(BaseModel):
    """A part of a suite: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class AnyAttackSettings(Settings):
    """What every attack of a suite has."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the attack in tables."""
    kind: str
    """Kind of attack."""


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


class EnsembleSettings(TransferSettings):
    """Examples found on the mean of all other models of the run at once, scored on this one.

    The mean is of scores in units of each model's range. A model is left out of the mean it is tried on, with
    all that share its weights behind or before a defence. Fewer than two models are no mean: it is left out.
    Norm, radii and everything else are those of the attack it names; results are named `NAME/OBJECTIVE`.
    """

    kind: Literal["ensemble"]  # type: ignore[assignment]  # a kind of its own


class OwnAttackSettings(AnyAttackSettings):
    """An attack that is run on the model it is judged by; a subclass has the settings of its kind."""

    attack_class: ClassVar[type[Attack]]
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
        return self.attack_class(
            threat=self.threat(epsilon),
            objectives=self.objectives,
            seed=seed,
            eot_samples=eot_samples,
            **{setting.name: self._value(setting, epsilon) for setting in _keys_of(self.attack_class)},
        )

    def threat(self, epsilon: float) -> ThreatModel:
        """Return what the adversary may do at one radius."""
        return ThreatModel(self.norm, epsilon, self.ssim_floor, self.pixels)

    @property
    def coupled_images(self) -> int | None:
        """Images in a batch, if an objective of it looks at a whole batch; else None."""
        if self.attack_class.whole_set:
            return None  # its cell holds all images
        if not any(create_objective(name).batch_level for name in self.objectives):
            return None
        return int(getattr(self, "batch"))  # noqa: B009 - a field of every derived class

    @property
    def training(self) -> Lesson | None:
        """The images it is trained on, None for an attack that needs no training."""
        made = self.attack(self.epsilons[0], 0) if issubclass(self.attack_class, Learner) else None
        return made.lesson if isinstance(made, Learner) else None

    def _value(self, setting: Setting, epsilon: float) -> Any:
        """Return a setting at one radius.

        Raises:
            ValueError: a step size given twice or not at all, or radii that are not the attack's.
        """
        value = getattr(self, _held_as(setting.name))
        if (step := setting.mark(StepSize)) is not None:
            share = step.share if step.share_key is None else getattr(self, step.share_key)
            if step.share_key is not None and (value is None) == (share is None):
                raise ValueError(f"give exactly one of {setting.name} and {step.share_key}")
            return value if value is not None else share * epsilon
        if (some := setting.mark(AtSomeRadii)) is not None:
            radii = getattr(self, some.key)
            if radii is not None and not value:
                raise ValueError(f"{some.key} says where {setting.name} are reported: give both, or none")
            for radius in radii or ():
                if radius not in self.epsilons:
                    raise ValueError(f"{some.key}: {radius:g} is not among the attack's epsilons")
            return value if radii is None or epsilon in radii else setting.field.default
        return value

    @model_serializer(mode="wrap")
    def _as_ever(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing and came later: a suite's text, and so its hash, is what it was."""
        fields: dict[str, Any] = write(self)
        later = unsaid(
            self.attack_class, {s.name: getattr(self, _held_as(s.name)) for s in _keys_of(self.attack_class)}
        )
        return {name: value for name, value in fields.items() if name not in later}

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        for setting, objective in objectives_with_settings().items():
            if self._is_changed(setting) and objective not in self.objectives:
                raise ValueError(f"{setting} is of the objective {objective!r}, which is not among these")
        if self._is_changed("batch") and (self.attack_class.image_by_image or self.attack_class.whole_set):
            one = "the whole set" if self.attack_class.whole_set else "image by image"
            raise ValueError(f"{self.kind} attacks {one}: leave batch out")
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


def list_kinds() -> list[str]:
    """Return the kinds of attack a suite may have, sorted."""
    return sorted([*list_attacks(), "ensemble", "transfer"])


def settings_class(kind: str) -> type[AnyAttackSettings]:
    """Return the settings of a kind of attack, as its class declares them.

    Raises:
        UnknownAttack: no attack of that kind.
    """
    others = {"transfer": TransferSettings, "ensemble": EnsembleSettings}
    return others.get(kind) or _derived(find_attack(kind))


@functools.cache
def _derived(cls: type[Attack]) -> type[OwnAttackSettings]:
    found: dict[str, Any] = {"kind": (Literal[cls.kind], ...)}
    for setting in _keys_of(cls):
        held = _held_as(setting.name)
        found[held] = _field(setting, alias=setting.name if held != setting.name else None)
        if (step := setting.mark(StepSize)) is not None and step.share_key is not None:
            found[step.share_key] = (Share | None, None)
        if (some := setting.mark(AtSomeRadii)) is not None:
            found[some.key] = (tuple[Radius, ...] | None, Field(default=None, min_length=1))
    made = create_model(f"{cls.__name__}Settings", __base__=OwnAttackSettings, __doc__=cls.__doc__, **found)
    made.attack_class = cls
    return made


def _field(setting: Setting, alias: str | None) -> tuple[Any, Any]:
    """Return a setting as a field of a pydantic model."""
    if setting.mark(StepSize) is not None:
        return Radius | None, None
    if setting.required:
        return setting.hint, Field(alias=alias)
    if setting.field.default_factory is not MISSING:
        return setting.hint, Field(alias=alias, default_factory=setting.field.default_factory)
    return setting.hint, Field(alias=alias, default=setting.field.default)


def _keys_of(cls: type[Attack]) -> tuple[Setting, ...]:
    return tuple(setting for setting in settings_of(cls) if setting.mark(NoKey) is None)


def _held_as(name: str) -> str:
    """Return the attribute that holds a setting: of one that a method hides, its name and `_name`."""
    return f"{name}_name" if hasattr(OwnAttackSettings, name) else name


def validate_attack(value: object) -> AnyAttackSettings:
    """Return the settings of one attack of a suite, by its `kind`; pydantic gathers what is wrong with it.

    Raises:
        ValueError: no table, no kind, or one that is not known.
        ValidationError: keys that are unknown, missing or out of range.
    """
    if isinstance(value, AnyAttackSettings):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("attack_type", "an attack is a table with name, kind and its settings")
    kind = value.get("kind")
    if kind not in (known := list_kinds()):
        raise PydanticCustomError(
            "attack_kind",
            "{what}; there are {known}",
            {
                "what": "kind: Field required"
                if kind is None
                else f"no attack {kind!r}{did_you_mean(str(kind), known)}",
                "known": ", ".join(known),
            },
        )
    return settings_class(kind).model_validate(value)
