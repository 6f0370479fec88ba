"""Ranks with what is known of them: a model's place by value, and the places it may have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Rank(NamedTuple):
    """A model's place among those that are ranked."""

    place: int
    """One more than the number of models with a higher value; suspect models come after all others."""
    low: int | None = None
    """Best place it may have; None where models were not compared with each other."""
    high: int | None = None
    """Worst one."""

    @property
    def ends(self) -> tuple[int, int] | None:
        """Both ends of what is known of it."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def ranks(
    values: Mapping[str, float], ties: Mapping[str, Collection[str]] | None, last: Collection[str] = ()
) -> dict[str, Rank]:
    """Return the rank of every model, best first.

    Where the ties of all pairs hold at once with some confidence, so do all sets of places: a model has at
    least as many before it as are told apart from it as better, and as many behind it as are as worse
    (Mogstad, Romano, Shaikh, Wilhelm, Inference for Ranks, Review of Economic Studies 2024).

    Args:
        values: by model, higher is better.
        ties: by model, those it is not told apart from; None if models were not compared.
        last: models that come after all others, whatever their values.
    """
    order = {name: (name not in last, value) for name, value in values.items()}
    found: dict[str, Rank] = {}
    for name in sorted(order, key=order.__getitem__, reverse=True):
        own = order[name]
        rank = Rank(1 + sum(other > own for other in order.values()))
        if ties is not None:
            # A suspect model's true value is lower: that it is not told apart from a sound one says nothing.
            apart = [o for o in order if order[o][0] != own[0] or o not in ties[name]]
            low = 1 + sum(order[o] > own for o in apart)
            rank = rank._replace(low=low, high=len(order) - sum(order[o] < own for o in apart))
        found[name] = rank
    return found
