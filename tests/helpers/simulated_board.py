"""Boards of models with known values, drawn at random: how often is what a board says of ranks true?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iqa_harness.measures.bootstrap import RESAMPLES, Bootstrap, lowest
from iqa_harness.measures.correlation import srocc
from iqa_harness.tables.ties import Place, Standing, difference_rows
from iqa_reports.inputs.ranks import Rank, ranks

SUITE_MIN = Place("suite_min", "inf", 1 / 255, "srocc")


class Population(NamedTuple):
    """Models whose attacked scores and labels are jointly normal."""

    truth: Sequence[float]
    """Population SROCC of each model."""
    images: int
    members: int = 1
    """Attacks of equal strength whose minimum is taken."""
    shared: float = 0.5
    """Share of the error's variance that all models have in common."""
    contents: int = 0
    """Contents the images show, half of every variance being theirs; 0: every image its own."""


def draw_board(population: Population, seed: int, resamples: int = RESAMPLES) -> dict[str, Rank]:
    """Draw a set of images and return the ranks of a board of it, by model `0`, `1`, ..."""
    images, contents, shared = population.images, population.contents, population.shared
    generator = np.random.default_rng([images, len(population.truth), population.members, seed])
    content = np.arange(images) % contents if contents else None

    def normal():
        fresh = generator.standard_normal(images)
        if content is None:
            return fresh
        return math.sqrt(0.5) * (generator.standard_normal(contents)[content] + fresh)

    labels, common = normal(), normal()
    bootstrap = Bootstrap(labels, None if content is None else [str(c) for c in content],
                          resamples=resamples, seed=seed)  # fmt: skip
    standings, values = [], {}
    for place, rank in enumerate(population.truth):
        rho, own = (
            2 * math.sin(math.pi * rank / 6),
            normal(),
        )  # the correlation of a normal pair of that SROCC
        found = []
        for _ in range(population.members):
            alone = own if population.members == 1 else math.sqrt(0.5) * (own + normal())
            error = math.sqrt(shared) * common + math.sqrt(1 - shared) * alone
            scores = rho * labels + math.sqrt(1 - rho * rho) * error
            found.append(bootstrap.replicates(srocc(scores, labels), scores, "srocc"))
        least = lowest(found)
        values[str(place)] = least.point.value
        standings.append(Standing(str(place), "", "", (), bootstrap.drawn, least))
    pairs = difference_rows({SUITE_MIN: standings}, list(values))
    ties: dict[str, set[str]] = {name: set() for name in values}
    for pair in pairs:
        if pair.tied:
            ties[pair.model_a].add(pair.model_b)
            ties[pair.model_b].add(pair.model_a)
    return ranks(values, ties)


def holds(found: dict[str, Rank], truth: Sequence[float]) -> bool:
    """Whether every model's places hold all that its true value gives it: equal values share theirs."""
    for name, rank in found.items():
        own = truth[int(name)]
        first = 1 + sum(other > own for other in truth)
        last = len(truth) - sum(other < own for other in truth)
        if not rank.place <= first <= last <= rank.last:
            return False
    return True
