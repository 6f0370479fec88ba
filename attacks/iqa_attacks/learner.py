"""Attacks that look at other images before they are run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from iqa_attacks.attack import Attack
from iqa_models import QualityModel

EVALUATED = "evaluated"
"""In place of a split: all images under attack, whatever cells they are cut into."""


class Lesson(NamedTuple):
    """Which images an attack is to see before it is run."""

    split: str
    """`train`, `val`, or `EVALUATED`."""
    images: int | None
    """Only the first so many, None for all."""


@dataclass(frozen=True, kw_only=True)
class Learner(Attack):
    """An attack that must be `trained` before it is `run`; what it then is depends on the lesson's images."""

    @property
    @abstractmethod
    def lesson(self) -> Lesson:
        """The images it is trained on."""

    @abstractmethod
    def trained(
        self, model: QualityModel, images: Sequence[Tensor], ids: Sequence[str], *, chunk: int = 8
    ) -> Attack:
        """Return the attack ready to run.

        Args:
            model: the model under attack, in eval mode.
            images: (3, H, W) each in [0, 1].
            ids: their ids.
            chunk: images in one forward or backward pass.
        """
