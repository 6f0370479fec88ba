"""Attacks that ask for scores alone: what every one of them keeps, whatever it tries next."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from iqa_attacks.attack import Attack, Effort
from iqa_attacks.errors import BadAttackOption, naming
from iqa_attacks.gradients import expected_score, score
from iqa_attacks.objectives import Objective
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Ascent, Cost, Example, Found, Targets, merge
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.settings import Count, Later
from iqa_models import QualityModel

Proposals = Generator[Tensor, Tensor, None]
"""Yields what to try, (K, B, C, H, W) for K objectives or (1, B, C, H, W) for all; is sent losses (K, B)."""


@dataclass(frozen=True, kw_only=True)
class QueryAttack(Attack):
    """A search by queries, image by image; objectives that couple a batch are refused.

    Draws come from (seed, image id, restart) and not from scores, so every objective sees the same ones.
    """

    image_by_image = True
    needs_gradient = False
    queries: Count
    """Evaluations of an objective on an image, the start included."""
    restarts: Count = 1
    """Searches an image, each with draws of its own."""
    report_steps: Annotated[tuple[int, ...], Later()] = ()
    """Numbers of queries to report besides: the curve of damage against queries. Read off the same run, whose
    course may depend on the whole budget."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for steps in self.report_steps:
            if not 1 <= steps <= self.queries:
                raise BadAttackOption(f"{self.kind}: report_steps {steps} is not within 1..{self.queries}")

    @property
    def effort(self) -> Effort:
        """Queries and restarts; no step size."""
        return Effort(self.queries, 0.0, self.restarts)

    @abstractmethod
    def proposals(
        self, clean: Tensor, generators: Sequence[torch.Generator], lanes: Sequence[Lane]
    ) -> Proposals:
        """Yield what to try on images of one size, (1, B, C, H, W) first and each inside the threat model.

        Args:
            clean: (B, C, H, W).
            generators: B, on the CPU.
            lanes: what every objective holds to be best so far.
        """

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Search for every objective, restart after restart, images of one size together."""
        objectives = self.create_objectives()
        best: dict[tuple[int, str, int], Found] = {}
        for restart in range(self.restarts):
            for members in targets.by_size():
                on = Searched(model, targets, members, self.seed, restart, draws, chunk)
                merge(best, self._search(on, objectives))
        # The start is one for all objectives; after it each has an image of its own.
        each = self.restarts * (draws or 1)
        cost = {
            (i, n): Cost(each * (1 + (n - 1) * len(objectives)), 0, 0)
            for i in range(len(targets.images))
            for n in sorted({*self.report_steps, self.queries})
        }
        return Ascent([best[key] for key in sorted(best)], cost)

    def _search(self, on: Searched, objectives: Sequence[Objective]) -> list[Found]:
        """Return the best of one restart on images of one size, for every objective, and the ends met."""
        clean, mos, clean_scores = on.clean, on.targets.mos[on.members], on.unit(on.targets.clean[on.members])
        generators = [start_generator(self.seed, image_id, on.restart) for image_id in on.ids]
        seen, lanes = Seen(len(on.members)), [Lane(objective, clean) for objective in objectives]
        ways = self.proposals(clean, generators, lanes)
        found: list[Found] = []
        tried = next(ways)
        for query in range(self.queries):
            scores = on.scores(tried, query)
            seen.look(tried, scores, on.restart, query)
            losses = []
            for k, lane in enumerate(lanes):
                row = k if len(tried) > 1 else 0
                losses.append(lane.objective.value(on.unit(scores[row]), mos, clean_scores))
                lane.take(tried[row], losses[-1], scores[row], query)
            if query + 1 in (*self.report_steps, self.queries):
                found += self._held(on, lanes, seen, query + 1)
            if query + 1 < self.queries:
                tried = ways.send(torch.stack(losses))
        ways.close()
        return found

    def _held(self, on: Searched, lanes: Sequence[Lane], seen: Seen, queries: int) -> list[Found]:
        """Return what is best after so many queries."""
        found = [
            Found(i, lane.objective.name, queries, float(lane.loss[j]), lane.example(j, on.restart))
            for lane in lanes
            for j, i in enumerate(on.members)
        ]
        for name, ends in ((LOWEST_SEEN, seen.lowest), (HIGHEST_SEEN, seen.highest)):
            found += [Found(i, name, queries, None, end) for i, end in zip(on.members, ends, strict=True)]
        return found


@dataclass(frozen=True)
class Searched:
    """Images of one size under search, and how versions of them are scored."""

    model: QualityModel
    targets: Targets
    members: list[int]
    seed: int
    restart: int
    draws: int | None
    chunk: int

    @property
    def ids(self) -> list[str]:
        """Of the images."""
        return [self.targets.ids[i] for i in self.members]

    @property
    def clean(self) -> Tensor:
        """(B, C, H, W)."""
        return torch.stack([self.targets.images[i] for i in self.members])

    def unit(self, scores: Tensor) -> Tensor:
        """Return scores on [0, 1] of the model's range."""
        low, high = self.model.spec.score_range
        return (scores - low) / (high - low)

    def scores(self, tried: Tensor, query: int) -> Tensor:
        """Return the scores (K, B) of versions (K, B, C, H, W)."""
        ids = self.ids * len(tried)
        versions = tried.flatten(0, 1)
        if self.draws is None:
            with naming(ids):
                return score(self.model, versions, chunk=self.chunk).view(len(tried), -1)
        means = []
        for version, image_id in zip(versions, ids, strict=True):
            seeds = draw_seeds(self.seed, image_id, (self.restart, query), self.draws)
            with naming([image_id]):
                means.append(expected_score(self.model, version, seeds))
        return torch.tensor(means, dtype=torch.float64).view(len(tried), -1)


class Lane:
    """One objective's best so far on some images."""

    def __init__(self, objective: Objective, clean: Tensor) -> None:
        self.objective = objective
        self.at = torch.empty_like(clean)
        """(B, C, H, W)."""
        self.loss = torch.full((len(clean),), -torch.inf, dtype=torch.float64)
        self.scores, self.steps = [0.0] * len(clean), [0] * len(clean)

    def take(self, tried: Tensor, loss: Tensor, scores: Tensor, query: int) -> None:
        """Keep versions (B, C, H, W) where a query raised the loss (B,)."""
        for j in (loss > self.loss).nonzero().flatten().tolist():
            self.at[j], self.loss[j] = tried[j], loss[j]
            self.scores[j], self.steps[j] = float(scores[j]), query

    def example(self, j: int, restart: int) -> Example:
        """Return the best of one image."""
        return Example(self.at[j].clone(), self.scores[j], restart, self.steps[j])


class Seen:
    """The ends of all scores met on some images."""

    def __init__(self, count: int) -> None:
        nothing = torch.empty(0)
        self.lowest = [Example(nothing, math.inf, 0, 0)] * count
        self.highest = [Example(nothing, -math.inf, 0, 0)] * count

    def look(self, tried: Tensor, scores: Tensor, restart: int, query: int) -> None:
        """Take in versions (K, B, C, H, W) and their scores (K, B)."""
        for j, (down, up) in enumerate(
            zip(scores.argmin(dim=0).tolist(), scores.argmax(dim=0).tolist(), strict=True)
        ):
            if float(scores[down, j]) < self.lowest[j].score:
                self.lowest[j] = Example(tried[down, j].clone(), float(scores[down, j]), restart, query)
            if float(scores[up, j]) > self.highest[j].score:
                self.highest[j] = Example(tried[up, j].clone(), float(scores[up, j]), restart, query)
