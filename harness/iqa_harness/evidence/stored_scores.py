"""Are stored scores those of the model as it is now? Asked before they are believed.

A model's key is a hash of all its state that can be seen. What cannot be seen (a file that is read when the
model scores, a global variable) would show an old model's results as the new one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from iqa_models import ModelSpec

SCORED_AGAIN = 3
"""Images of each model that are scored again, spread over what is stored."""
SLACK = 1e-3
"""Difference, in score ranges, that another device or thread count may make."""

T = TypeVar("T")


def some(items: Sequence[T]) -> Sequence[T]:
    """Return up to SCORED_AGAIN of some items, spread over them."""
    return items[:: max(1, len(items) // SCORED_AGAIN)][:SCORED_AGAIN]


def difference(spec: ModelSpec, image_id: str, now: float, stored: float, where: object) -> str | None:
    """Say that a model scores an image otherwise than is stored; None if it does not.

    Args:
        spec: the model's card.
        image_id: of the image.
        now: its score.
        stored: the score under the model's key.
        where: the store.
    """
    low, high = spec.score_range
    if abs(now - stored) <= SLACK * (high - low):
        return None
    return (
        f"scores image {image_id!r} {now:g} now, {stored:g} is stored under the same key in {where}: "
        "something decides its scores that is neither on its card nor in its weights or source (a file it "
        "reads, a global); give it another name (LABEL=...) in another --store, or put what decides it on "
        "its card"
    )
