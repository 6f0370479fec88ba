"""Attacks that ask for scores alone: what every one of them keeps, whatever it tries next."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from iqa_attacks.attack import Attack, Effort, Moment
from iqa_attacks.errors import BadAttackOption, naming
from iqa_attacks.gradients import score
from iqa_attacks.objectives import Objective
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Ascent, Best, Cost, Found, Targets, by_size, merge
from iqa_attacks.seeding import start_generator
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

    def admit(self, moved: Tensor, clean: Tensor) -> Tensor:
        """Return admissible versions (K, B, C, H, W) near others, of images (B, C, H, W)."""
        around = clean.expand_as(moved).flatten(0, 1)
        return self.threat.admit(moved.flatten(0, 1), around).view_as(moved)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Search for every objective, restart after restart, images of one size together."""
        best: dict[tuple[int, str, int], Found] = {}
        for restart in range(self.restarts):
            for members in by_size(targets.images):
                merge(best, self._search(model, targets, members, restart, draws, chunk))
        # The start is one for all objectives; after it each has an image of its own.
        each = self.restarts * (draws or 1)
        cost = {
            (i, n): Cost(each * (1 + (n - 1) * len(self.objectives)), 0, 0)
            for i in range(len(targets.images))
            for n in sorted({*self.report_steps, self.queries})
        }
        return Ascent([best[key] for key in sorted(best)], cost)

    def _search(
        self,
        model: QualityModel,
        targets: Targets,
        members: list[int],
        restart: int,
        draws: int | None,
        chunk: int,
    ) -> list[Found]:
        """Return the best of one restart on images of one size, for every objective, and the ends met."""
        low, high = model.spec.score_range
        ids = [targets.ids[i] for i in members]
        clean = torch.stack([targets.images[i] for i in members])
        labels = targets.mos[members], (targets.clean[members] - low) / (high - low)
        lanes = [Lane(objective, clean, restart) for objective in self.create_objectives()]
        ends = {LOWEST_SEEN: Best(clean, restart), HIGHEST_SEEN: Best(clean, restart)}
        generators = [start_generator(self.seed, image_id, restart) for image_id in ids]
        ways = self.proposals(clean, generators, lanes)
        found: list[Found] = []
        tried = next(ways)
        for query in range(self.queries):
            scores = self._asked(model, tried, ids, (restart, query), draws, chunk)
            for sign, end in zip((-1, 1), ends.values(), strict=True):
                reached, which = (sign * scores).max(dim=0)
                if bool((reached > end.loss).any()):
                    end.take(tried[which, torch.arange(len(ids))], reached, sign * reached, query)
            losses = []
            for k, lane in enumerate(lanes):
                row = k if len(tried) > 1 else 0
                losses.append(lane.objective.value((scores[row] - low) / (high - low), *labels))
                lane.take(tried[row], losses[-1], scores[row], query)
            if query + 1 in (*self.report_steps, self.queries):
                found += _held(members, lanes, ends, query + 1)
            if query + 1 < self.queries:
                tried = ways.send(torch.stack(losses))
        ways.close()
        return found

    def _asked(
        self,
        model: QualityModel,
        tried: Tensor,
        ids: list[str],
        moment: Moment,
        draws: int | None,
        chunk: int,
    ) -> Tensor:
        """Return the scores (K, B) of versions (K, B, C, H, W) of images."""
        names, versions = ids * len(tried), tried.flatten(0, 1)
        if draws is None:
            with naming(names):
                scores = score(model, versions, chunk=chunk)
        else:
            each = zip(versions, names, strict=True)
            means = [self.score_of(model, version, name, moment, draws) for version, name in each]
            scores = torch.tensor(means, dtype=torch.float64)
        return scores.view(len(tried), -1)


class Lane(Best):
    """One objective's best so far on some images."""

    def __init__(self, objective: Objective, clean: Tensor, restart: int) -> None:
        super().__init__(clean, restart)
        self.objective = objective


def _held(
    members: Sequence[int], lanes: Sequence[Lane], ends: Mapping[str, Best], queries: int
) -> list[Found]:
    """Return what is best after so many queries, for every objective, and the ends met."""
    held = {**{lane.objective.name: lane for lane in lanes}, **ends}
    return [
        Found(i, name, queries, None if name in ends else float(best.loss[j]), best.example(j))
        for name, best in held.items()
        for j, i in enumerate(members)
    ]
