"""Ranks that models share which are not told apart, and the places each may have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Rank(NamedTuple):
    """A model's rank among those that are ranked."""

    place: int
    """One more than the number of models told apart as better, the best place it may have; of models that
    were not compared than the number with a higher value. Suspect models come after all others."""
    last: int | None = None
    """Worst place it may have; None where models were not compared."""

    @property
    def ends(self) -> tuple[int, int] | None:
        """Both ends of what is known of its place."""
        return None if self.last is None else (self.place, self.last)


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
    for name, own in order.items():
        if ties is None:
            found[name] = Rank(1 + sum(other > own for other in order.values()))
            continue
        # A suspect model's true value is lower: that it is not told apart from a sound one says nothing.
        apart = [o for o in order if order[o][0] != own[0] or o not in ties[name]]
        best = 1 + sum(order[o] > own for o in apart)
        found[name] = Rank(best, len(order) - sum(order[o] < own for o in apart))
    by_value = sorted(found, key=order.__getitem__, reverse=True)
    return {name: found[name] for name in sorted(by_value, key=lambda name: found[name].place)}
