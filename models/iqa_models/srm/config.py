"""Every value of the Spectral Robustness Mixer that is a choice, with its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iqa_models.errors import BadModelOption
from iqa_models.registry import did_you_mean
from iqa_models.spec import faults

STAGES: Final = 4
"""Levels of the pyramid; stage 1 has the highest resolution."""


class Ours:
    """Marks a field whose value the paper's text does not preserve: the default was chosen here."""


OURS: Final = Ours()
POSITIVE: Final = Field(gt=0)
SHARE: Final = Field(ge=0, le=1)
WEIGHT: Final = Field(ge=0)


class SRMConfig(BaseModel):
    """Settings of neck, gate and head; `OURS` marks the values chosen here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    width: Annotated[int, OURS, Field(ge=2)] = 128
    """Channels C every stage is aligned to."""
    heads: Annotated[int, OURS, Field(ge=1)] = 4
    """Attention heads H; a head is C / H wide."""
    links: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("4->1", "4->2", "4->3")
    """Links, deep stage to shallow stage (paper 3.2)."""

    normalise_tokens: Annotated[bool, OURS] = True
    """Whether queries and keys are divided by their length, head by head."""
    projections: Annotated[bool, OURS] = False
    """Whether a link has linear maps of queries, keys and values; the paper's text names none."""
    dyt: bool = True
    """Whether tokens pass Dynamic Tanh before attention."""
    dyt_alpha: Annotated[float, OURS] = 0.5
    """First slope of Dynamic Tanh."""
    dyt_weight: Annotated[float, OURS] = 1.0
    """First weight a channel."""
    dyt_bias: Annotated[float, OURS] = 0.0
    """First bias a channel."""
    residual_init: Annotated[float, OURS] = 0.1
    """First weight alpha of a stage's update."""

    attention: Literal["nystroem", "full"] = "nystroem"
    """``full`` is the quadratic baseline under the same schedule."""
    rank: Annotated[int, OURS, Field(ge=1)] = 32
    """Landmarks r, at most the number of keys."""
    ridge: Annotated[float, OURS, WEIGHT] = 1e-3
    """lambda0 of the landmark system."""
    landmarks: Literal["leverage", "uniform", "sampled"] = "leverage"
    """``sampled`` draws by leverage in training and takes the largest at evaluation."""
    leverage_ridge: Annotated[float, OURS, POSITIVE] = 1e-2
    """Ridge of the leverage scores, as a share of the keys' mean squared singular value."""
    leverage_floor: Annotated[float, OURS, POSITIVE] = 1e-12
    """Added to that ridge, so that keys of zeros have scores."""
    kmeans: bool = False
    """Whether landmarks are refined by k-means++ and Lloyd steps."""
    kmeans_steps: Annotated[int, OURS, Field(ge=0)] = 3
    """Lloyd steps."""
    kmeans_candidates: Annotated[int, OURS, Field(ge=1)] = 2
    """Candidates a landmark: the refinement sees this many times r keys of the largest scores."""
    kmeans_seed: Annotated[int, OURS, Field(ge=0)] = 0
    """Of the fixed numbers that seed k-means++; the same for every image."""

    solver: Literal["default", "svd", "lu", "neumann"] = "default"
    """``default`` is the SVD pseudo-inverse, and LU where the system is well conditioned."""
    kappa_max: Annotated[float, OURS, Field(ge=1)] = 1e4
    """Largest condition number that LU solves on the default route."""
    neumann_terms: Annotated[int, Field(ge=0)] = 3
    """Last power m of the Neumann series."""
    neumann_residual: Annotated[float, OURS, POSITIVE] = 1e-2
    """Largest relative residual of a Neumann solution that is kept."""
    power_iterations: Annotated[int, OURS, Field(ge=1)] = 20
    """Steps of the power iteration for a spectral norm."""
    equilibrate: bool = False
    """Whether rows and columns of the system are scaled before it is solved."""
    kv_pooling: Literal["off", "training", "always"] = "off"
    """When deep maps are average-pooled at random; ``always`` makes the model stochastic."""
    kv_pooling_probability: Annotated[float, OURS, SHARE] = 0.5
    """How often a forward pass pools them."""

    rescaler: bool = True
    """Whether a link's heads have a learned scale gamma."""
    ema_momentum: Annotated[float, OURS, SHARE] = 0.99
    """Share of the old value in the running scale."""
    rescaler_weight: Annotated[float, OURS, WEIGHT] = 1e-3
    """Weight of the rescaler's auxiliary loss."""
    gamma_low: Annotated[float, OURS, POSITIVE] = 0.1
    """Least gamma in training."""
    gamma_high: Annotated[float, OURS, POSITIVE] = 10.0
    """Largest gamma in training."""

    pool: Annotated[int, OURS, Field(ge=1)] = 7
    """Side P of the pooled maps that are fused."""
    gate_divisor: Annotated[int, OURS, Field(ge=1)] = 2
    """The gate's hidden width is C divided by this."""
    gate_dyt: Annotated[bool, OURS] = False
    """Whether the gate's pooled maps pass Dynamic Tanh first."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Of the gate's softmax."""
    entropy_floor: Annotated[float, OURS, WEIGHT] = 0.5 * math.log(3)
    """H_min: entropy below it is penalised."""
    entropy_weight: Annotated[float, OURS, WEIGHT] = 1e-2
    """Weight of the entropy loss."""
    balance_weight: Annotated[float, OURS, WEIGHT] = 1e-2
    """Weight of the balance loss."""
    gain_cap: bool = True
    """Whether the fused map's RMS is held at most beta."""
    beta: Annotated[float, OURS, POSITIVE] = 2.0
    """The gain cap."""

    head_dropout: Annotated[float, OURS, SHARE] = 0.1
    """Dropout of the head, C to C to 1."""

    @field_validator("links", mode="before")
    @classmethod
    def _links_from_text(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("links")
    @classmethod
    def _links_go_up(cls, links: tuple[str, ...]) -> tuple[str, ...]:
        for link in links:
            read_link(link)
        if len(set(links)) < len(links):
            raise ValueError("a link stands there twice")
        return links

    @model_validator(mode="after")
    def _fits_together(self) -> SRMConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.width < self.gate_divisor:
            raise ValueError(f"gate_divisor {self.gate_divisor} leaves nothing of width {self.width}")
        if not self.gamma_low <= 1 <= self.gamma_high:
            raise ValueError("gamma_low <= 1 <= gamma_high is needed, for gamma starts at 1")
        return self

    @property
    def head_width(self) -> int:
        """Width d of one attention head."""
        return self.width // self.heads

    @property
    def parsed_links(self) -> tuple[tuple[int, int], ...]:
        """Links as (deep, shallow), stages from 1."""
        return tuple(read_link(link) for link in self.links)


def read_link(text: str) -> tuple[int, int]:
    """Read a link ``deep->shallow``; stages from 1.

    Raises:
        ValueError: not two stages, or not from deep to shallow.
    """
    known = {f"{d}->{s}": (d, s) for d in range(2, STAGES + 1) for s in range(1, d)}
    if text not in known:
        raise ValueError(f"link {text!r} is not deep->shallow; there are: {', '.join(known)}")
    return known[text]


def values_of_ours() -> dict[str, object]:
    """Return name and default of every field whose value was chosen here."""
    return {
        name: field.default
        for name, field in SRMConfig.model_fields.items()
        if any(isinstance(mark, Ours) for mark in field.metadata)
    }


def read_config(model: str, settings: Mapping[str, object]) -> SRMConfig:
    """Build a config from a user's settings.

    Args:
        model: name, for messages.
        settings: fields of `SRMConfig`.

    Raises:
        BadModelOption: an unknown field (the nearest is named) or a value out of range.
    """
    for name in settings:
        if name not in SRMConfig.model_fields:
            near = did_you_mean(name, SRMConfig.model_fields)
            raise BadModelOption(
                f"model {model!r} has no option {name!r}{near}; beside the builder's it takes: "
                f"{', '.join(SRMConfig.model_fields)}"
            )
    try:
        return SRMConfig.model_validate(dict(settings))
    except ValidationError as error:
        raise BadModelOption(f"{model}: {faults(error, 'settings')}") from error
