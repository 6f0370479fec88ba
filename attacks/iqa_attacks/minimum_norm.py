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
from iqa_attacks.gradients import Asked, Facts, ask, read
from iqa_attacks.learner import EVALUATED, Learner, Lesson
from iqa_attacks.model_state import check_modes, left_as_it_was
from iqa_attacks.results import Ascent, Cost, Example, Found, Targets, ends
from iqa_attacks.settings import Count, NoKey, Positive
from iqa_attacks.threat_model import ThreatModel, measure
from iqa_models import QualityModel

MARGIN = 1e-3
"""Share of its goal by which an example must pass it: scored by other kernels it is beyond it still."""

SURPLUS = 1e-4
"""Share of its goal that a radius is to reach beyond the aim: what misses it by a rounding is missed."""

FIRST_STEP, LAST_STEP = 1.0, 0.02
"""Shares of the radius that a step is long, first and last."""

FIRST_CUT, LAST_CUT = 0.1, 2e-3
"""Shares that the radius stays below the best one found, first and last."""

SHORTEST = 0.25
"""The radius shrinks to no less than this share of the size at hand, however far a goal was passed."""

NEAR, REFINEMENTS = 0.9, 6
"""At the end the radius is halved in on along the way from the clean image to the best example: from this
share of its size, so many times."""

LONGER = (1.01, 1.03, 1.1)
"""Shares of its size tried of an example that passed its goal on a copy of the model and not on itself."""

NEARLY = 1e-3
"""Of a grey level: what float32 makes of a whole one."""

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
        if not images:
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
        together = max(1, TOGETHER * chunk)
        for members in targets.by_size():
            for first in range(0, len(members), together):
                part = members[first : first + together]
                tasks = _tasks(part, goals)
                hunt = _Hunt(self, model, targets, part, tasks, chunk)
                outcomes = dict(zip(tasks, hunt.run(), strict=True))
                for i, spent in zip(part, hunt.spent.tolist(), strict=True):
                    cost[i, self.steps] = Cost(*spent)
                    found += self._found(i, targets, goals, outcomes)
        return Ascent(sorted(found, key=lambda f: (f.image, f.objective, f.steps)), cost)

    def _found(
        self, i: int, targets: Targets, goals: Mapping[str, Tensor], outcomes: Mapping[_Task, _Outcome]
    ) -> list[Found]:
        """Return the entries of one image: of every objective the nearer way's, and the scores' ends."""
        clean = Example(targets.images[i].clone(), float(targets.clean[i]), 0, 0)
        found = []
        for name, amounts in goals.items():
            ways = [task for task in _tasks([i], {name: amounts}) if task in outcomes]
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

    def _search_by(
        self, copy: QualityModel, model: QualityModel, targets: Targets, draws: int | None, chunk: int
    ) -> Ascent:
        """Search on a copy; what does not reach its goal on the model itself is lengthened a little."""
        found = super()._search_by(copy, model, targets, draws, chunk)
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
        return -moved >= fall or moved >= rise

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


class _Task(NamedTuple):
    """A score to be moved one way."""

    image: int
    way: int
    """1 up, -1 down."""
    amount: float
    """By how much, above 0."""


def _tasks(images: Sequence[int], goals: Mapping[str, Tensor]) -> list[_Task]:
    """Return the distinct tasks of images; what several objectives ask for is done once."""
    return list(
        dict.fromkeys(
            _Task(i, way, amount)
            for i in images
            for amounts in goals.values()
            for way, amount in zip((-1, 1), amounts[i].tolist(), strict=True)
            if 0 < amount < math.inf and bool((amounts[i] > 0).all())
        )
    )


class _Outcome(NamedTuple):
    """What came of a task."""

    loss: float
    """Minus the size of the example if it reaches the goal, else lower than -epsilon."""
    example: Example
    lowest: Example
    highest: Example


class _Kept:
    """The best of some tasks so far, and the ends of their scores, the start left out; (P, C, H, W) each."""

    def __init__(self, clean: Tensor, scores: Tensor, way: Tensor, amount: Tensor) -> None:
        self.clean, self.start, self.way = clean, scores, way
        self.amount, self.aim = amount, amount * (1 + MARGIN)
        self.size = torch.full_like(scores, math.inf)
        """(P,) float64: the smallest that reached the aim."""
        self._stacks = [clean.clone() for _ in range(3)]
        self._scores = [scores.clone(), torch.full_like(scores, math.inf), torch.full_like(scores, -math.inf)]
        self._steps = [torch.zeros(len(scores), dtype=torch.long) for _ in range(3)]

    def look(self, rows: Tensor, shown: Tensor, scores: Tensor, sizes: Tensor, step: int) -> Tensor:
        """Take in versions of the tasks `rows`; return which reach their aim (B,)."""
        reach = self.way[rows] * (scores - self.start[rows]) >= self.aim[rows]
        moved = sizes > 0
        better = (
            reach & (sizes < self.size[rows]),
            moved & (scores < self._scores[1][rows]),
            moved & (scores > self._scores[2][rows]),
        )
        self.size[rows[better[0]]] = sizes[better[0]]
        for k, which in enumerate(better):
            places = which.nonzero().flatten()
            if len(places):
                own = rows[places]
                self._stacks[k][own.to(shown.device)] = shown[places.to(shown.device)]
                self._scores[k][own] = scores[places]
                self._steps[k][own] = step
        return reach

    @property
    def best(self) -> Tensor:
        """Of the tasks without one the clean images."""
        return self._stacks[0]

    def outcomes(self, epsilon: float) -> list[_Outcome]:
        """Return what came of each task."""
        made = []
        for p in range(len(self.way)):
            best, lowest, highest = (self._example(k, p) for k in range(3))
            far = highest if self.way[p] > 0 else lowest
            share = float(self.way[p]) * (far.score - float(self.start[p])) / float(self.amount[p])
            if math.isfinite(float(self.size[p])):
                made.append(_Outcome(-float(self.size[p]), best, lowest, highest))
            else:  # the aim lies a little beyond the goal: what is between the two misses it
                made.append(_Outcome(-epsilon * (2 - min(share, 1 - MARGIN)), far, lowest, highest))
        return made

    def _example(self, k: int, p: int) -> Example:
        score = float(self._scores[k][p])
        if not math.isfinite(score):  # nothing but the clean image was met
            return Example(self.clean[p].clone(), float(self.start[p]), 0, 0)
        return Example(self._stacks[k][p].clone(), score, 0, int(self._steps[k][p]))


class _Hunt:
    """The search on some images of one size, all their tasks together."""

    def __init__(
        self,
        attack: MinimumNorm,
        model: QualityModel,
        targets: Targets,
        members: Sequence[int],
        tasks: Sequence[_Task],
        chunk: int,
    ) -> None:
        self.attack, self.model, self.chunk = attack, model, chunk
        self.ids = [targets.ids[i] for i in members]
        self.images = torch.stack([targets.images[i] for i in members])
        place = {i: row for row, i in enumerate(members)}
        self.image = torch.tensor([place[task.image] for task in tasks], dtype=torch.long)
        """(P,) long: the row of each task's image."""
        way, amount = (
            torch.tensor(values, dtype=torch.float64)
            for values in ([task.way for task in tasks], [task.amount for task in tasks])
        )
        scores = targets.clean[torch.tensor(members)][self.image]
        self.kept = _Kept(self.images[self.image.to(self.images.device)], scores, way, amount)
        self.spent = torch.zeros(len(members), 3, dtype=torch.long)

    @property
    def threat(self) -> ThreatModel:
        """Of the attack."""
        return self.attack.threat

    def run(self) -> list[_Outcome]:
        """Take all steps, then close in on the radius; one outcome a task."""
        if not len(self.image):
            return []
        self._descend()
        self._close_in()
        return self.kept.outcomes(self.threat.epsilon)

    def _descend(self) -> None:
        """Take all steps, from the clean images on."""
        kept, clean, every = self.kept, self.kept.clean, torch.arange(len(self.image))
        at = shown = clean
        radii = sizes = torch.zeros_like(kept.size)
        for step in range(self.attack.steps):
            facts, slopes = self._gradients(shown, first=step == 0)
            reach = kept.look(every, shown, facts.scores, sizes, step)
            towards = slopes * kept.way.to(slopes).view(-1, 1, 1, 1)
            # Pixels at the end of the box move no further: neither the slope nor the step is theirs.
            towards = towards * torch.where(towards > 0, at < 1, at > 0)
            along = self.threat.direction(towards)
            steep = (towards.double() * along.double()).flatten(1).sum(dim=1).cpu()
            done = step / max(1, self.attack.steps - 1)
            missing = kept.aim + SURPLUS * kept.amount - kept.way * (facts.scores - kept.start)
            radii = self._radii(
                torch.where(reach, sizes, radii), missing, steep, FIRST_CUT * (LAST_CUT / FIRST_CUT) ** done
            )
            length = radii * (FIRST_STEP * (LAST_STEP / FIRST_STEP) ** done)
            at = at + length.to(at).view(-1, 1, 1, 1) * along
            at = self.threat.project(at, clean, radii.to(at.device))
            shown, sizes = self._shown(at, clean, radii)
        facts = self._scores(every, shown)
        kept.look(every, shown, facts.scores, sizes, self.attack.steps)

    def _radii(self, radii: Tensor, missing: Tensor, steep: Tensor, cut: float) -> Tensor:
        """Return the radii (P,) to search next: Newton's, below the best found and inside epsilon."""
        newton = torch.where(steep > 0, radii + missing / steep, torch.full_like(radii, math.inf))
        newton = torch.maximum(newton, SHORTEST * radii)
        limit = torch.where(self.kept.size.isinf(), self.threat.epsilon, self.kept.size * (1 - cut))
        if self.threat.pixels == "8bit" and self.threat.norm == "inf":  # whole levels, at least one
            newton, limit = ((newton * 255 - NEARLY).ceil() / 255, (limit * 255 + NEARLY).floor() / 255)
            return torch.minimum(newton, limit).clamp(1 / 255, self.threat.epsilon)
        return torch.minimum(newton, limit).clamp(1e-9 * self.threat.epsilon, self.threat.epsilon)

    def _shown(self, at: Tensor, clean: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the model is shown of where the search is, and its sizes (P,)."""
        shown = at
        if self.threat.pixels == "8bit":
            shown = self.threat.admit(at, clean, radii.to(at.device), checked=True)
        return shown, self.threat.size(measure(shown, clean)).cpu()

    def _gradients(self, shown: Tensor, *, first: bool) -> tuple[Facts, Tensor]:
        """Return scores and slopes of every task; at the clean images those of an image are one."""
        asked_of = torch.unique(self.image) if first else self.image
        asked = self._ask(self.images[asked_of.to(shown.device)] if first else shown, asked_of, gradient=True)
        assert asked.gradients is not None  # noqa: S101 - asked for
        facts = self._read(asked, asked_of)
        for column, rows in ((0, asked_of), (1, asked_of), (2, asked_of[facts.zero])):
            self._count(column, rows)
        if not first:
            return facts, asked.gradients
        rows = torch.searchsorted(asked_of, self.image)
        return Facts(facts.scores[rows], facts.zero[rows]), asked.gradients[rows.to(shown.device)]

    def _scores(self, rows: Tensor, shown: Tensor) -> Facts:
        asked = self._ask(shown, self.image[rows], gradient=False)
        self._count(0, self.image[rows])
        return self._read(asked, self.image[rows])

    def _ask(self, shown: Tensor, images: Tensor, *, gradient: bool) -> Asked:
        with naming([self.ids[i] for i in images.tolist()]):
            return ask(self.model, shown, chunk=self.chunk, gradient=gradient)

    def _read(self, asked: Asked, images: Tensor) -> Facts:
        with naming([self.ids[i] for i in images.tolist()]):
            return read(self.model, [asked.numbers])

    def _count(self, column: int, images: Tensor) -> None:
        self.spent[:, column] += torch.bincount(images, minlength=len(self.spent))

    def _close_in(self) -> None:
        """Shorten the best examples, by halves, as far as they still reach their aim."""
        rows = self.kept.size.isfinite().nonzero().flatten()
        if not len(rows):
            return
        device = self.kept.clean.device
        best, clean = (stack[rows.to(device)].clone() for stack in (self.kept.best, self.kept.clean))
        high = self.kept.size[rows]
        low, middle = torch.zeros_like(high), NEAR * high
        for _ in range(1 + REFINEMENTS):
            at = self.threat.project(best, clean, middle.to(device))
            shown, sizes = self._shown(at, clean, middle)
            scores = self._scores(rows, shown).scores
            reach = self.kept.look(rows, shown, scores, sizes, self.attack.steps)
            high, low = torch.where(reach, middle, high), torch.where(reach, low, middle)
            middle = (low + high) / 2
