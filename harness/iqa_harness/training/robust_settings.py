"""Settings of robust training: each kind has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings that are read strictly and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class NotRobust(Settings):
    """Plain training."""

    kind: Literal["none"] = "none"


class GradientNorm(Settings):
    """A penalty on the input gradient."""

    kind: Literal["gradient_norm"] = "gradient_norm"
    weight: float = Field(default=1e-3, gt=0)
    """Weight of the L1 norm of the input gradient, in score ranges per pixel unit."""
    step: float = Field(default=0.01, gt=0)
    """Length h of the finite difference."""
    form: Literal["norm", "author"] = "norm"
    """The norm itself on pixels in [0, 1], or half its square on normalised pixels and a scale of 100, as in
    the authors' code, where it goes with loss l1."""


class Adversarial(Settings):
    """Adversarial examples at every step."""

    epsilon: str = "1/255"
    """Radius of the inf ball, a number or a fraction."""
    objective: Literal["mse", "drift", "raise", "lower", "pairwise_inversion"] = "mse"
    """What the examples maximise (drift from the clean image itself goes up)."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of a batch that is replaced by its adversarial examples, at least one."""
    label_damage: float = Field(default=0.0, ge=0)
    """Labels fall by this times 1 - HaarPSI(example, image), on [0, 1]; 0 keeps them."""


class Fgsm(Adversarial):
    """Adversarial examples of one step."""

    kind: Literal["fgsm"] = "fgsm"


class Pgd(Adversarial):
    """Adversarial examples of several steps."""

    kind: Literal["pgd"] = "pgd"
    steps: int = Field(default=2, ge=1)
    """Steps from a random start."""
    step_size: float = Field(default=0.75, gt=0, le=2)
    """Length of a step, as a share of the radius."""


Robust = Annotated[NotRobust | GradientNorm | Fgsm | Pgd, Field(discriminator="kind")]
ROBUST: Final[dict[str, type[BaseModel]]] = {
    "none": NotRobust, "gradient_norm": GradientNorm, "fgsm": Fgsm, "pgd": Pgd,
}  # fmt: skip
"""Settings of robust training by their kind."""
RECORDED: Final[dict[str, tuple[type[BaseModel], str]]] = {
    "gradient_weight": (GradientNorm, "weight"),
    "gradient_step": (GradientNorm, "step"),
    "gradient_form": (GradientNorm, "form"),
    "adversarial_epsilon": (Adversarial, "epsilon"),
    "adversarial_steps": (Pgd, "steps"),
    "adversarial_step_size": (Pgd, "step_size"),
    "adversarial_objective": (Adversarial, "objective"),
    "adversarial_share": (Adversarial, "share"),
    "label_damage": (Adversarial, "label_damage"),
}
"""Names under which a checkpoint records the settings of robust training, beside all others."""


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of robust training in a table, from wherever they stand.

    ``robust = "pgd"`` is a table without further entries; names of `RECORDED` move into it, or go where they
    are the default of another kind.
    """
    values = dict(values)
    robust = values.get("robust", "none")
    table = {"kind": robust} if isinstance(robust, str) else robust
    if not isinstance(table, Mapping):
        return values
    table, kind = dict(table), ROBUST.get(str(table.get("kind")), BaseModel)
    for old, (owner, field) in RECORDED.items():
        if old in values and issubclass(kind, owner):
            table[field] = values.pop(old)
        elif old in values and values[old] == owner.model_fields[field].default:
            del values[old]
    return {**values, "robust": table}


def explained() -> list[str]:
    """Return a line for each setting of robust training, with the kinds that have it."""
    kinds: dict[str, list[str]] = {}
    for kind, settings in ROBUST.items():
        for name, field in settings.model_fields.items():
            if name != "kind":
                kinds.setdefault(f"robust.{name}: {' '.join((field.description or '').split())}", []).append(
                    kind
                )
    return [f"{text} (Of {' and '.join(of)}.)" for text, of in kinds.items()]
