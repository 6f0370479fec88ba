"""Square attack on scores: random search with squares, no gradient (Andriushchenko et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iqa_attacks.attack import Attack, Effort, Runtime
from iqa_attacks.errors import BadAttackOption
from iqa_attacks.gradients import expected_score, score
from iqa_attacks.objectives import Objective
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Ascent, Cost, Example, Found, Targets, merge
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.square_moves import InfMoves, L2Moves, Moves
from iqa_models import QualityModel

FIRST_AREA = {"inf": 0.8, "2": 0.1, "rmse": 0.1}
"""Share of the image that the first squares cover, by norm: the paper's for budgets of 10,000."""


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search for a higher loss, one square of the image a query (`square_moves` says how it moves).

    Squares and signs come from (seed, image id, restart) and do not depend on what is kept, so every
    objective sees the same proposals. Objectives that couple a batch are refused: images are searched one
    by one.
    """

    kind = "square"
    queries: int
    """Evaluations of an objective on an image, the start included."""
    restarts: int = 1
    """Searches an image, each with squares of its own."""
    first_area: float | None = None
    """Share of the image that the first squares cover (p in the paper): .8 in norm inf, else .1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1 or self.restarts < 1:
            raise BadAttackOption(
                f"square: queries ({self.queries}) and restarts ({self.restarts}) start at 1"
            )
        if self.first_area is not None and not 0 < self.first_area <= 1:
            raise BadAttackOption(f"square: first_area must lie in (0, 1], not {self.first_area}")
        coupled = [objective.name for objective in self.create_objectives() if objective.batch_level]
        if coupled:
            raise BadAttackOption(
                f"square: searches image by image and cannot maximise {coupled[0]!r}, a loss of a batch"
            )

    @property
    def effort(self) -> Effort:
        """Queries and restarts; no step size."""
        return Effort(self.queries, 0.0, self.restarts)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, runtime: Runtime) -> Ascent:
        """Search for every objective, restart after restart, images of one size together."""
        objectives = self.create_objectives()
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(targets.images):
            sizes.setdefault(tuple(image.shape), []).append(i)
        best: dict[tuple[int, str, int], Found] = {}
        for restart in range(self.restarts):
            for members in sizes.values():
                merge(best, self._search(model, targets, objectives, members, restart, draws, runtime.chunk))
        # The start is one for all objectives; after it each has an image of its own.
        queries = self.restarts * (1 + (self.queries - 1) * len(objectives)) * (draws or 1)
        cost = {(i, self.queries): Cost(queries, 0, 0) for i in range(len(targets.images))}
        return Ascent([best[key] for key in sorted(best)], cost)

    @property
    def moves(self) -> Moves:
        """What is proposed, in the threat model's norm."""
        norm = self.threat.norm
        kind = InfMoves if norm == "inf" else L2Moves
        return kind(self.threat, self.queries, self.first_area or FIRST_AREA[norm])

    def _search(
        self,
        model: QualityModel,
        targets: Targets,
        objectives: Sequence[Objective],
        members: list[int],
        restart: int,
        draws: int | None,
        chunk: int,
    ) -> list[Found]:
        low, high = model.spec.score_range
        clean = torch.stack([targets.images[i] for i in members])
        mos, clean_scores = targets.mos[members], (targets.clean[members] - low) / (high - low)
        generators = [start_generator(self.seed, targets.ids[i], restart) for i in members]
        seen, moves = _Seen(len(members)), self.moves
        lanes = [_Lane(objective, len(members)) for objective in objectives]
        at = torch.empty((len(lanes), *clean.shape), dtype=clean.dtype, device=clean.device)
        for query in range(self.queries):
            if query == 0:
                tried = moves.start(clean, generators).unsqueeze(0)
            else:
                tried = moves.propose(at, clean, generators, query)
            if draws is None:
                scores = score(model, tried.flatten(0, 1), chunk=chunk)
            else:
                moment = (restart, query)
                seeds = [draw_seeds(self.seed, targets.ids[i], moment, draws) for i in members] * len(tried)
                pairs = zip(tried.flatten(0, 1), seeds, strict=True)
                scores = torch.tensor([expected_score(model, p, s) for p, s in pairs], dtype=torch.float64)
            scores = scores.view(len(tried), len(members))
            seen.look(tried, scores, restart, query)
            for k, lane in enumerate(lanes):
                row = k if query else 0
                loss = lane.objective.value((scores[row] - low) / (high - low), mos, clean_scores)
                for j in lane.take(loss, scores[row], query):
                    at[k, j] = tried[row, j]
        found = [
            Found(
                i, lane.objective.name, self.queries, float(lane.loss[j]), lane.example(at[k, j], j, restart)
            )
            for k, lane in enumerate(lanes)
            for j, i in enumerate(members)
        ]
        for name, ends in ((LOWEST_SEEN, seen.lowest), (HIGHEST_SEEN, seen.highest)):
            found += [Found(members[j], name, self.queries, None, ends[j]) for j in range(len(members))]
        return found


@dataclass
class _Lane:
    """One objective's best so far on some images."""

    objective: Objective
    count: int
    loss: Tensor = field(init=False)
    scores: list[float] = field(init=False)
    steps: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.loss = torch.full((self.count,), -torch.inf, dtype=torch.float64)
        self.scores, self.steps = [0.0] * self.count, [0] * self.count

    def take(self, loss: Tensor, scores: Tensor, query: int) -> list[int]:
        """Record where a query raised the loss, and return those images."""
        better: list[int] = (loss > self.loss).nonzero().flatten().tolist()
        for j in better:
            self.loss[j] = loss[j]
            self.scores[j], self.steps[j] = float(scores[j]), query
        return better

    def example(self, pixels: Tensor, j: int, restart: int) -> Example:
        """Return the best of one image."""
        return Example(pixels.clone(), self.scores[j], restart, self.steps[j])


class _Seen:
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
