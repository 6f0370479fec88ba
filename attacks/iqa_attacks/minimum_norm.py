"""The smallest radius that moves a score by a given amount, or turns a pair round: no epsilon to choose.

Steps along the gradient alternate with a choice of the radius, as in the fast minimum-norm attacks of Pintor
et al. (NeurIPS 2021) and DDN (Rony et al., CVPR 2019). Those lengthen and shorten the radius by a share that
falls. A score says more than a class does: by how much the goal is missed or passed. At the best point of a
ball the reachable score grows with the radius by the dual norm of the gradient, so the radius is chosen by
Newton's method, and the falling share is how far it must stay below the best that was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.attack import AttackResult, Effort, stored_score
from iqa_attacks.catalogue import register_attack
from iqa_attacks.engine.batches import batches
from iqa_attacks.errors import AttackError, AttackFailed, naming
from iqa_attacks.learner import EVALUATED, Learner, Lesson
from iqa_attacks.model_state import check_modes, left_as_it_was
from iqa_attacks.radius_search import MARGIN, Hunt, Outcome, Task, tasks_of
from iqa_attacks.results import Ascent, Cost, Example, Found, Targets, by_size, ends
from iqa_attacks.settings import Count, NoKey, Positive
from iqa_attacks.threat_model import measure
from iqa_models import QualityModel

LONGER = (1.01, 1.03, 1.1)
"""Shares of its size tried of an example that passed its goal on a copy of the model and not on itself."""

TOGETHER = 4
"""Images searched together, as a multiple of the images in a pass."""


class Radius(NamedTuple):
    """What was found of one image and objective."""

    image: int
    """Index of the image in the attacked sequence."""
    objective: str
    radius: float | None
    """Smallest size found that reaches the goal, in the attack's norm; None where none up to the threat
    model's epsilon was: the true one is cut off there, not known to be larger."""
    example: Example
    """Of that size; without one the one that came nearest to the goal."""
    gradients: int
    """Spent on the image, for all objectives together."""


@register_attack
@dataclass(frozen=True, kw_only=True)
class MinimumNorm(Learner):
    """The smallest change of an image that reaches a goal, up to the threat model's epsilon.

    The goal of `raise` and `lower` is a score so many interquartile ranges up or down, of `drift` the nearer
    of the two, of `pairwise_inversion` to turn the image's nearest pair round that is in the right order: by
    its own move, up or down, past another image of its batch. An image that is there already has radius 0.

    The loss is minus the size of an example that reaches its goal; one below -epsilon is of an example that
    does not. With pixels of 8 bits every iterate is rounded before it is judged, so what is found is what a
    file holds. A stochastic model is refused: its smallest radius would be that of lucky draws.
    """

    kind = "minimum_norm"
    follows_gradients = True
    only_objectives = ("raise", "lower", "drift", "pairwise_inversion")
    steps: Count
    """Gradients for each way a score is to go, from the clean image on: no other start found less."""
    goal: Positive = 1.0
    """How far, in interquartile ranges of the clean scores of all images under attack."""
    spread: Annotated[float | None, Field(gt=0, allow_inf_nan=False), NoKey()] = None
    """The interquartile range, on the model's own scale; what `trained` finds. `pairwise_inversion` alone
    needs none."""

    @property
    def effort(self) -> Effort:
        """Steps; no step size, which follows the radius, and one start."""
        return Effort(self.steps, 0.0, 1)

    @property
    def lesson(self) -> Lesson:
        """All images under attack: their clean scores are what the goal is measured in."""
        return Lesson(EVALUATED, None)

    @property
    def losses_follow_scores(self) -> bool:
        """No: they are of sizes."""
        return False

    def trained(
        self, model: QualityModel, images: Sequence[Tensor], ids: Sequence[str], *, chunk: int = 8
    ) -> MinimumNorm:
        """Return the attack with the interquartile range of the images' clean scores, as they are stored.

        Raises:
            AttackError: no images, or a stochastic model.
            AttackFailed: half of the scores are equal, so that there is no such range.
        """
        if not len(images):
            raise AttackError(f"{self.kind}: no images to take the spread of scores from")
        self._require_repeatable(model)
        check_modes(model)
        scores = []
        with torch.inference_mode(False), left_as_it_was(model):
            for image, image_id in zip(images, ids, strict=True):
                with naming([image_id]):
                    scores.append(stored_score(model, image, seed=self.seed, image_id=image_id, draws=None))
        spread = spread_of(torch.tensor(scores, dtype=torch.float64))
        if not spread > 0:
            raise AttackFailed(
                f"{model.spec.name}: half of the clean scores are equal: they have no interquartile range "
                "to set a goal by"
            )
        return replace(self, spread=spread)

    def _require_repeatable(self, model: QualityModel) -> None:
        if model.is_stochastic:
            raise AttackError(
                f"{self.kind}: {model.spec.name} is stochastic: its smallest radius would be that of the "
                "luckiest draws"
            )

    def goals(self, clean: Tensor, mos: Tensor) -> dict[str, Tensor]:
        """Return by objective how far scores must fall and rise, (n, 2): 0 for no way at all, inf for never.

        Args:
            clean: (n,) float64 clean scores on the model's own scale, in evaluation order.
            mos: (n,) labels on any scale, higher is better.

        Raises:
            AttackError: the attack is not `trained`, and needs to be.
        """
        return {
            objective.name: self._goal(objective.name, clean, mos) for objective in self.create_objectives()
        }

    def _goal(self, objective: str, clean: Tensor, mos: Tensor) -> Tensor:
        if objective == "pairwise_inversion":
            return torch.cat([_nearest_pairs(clean[b], mos[b]) for b in batches(len(clean), self.batch)])
        if self.spread is None:
            raise AttackError(f"{self.kind}: train it first: attack.trained(model, images, ids).run(...)")
        far, never = self.goal * self.spread, math.inf
        ways = {"lower": (far, never), "raise": (never, far), "drift": (far, far)}[objective]
        return torch.tensor(ways, dtype=torch.float64).repeat(len(clean), 1)

    def radii(self, result: AttackResult) -> list[Radius]:
        """Return what a run of this attack found, one entry an (image, objective)."""
        found = []
        for each in result.found:
            if each.loss is not None:
                size = None if self._missed(each.loss) else -each.loss
                spent = result.cost[each.image, each.steps].backwards
                found.append(Radius(each.image, each.objective, size, each.example, spent))
        return found

    def _missed(self, loss: float) -> bool:
        # A size may pass epsilon by a rounding; what misses its goal is below by a share of the goal.
        return loss < -self.threat.epsilon * (1 + MARGIN / 2)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Search every way that an objective's goal lies, images of one size together."""
        self._require_repeatable(model)
        goals = self.goals(targets.clean, targets.mos)
        found: list[Found] = []
        cost: dict[tuple[int, int], Cost] = {}
        for part in by_size(targets.images, max(1, TOGETHER * chunk)):
            tasks = tasks_of(part, goals)
            hunt = Hunt(model, targets, part, tasks, self.threat, self.steps, chunk)
            outcomes = dict(zip(tasks, hunt.run(), strict=True))
            for i, spent in zip(part, hunt.spent.tolist(), strict=True):
                cost[i, self.steps] = Cost(*spent)
                found += self._found(i, targets, goals, outcomes)
        return Ascent(sorted(found, key=lambda f: (f.image, f.objective, f.steps)), cost)

    def _found(
        self, i: int, targets: Targets, goals: Mapping[str, Tensor], outcomes: Mapping[Task, Outcome]
    ) -> list[Found]:
        """Return the entries of one image: of every objective the nearer way's, and the scores' ends."""
        clean = Example(targets.images[i].clone(), float(targets.clean[i]), 0, 0)
        found = []
        for name, amounts in goals.items():
            ways = [task for task in tasks_of([i], {name: amounts}) if task in outcomes]
            if bool((amounts[i] <= 0).any()):
                found.append(Found(i, name, self.steps, 0.0, clean))
            elif ways:
                best = max((outcomes[task] for task in ways), key=lambda outcome: outcome.loss)
                found.append(Found(i, name, self.steps, best.loss, best.example))
            else:
                found.append(Found(i, name, self.steps, -2 * self.threat.epsilon, clean))
        met = [
            example for task, o in outcomes.items() if task.image == i for example in (o.lowest, o.highest)
        ]
        return [*found, *ends(i, self.steps, [*met, *(f.example for f in found)])]

    def _settled(self, found: Ascent, model: QualityModel, targets: Targets) -> Ascent:
        """Lengthen a little what a copy found and does not reach its goal on the model itself."""
        goals = self.goals(targets.clean, targets.mos)
        kept: list[Found] = []
        for each in found.found:
            if each.loss is None or self._missed(each.loss) or self._reaches(each, targets, goals):
                kept.append(each)
                continue
            longer, asked = self._lengthened(each, model, targets, goals)
            key = each.image, each.steps
            found.cost[key] = found.cost[key].plus(Cost(asked, 0, 0))
            kept.append(longer)
        return Ascent(kept, found.cost)

    def _reaches(self, found: Found, targets: Targets, goals: Mapping[str, Tensor]) -> bool:
        fall, rise = goals[found.objective][found.image].tolist()
        moved = found.example.score - float(targets.clean[found.image])
        return bool(-moved >= fall or moved >= rise)

    def _lengthened(
        self, found: Found, model: QualityModel, targets: Targets, goals: Mapping[str, Tensor]
    ) -> tuple[Found, int]:
        """Return the first longer version that reaches its goal, or a miss; and how many were asked."""
        assert found.loss is not None  # noqa: S101 - the caller's
        clean = targets.images[found.image].unsqueeze(0)
        change = found.example.pixels.unsqueeze(0) - clean
        for asked, share in enumerate(LONGER, start=1):
            radius = min(-found.loss * share, self.threat.epsilon)
            pixels = self.threat.admit(
                clean + share * change,
                clean,
                torch.tensor([radius], dtype=torch.float64, device=clean.device),
            )
            score = self.score_of(model, pixels[0], targets.ids[found.image], ("score",), None)
            size = float(self.threat.size(measure(pixels, clean)))
            longer = found._replace(loss=-size, example=found.example._replace(pixels=pixels[0], score=score))
            if self._reaches(longer, targets, goals):
                return longer, asked
        return found._replace(loss=-2 * self.threat.epsilon), len(LONGER)


def spread_of(scores: Tensor) -> float:
    """Return the interquartile range of scores (n,) float64."""
    low, high = torch.quantile(scores, torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    return float(high - low)


def _nearest_pairs(clean: Tensor, mos: Tensor) -> Tensor:
    """Return how far each score (n,) must fall and rise to turn round its nearest pair in the right order.

    0 both ways where an image has pairs, none of them in the right order; inf both ways where it has none.
    """
    better, higher = mos.unsqueeze(1) > mos, clean.unsqueeze(1) > clean
    apart = (clean.unsqueeze(1) - clean).abs()
    never = torch.full_like(apart, math.inf)
    fall = torch.where(better & higher, apart, never).amin(dim=1)
    rise = torch.where((better & higher).T, apart, never).amin(dim=1)
    done = (better | better.T).any(dim=1) & fall.isinf() & rise.isinf()
    return torch.stack([fall, rise], dim=1).masked_fill(done.unsqueeze(1), 0.0)
