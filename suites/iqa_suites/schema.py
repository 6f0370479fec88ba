"""A suite as data: which images, which attacks, what is minimised over."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from iqa_attacks import AttackError, MinimumNorm, Norm, check_qualities
from iqa_models.registry import did_you_mean
from iqa_suites.attack_settings import (
    AnyAttackSettings,
    OwnAttackSettings,
    Radius,
    Settings,
    TransferSettings,
    validate_attack,
)

AttackSettings = Annotated[SerializeAsAny[AnyAttackSettings], BeforeValidator(validate_attack)]
"""An attack of a suite, read by its `kind` as that attack of the catalogue declares it."""

EMBEDDED = ("demo", "demo-small", "demo-study", "demo-core", "smoke")
"""Data sets that come with the harness, and so with the ends of their label scale."""


class DataSettings(Settings):
    """Which images are attacked."""

    name: str
    """Data set as every `--data` takes it: `demo`, `koniq10k:/folder?split_seed=1`, path of a CSV, ...

    Without its folder a public set is looked for in `$IQA_HARNESS_DATA`: the suite, and so its hash, is
    then the same on every machine.
    """
    split: Literal["train", "val", "test"] = "test"
    """Split that is attacked."""
    images: StrictInt | None = Field(default=None, ge=3)
    """Only the first so many images in the set's order; all if left out."""
    mos_range: tuple[StrictFloat, StrictFloat] | None = None
    """Ends of the label scale, for a CSV; an embedded set has its own."""

    @field_validator("mos_range")
    @classmethod
    def _ascending(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
            raise ValueError(
                f"the ends of the label scale are two finite numbers, low < high, not {list(ends)}"
            )
        return ends

    @model_validator(mode="after")
    def _one_range(self) -> DataSettings:
        if self.mos_range is not None and self.name in EMBEDDED:
            raise ValueError(f"mos_range: data set {self.name!r} has its own MOS range; leave it out")
        return self


class Suite(Settings):
    """A benchmark, whole: two runs of equal suites on equal data are comparable."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    """Name of the suite in tables."""
    summary: str
    """One line for a reader who chooses a suite."""
    seed: StrictInt = Field(ge=0)
    """Starts are drawn from (seed, image id, restart)."""
    norm: Norm = "inf"
    """Norm the leaderboard is ranked in."""
    main_epsilon: Radius
    """Radius the leaderboard is ranked at; every attack of the minimum must have it."""
    suite_min: tuple[str, ...] = Field(min_length=1)
    """Members of the suite's minimum, as attack/objective (SRM section 3.8.4)."""
    step_sweep: str | None = None
    """Attack whose prefixes are shown as SROCC against steps."""
    eot_samples: StrictInt | None = Field(default=None, ge=1)
    """Draws averaged wherever a stochastic model is evaluated; such a model is refused without it."""
    jpeg_qualities: tuple[StrictInt, ...] = ()
    """Every example is scored once more as JPEG files of these qualities, their mean; not at all without."""
    plants: StrictInt | None = Field(default=None, ge=2, multiple_of=2)
    """Images near which basins are planted in every model's score, to see whether the attacks find them; none
    without. Costs `iqa-harness power --help` says."""
    cell_images: StrictInt = Field(default=16, ge=1)
    """Images in a cell; a multiple of the batch of every attack with a batch-level objective."""
    data: DataSettings
    """Which images are attacked."""
    attacks: tuple[AttackSettings, ...] = Field(min_length=1)
    """What is run."""

    @field_validator("jpeg_qualities")
    @classmethod
    def _qualities(cls, qualities: tuple[int, ...]) -> tuple[int, ...]:
        try:
            check_qualities(qualities)
        except AttackError as error:
            raise ValueError(str(error)) from error
        return qualities

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        names = [attack.name for attack in self.attacks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"attacks: {name!r} is named twice")
        if "clean" in names:
            raise ValueError("attacks: 'clean' is what scores without attack are called")
        return self

    @model_validator(mode="after")
    def _one_norm_and_batches_whole(self) -> Suite:
        for attack in self.own_attacks:
            if attack.norm != self.norm:
                raise ValueError(
                    f"attacks: {attack.name!r} has norm {attack.norm!r}, the suite {self.norm!r}; "
                    "a suite is in one norm, write another for the other"
                )
            if attack.training is not None and attack.training.split == self.data.split:
                raise ValueError(
                    f"attacks: {attack.name!r} would be trained on split {self.data.split!r} and tested on "
                    "it, too; choose another training_split"
                )
            if attack.coupled_images and self.cell_images % attack.coupled_images:
                raise ValueError(
                    f"cell_images: {self.cell_images} is not a multiple of the batch of {attack.name!r} "
                    f"({attack.coupled_images}); a batch-level objective would see other batches"
                )
        return self

    @model_validator(mode="after")
    def _balls_attacked(self) -> Suite:
        # What is found under a further constraint lies in the ball; without an attack that may use all of
        # it, the composed worst case would pass for the ball's.
        strong = [a for a in self.own_attacks if a.name not in self.radius_attacks]
        plain = {e for a in strong for e in a.epsilons if a.threat(e).constraint == "ball"}
        for attack in strong:
            lost = sorted(set(attack.epsilons) - plain)
            if lost:
                raise ValueError(
                    f"attacks: {attack.name!r} is bound to {attack.threat(lost[0]).constraint} at "
                    f"{lost[0]:g}, where no attack may use the whole ball; add that radius to one, to compare"
                )
        return self

    @model_validator(mode="after")
    def _radii_apart(self) -> Suite:
        # Its examples just reach their goal: at its largest radius they are no worst case.
        for attack in self.own_attacks:
            if attack.name in self.radius_attacks and len(attack.epsilons) > 1:
                raise ValueError(
                    f"attacks: {attack.name!r} looks for the smallest radius: give one in epsilons, the "
                    "largest that is tried"
                )
        used = [("suite_min", member) for member in self.suite_min]
        for where, member in (*used, *((f"attacks: {t.name!r}", t.of) for t in self.transfers)):
            if member.partition("/")[0] in self.radius_attacks:
                raise ValueError(
                    f"{where}: {member!r} looks for the smallest radius, not for the worst case within one"
                )
        return self

    @model_validator(mode="after")
    def _members_exist(self) -> Suite:
        own = {f"{a.name}/{o}": a for a in self.own_attacks for o in a.objectives}
        for transfer in self.transfers:
            if transfer.of not in own:
                raise ValueError(
                    f"attacks: {transfer.name!r} is of {transfer.of!r}, which is no attack/objective of the "
                    f"suite{did_you_mean(transfer.of, own)}; there are {list(own)}"
                )
        members = {**own, **{f"{t.name}/{t.source[1]}": own[t.of] for t in self.transfers}}
        for member in self.suite_min:
            if member not in members:
                near = did_you_mean(member, members)
                raise ValueError(f"suite_min: no {member!r}{near}; there are {list(members)}")
            chosen = members[member]
            if isinstance(chosen, OwnAttackSettings) and chosen.attack_class.whole_set:
                raise ValueError(
                    f"suite_min: {member!r} is an adversary of the whole set and has a row of its own, below "
                    "the composed worst case; leave it out"
                )
            if chosen.norm != self.norm or self.main_epsilon not in chosen.epsilons:
                raise ValueError(
                    f"suite_min: {member!r} does not run at main_epsilon {self.main_epsilon:g} "
                    f"in norm {self.norm!r}"
                )
        if self.step_sweep is not None:
            swept = next((a for a in self.attacks if a.name == self.step_sweep), None)
            radii: tuple[float, ...] = (
                getattr(swept, "report_epsilons", None) or getattr(swept, "epsilons", None) or ()
            )
            if not getattr(swept, "report_steps", ()) or self.main_epsilon not in radii:
                raise ValueError(
                    f"step_sweep: {self.step_sweep!r} is no attack with report_steps at main_epsilon"
                )
        return self

    @property
    def own_attacks(self) -> list[OwnAttackSettings]:
        """The attacks that are run on the model they judge."""
        return [attack for attack in self.attacks if isinstance(attack, OwnAttackSettings)]

    @property
    def radius_attacks(self) -> dict[str, OwnAttackSettings]:
        """Those of them that look for the smallest radius, by name; their epsilon is the largest tried."""
        return {a.name: a for a in self.own_attacks if issubclass(a.attack_class, MinimumNorm)}

    @property
    def transfers(self) -> list[TransferSettings]:
        """The attacks that try examples of the other models."""
        return [attack for attack in self.attacks if isinstance(attack, TransferSettings)]

    @property
    def sha256(self) -> str:
        """Hash of everything the suite says, whatever the order or spelling of its file."""
        fields = self.model_dump(mode="json")
        if self.plants is None:  # came later: a suite that says nothing of it is what it was
            del fields["plants"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
