"""A model under test with the name a run gives it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, cast

from iqa_harness.entrants.sources import hash_sources
from iqa_models import ModelSpec, QualityModel, weights_sha256
from iqa_models.checkpoint import checked_card

UNTRAINED: Final = "head has random weights: created by name, not from a checkpoint"
"""Note on a model whose scores mean nothing yet."""


@dataclass(frozen=True)
class Entrant:
    """A model under test with the name a run gives it."""

    label: str
    model: QualityModel
    checkpoint: Path | None = None
    argument: str | None = None
    """What to write after ``--model`` to make it again, None for an object of the caller's own."""
    plugins: tuple[Path, ...] = ()
    """Files to run before the model can be made again."""
    backbone_weights: Path | str | None = None
    """File its trunk's weights were read from, None if it has none or its checkpoint holds them."""
    note: str | None = None
    """What a reader of its scores must know that follows from how it was made, such as `UNTRAINED`."""

    @property
    def card(self) -> ModelSpec:
        """The model's card as records show it, with `note`; the hash is of the card without."""
        spec = self.model.spec
        return spec.replace(notes=(*spec.notes, self.note)) if self.note else spec

    @cached_property
    def before_use(self) -> tuple[str, str]:
        """Hashes of the model's state and of its sources, as first asked for.

        Some models hold other state once they were used: a counter of calls, a cache.
        """
        bare = self.model.bare  # what stands before it is on the card, and holds nothing else
        return weights_sha256(bare), hash_sources(bare)

    @cached_property
    def sha256(self) -> str:
        """Hash of card, state and, of a model that is not one of ours, source files; as first asked for."""
        card = json.dumps(self.model.spec.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256("\n".join([card, *self.before_use]).encode()).hexdigest()


class _Described(NamedTuple):
    """What a plan asks of a model."""

    spec: ModelSpec

    @property
    def bare(self) -> _Described:
        return self

    @property
    def is_stochastic(self) -> bool:
        return self.spec.is_stochastic


def described(label: str, checkpoint: Path) -> Entrant:
    """Return a model of ours as its checkpoint describes it, without making it: for a plan, not for a run.

    Its hash is that of the model that would be made.

    Raises:
        BadCheckpoint: the card or the weights are missing or damaged.
    """
    card = checked_card(checkpoint)
    entrant = Entrant(label, cast("QualityModel", _Described(card.model)), checkpoint)
    vars(entrant)["before_use"] = card.weights_sha256, ""
    return entrant
