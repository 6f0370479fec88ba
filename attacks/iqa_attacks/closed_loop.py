"""The closed-loop set adversary: what the assignment wants of every image is what is attacked next.

The composed worst case chooses among what attacks happened to find. Here the choice comes first: which images
of the set must go up, which down and to which score, if every score between the ends reached so far can be
had (an image between two admissible ones is admissible, and a score in between is met on the way). Gradients
go to the images of which the set's correlation gains most, and the assignment is made anew, round by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.assignment import Choice, Vector, judge_of, lowest_choice
from iqa_attacks.attack import Attack, Effort
from iqa_attacks.catalogue import register_attack
from iqa_attacks.errors import naming
from iqa_attacks.gradients import Facts, ask_mean, read
from iqa_attacks.results import Ascent, Cost, Example, Found, Targets, by_size, ends
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.settings import Count, Positive
from iqa_models import QualityModel

Metric = Literal["srocc", "plcc"]

TOGETHER = 8
"""Images worked on together, as a multiple of those in a pass: what is held beside the set stays small."""
GRID = 512
"""Scores that assignments are made on, at the most, beside every image's own ends."""
BETWEEN = 3
"""Scores of that grid between two neighbouring ends."""
AGAIN = 0.5
"""First step of a visit that goes on from the best iterate, in radii."""
STALLED = 0.02
"""Part of all that was gained on an image below which a visit has stalled: the next has a fresh start."""
LATER = 0.25
"""Part of what the first visit of an image gained that the second is expected to, before there was one."""
FRESH = 0.05
"""Part of it that a fresh start is expected to add."""
APPROACHES = 10
"""Evaluations of an image on its way to a score between two known ones, at the most."""
NEAR = 0.2
"""How near it must come, as a part of the distance to the next score of the assignment."""


@register_attack
@dataclass(frozen=True, kw_only=True)
class ClosedLoop(Attack):
    """An adversary of the whole set: the lowest SROCC or PLCC that so many gradients an image can reach.

    Every image is visited once, upwards below the median label and else downwards. Then, round by round: find
    the scores that make the set's correlation lowest, once within what is reached and once within what one
    more visit of every image should reach; visit those that the second needs, where the set gains most. It
    ends when nothing is to be gained, or steps x restarts gradients an image are spent, on average and for
    each objective. Then every image is brought to its score of the last assignment.

    `plcc` is Pearson's of raw scores: an attack knows no logistic. Images and two ends of each are held until
    the end, the whole set of them.
    """

    kind = "closed_loop"
    whole_set = True
    follows_gradients = True
    only_objectives = ("srocc", "plcc")
    steps: Count
    """Gradient steps of a visit, their length falling linearly to 0."""
    restarts: Count = 4
    """Visits an image, on average; an image has at most so many fresh starts in a direction."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Part of the images that are visited in a round: those of which the set gains most."""
    least_gain: Positive = 0.0001
    """Expected gain of a round, in the set's correlation, below which nothing is to be gained."""

    @property
    def effort(self) -> Effort:
        """Steps of a visit, the first one of them, visits on average."""
        return Effort(self.steps, self.threat.epsilon, self.restarts)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Close the loop for each objective; visits that two of them make are made once."""
        visits = _Visits(self, model, targets, draws, chunk)
        chosen = {o.name: _Loop(self, visits, cast("Metric", o.name)).run() for o in self.create_objectives()}
        found = []
        for i, met in enumerate(visits.examples()):
            own = [examples[i] for examples, _ in chosen.values()]
            for (name, (_, value)), example in zip(chosen.items(), own, strict=True):
                found.append(Found(i, name, self.steps, -value, example))
            found += ends(i, self.steps, [*own, *met])
        cost = {(i, self.steps): Cost(*row) for i, row in enumerate(visits.spent.tolist())}
        return Ascent(found, cost)


class _Visit(NamedTuple):
    """What is known of one image in one direction after a visit."""

    best: Example
    """Of all visits so far, the clean image included."""
    gain: float
    """What this visit added."""
    restart: int
    """Fresh starts before this visit's end, the first one not counted."""


Stop = tuple[int, bool, int]
"""An image, whether upwards, and which of its visits that way."""


class _Visits:
    """Visits of images, each made once, a function of what came before it on that image and way alone."""

    def __init__(
        self, attack: ClosedLoop, model: QualityModel, targets: Targets, draws: int | None, chunk: int
    ) -> None:
        self.attack, self.model, self.targets, self.draws, self.chunk = attack, model, targets, draws, chunk
        self.clean = [
            Example(image, float(score), 0, 0)
            for image, score in zip(targets.images, targets.clean, strict=True)
        ]
        self.made: dict[Stop, _Visit] = {}
        self.spent = torch.zeros(len(targets.images), 3, dtype=torch.long)

    def before(self, stop: Stop) -> _Visit:
        """Return the visit before one; before the first there is the clean image."""
        image, up, number = stop
        return self.made[image, up, number - 1] if number else _Visit(self.clean[image], 0.0, 0)

    def examples(self) -> list[list[Example]]:
        """Return of every image the best of every visit, and the image itself."""
        found = [[example] for example in self.clean]
        for (image, _, _), visit in self.made.items():
            found[image].append(visit.best)
        return found

    def stalled(self, stop: Stop) -> bool:
        """Whether the visit before one added hardly anything and there may be another start."""
        last = self.before(stop)
        climbed = abs(last.best.score - self.clean[stop[0]].score)
        return bool(stop[2] and last.gain <= STALLED * climbed and last.restart + 1 < self.attack.restarts)

    def make(self, stops: Sequence[Stop]) -> None:
        """Make those visits that are not made yet."""
        new = [stop for stop in stops if stop not in self.made]
        for places in self.parts([image for image, _, _ in new]):
            self._climb([new[place] for place in places])

    def parts(self, images: Sequence[int]) -> list[list[int]]:
        """Return places of images that are worked on together: of one size, and a few passes of them."""
        return by_size([self.targets.images[image] for image in images], TOGETHER * self.chunk)

    def _climb(self, stops: Sequence[Stop]) -> None:
        """Step from the best iterate, or a fresh start, towards the wanted end; images of one size."""
        threat, steps = self.attack.threat, self.attack.steps
        images = [image for image, _, _ in stops]
        clean = torch.stack([self.targets.images[i] for i in images])
        sign = torch.tensor([1.0 if up else -1.0 for _, up, _ in stops], dtype=torch.float64)
        before = [self.before(stop) for stop in stops]
        fresh = [self.stalled(stop) for stop in stops]
        restarts = [visit.restart + new for visit, new in zip(before, fresh, strict=True)]
        first = [1.0 if new or not stop[2] else AGAIN for new, stop in zip(fresh, stops, strict=True)]
        length = (sign * torch.tensor(first, dtype=torch.float64) * threat.epsilon).to(clean)
        at = torch.stack([
            self._fresh(stop, restart) if new else visit.best.pixels
            for stop, restart, new, visit in zip(stops, restarts, fresh, before, strict=True)
        ])  # fmt: skip
        best = [visit.best for visit in before]
        for step in range(steps + 1):
            shown = threat.admit(at, clean)
            facts, gradients = self.ask(shown, images, restarts, step, gradient=step < steps)
            better = sign * facts.scores > sign * torch.tensor([b.score for b in best], dtype=torch.float64)
            for j in better.nonzero().flatten().tolist():
                best[j] = Example(shown[j].clone(), float(facts.scores[j]), restarts[j], step)
            if gradients is not None:
                move = (length * (1 - step / steps)).view(-1, 1, 1, 1) * threat.direction(gradients)
                at = threat.project(at + move, clean)
        for j, stop in enumerate(stops):
            gain = abs(best[j].score - before[j].best.score)
            self.made[stop] = _Visit(best[j], gain, restarts[j])

    def _fresh(self, stop: Stop, restart: int) -> Tensor:
        image, up, _ = stop
        generator = start_generator(self.attack.seed, self.targets.ids[image], 2 * restart + up)
        return self.attack.threat.random_start(self.targets.images[image], generator)

    def ask(
        self, shown: Tensor, images: Sequence[int], restarts: Sequence[int], step: int, *, gradient: bool
    ) -> tuple[Facts, Tensor | None]:
        """Return scores (B,) of versions of images of one size and, if wanted, gradients; all counted."""
        ids = [self.targets.ids[i] for i in images]
        with naming(ids):
            seeds = None
            if self.draws is not None:
                moments = zip(ids, restarts, strict=True)
                seeds = [draw_seeds(self.attack.seed, name, (r, step), self.draws) for name, r in moments]
            asked = ask_mean(self.model, shown, seeds, chunk=self.chunk, gradient=gradient)
            facts = read(self.model, [asked.numbers], self.draws or 1)
        rows = torch.tensor(images)
        count = torch.tensor([[1, int(gradient), 0]]).expand(len(images), -1).clone()
        count[:, 2] = facts.zero
        self.spent.index_add_(0, rows, count * (self.draws or 1))
        return facts, asked.gradients


class _Version(NamedTuple):
    """An image between the clean one and an end that was reached."""

    score: float
    end: Example
    part: float
    """Of the way, 0 for the clean image."""


class _Loop:
    """The rounds of one objective."""

    def __init__(self, attack: ClosedLoop, visits: _Visits, metric: Metric) -> None:
        targets = visits.targets
        self.attack, self.visits, self.targets, self.metric = attack, visits, targets, metric
        self.mos, self.clean = targets.mos.numpy(), targets.clean.numpy()
        self.count = len(self.mos)
        self.defined = self.count > 2 and np.ptp(self.mos) > 0
        """Whether an assignment has a correlation."""
        self.left = self.count * attack.restarts
        """Visits that may still be made."""
        self.done: dict[tuple[int, bool], int] = {}
        """Visits by image and way."""

    def run(self) -> tuple[list[Example], float]:
        """Go round until nothing is gained or left; return an example an image, and their correlation."""
        rising = self.mos < np.median(self.mos)
        wanted = [(i, bool(up)) for i, up in enumerate(rising)] if self.defined else []
        while wanted and self.left:
            wanted = wanted[: self.left]
            self.left -= len(wanted)
            self.visits.make([(*way, self.done.get(way, 0)) for way in wanted])
            for way in wanted:
                self.done[way] = self.done.get(way, 0) + 1
            wanted = self._wanted()
        return self._settle()

    def _end(self, image: int, up: bool) -> _Visit:
        return self.visits.before((image, up, self.done.get((image, up), 0)))

    def _reached(self) -> tuple[Vector, Vector]:
        """Return the lowest and the highest score (n,) reached."""
        low, high = (
            np.array([self._end(i, up).best.score for i in range(self.count)]) for up in (False, True)
        )
        return low, high

    def _hopes(self) -> tuple[Vector, Vector]:
        """Return how much further (n,) one more visit should bring every image, down and up."""
        firsts = {way: self.visits.made[(*way, 0)].gain for way in self.done}
        again = {way: self.visits.made[(*way, 1)].gain for way, number in self.done.items() if number > 1}
        later = sum(again.values()) / (sum(firsts[way] for way in again) or 1.0) if again else LATER
        first = float(np.median(list(firsts.values())))
        down, rise = (
            np.array([self._hope(i, up, first, later) for i in range(self.count)]) for up in (False, True)
        )
        return down, rise

    def _hope(self, image: int, up: bool, first: float, later: float) -> float:
        number = self.done.get((image, up), 0)
        if not number:
            return first
        last = self._end(image, up)
        if self.visits.stalled((image, up, number)):
            return FRESH * abs(last.best.score - float(self.clean[image])) / (1 + last.restart)
        return later * last.gain if number == 1 else last.gain

    def _wanted(self) -> list[tuple[int, bool]]:
        """Return the images to visit next, and which way; none if nothing is to be gained."""
        low, high = self._reached()
        down, up = self._hopes()
        hoped = _Grid(self.clean, low, high, low - down, high + up)
        judge = judge_of(hoped.candidates, self.mos, self.metric)
        inside = [(c >= a) & (c <= b) for c, a, b in zip(hoped.candidates, low, high, strict=True)]
        first = np.array([mask.argmax() for mask in inside])
        known = [c[mask] for c, mask in zip(hoped.candidates, inside, strict=True)]
        now = lowest_choice(known, self.mos, self.metric) + first
        then = lowest_choice(hoped.candidates, self.mos, self.metric, [now])
        value, better = judge.of(now), judge.of(then)
        if not value - better >= self.attack.least_gain:
            return []
        changes = judge.of_changes(then)
        gains = []
        for i, (mask, candidates) in enumerate(zip(inside, hoped.candidates, strict=True)):
            if not mask[then[i]]:
                without = float(changes[i, : len(mask)][mask].min())
                gains.append((without - better, i, bool(candidates[then[i]] > high[i])))
        gains.sort(key=lambda gain: (-gain[0], gain[1]))
        most = max(1, int(np.ceil(self.attack.share * self.count)))
        return [(i, way) for _, i, way in gains[:most]]

    def _settle(self) -> tuple[list[Example], float]:
        """Bring every image to its score of the last assignment and choose among all that was met."""
        if not self.defined:
            return list(self.visits.clean), 0.0
        low, high = self._reached()
        versions = [
            [
                _Version(float(self.clean[i]), self.visits.clean[i], 0.0),
                *(_Version(end.score, end, 1.0) for up in (False, True) if (end := self._end(i, up).best)),
            ]
            for i in range(self.count)
        ]
        grid = _Grid(self.clean, low, high, low, high)
        choice = lowest_choice(grid.candidates, self.mos, self.metric)
        wanted, near = grid.targets(choice, self.mos, low, high)
        self._approach(versions, wanted, near)
        scores = [np.array([version.score for version in own]) for own in versions]
        nearest = np.array([np.abs(s - t).argmin() for s, t in zip(scores, wanted, strict=True)])
        final = lowest_choice(scores, self.mos, self.metric, [nearest])
        value = judge_of(scores, self.mos, self.metric).of(final)
        examples = [self._example(i, versions[i][k]) for i, k in enumerate(final)]
        return examples, value if np.isfinite(value) else 0.0

    def _approach(self, versions: list[list[_Version]], wanted: Vector, near: Vector) -> None:
        """Evaluate images on the way to an end until their score is near the one that is wanted."""
        ways = {}
        for i, target in enumerate(wanted):
            clean, *_ = versions[i]
            end = self._end(i, bool(target > clean.score)).best
            if min(abs(v.score - target) for v in versions[i]) > near[i]:
                ways[i] = _Way(clean.score - target, end.score - target, end)
        for _ in range(APPROACHES):
            left = list(ways)
            for group in ([left[place] for place in places] for places in self.visits.parts(left)):
                parts = [ways[i].next() for i in group]
                shown = torch.cat(
                    [self._between(i, ways[i].end, p) for i, p in zip(group, parts, strict=True)]
                )
                restarts = [ways[i].end.restart for i in group]
                facts, _ = self.visits.ask(shown, group, restarts, self.attack.steps, gradient=False)
                for i, part, score in zip(group, parts, facts.scores.tolist(), strict=True):
                    versions[i].append(_Version(score, ways[i].end, part))
                    ways[i].take(part, score - wanted[i])
                    if abs(score - wanted[i]) <= near[i]:
                        del ways[i]

    def _between(self, image: int, end: Example, part: float) -> Tensor:
        """Return the image (1, C, H, W) at a part of the way to an end."""
        clean = self.targets.images[image].unsqueeze(0)
        return self.attack.threat.admit(clean + part * (end.pixels.unsqueeze(0) - clean), clean)

    def _example(self, image: int, version: _Version) -> Example:
        if version.part in (0.0, 1.0):
            return version.end
        pixels = self._between(image, version.end, version.part)[0]
        return Example(pixels, version.score, version.end.restart, self.attack.steps)


class _Way:
    """A zero between the clean image and an end, by the Illinois rule: never out of the bracket."""

    def __init__(self, at_clean: float, at_end: float, end: Example) -> None:
        self.end = end
        self.parts, self.values = [0.0, 1.0], [at_clean, at_end]
        self.side = -1

    def next(self) -> float:
        """Return the part of the way to look at next."""
        (a, b), (fa, fb) = self.parts, self.values
        share = fa / (fa - fb) if fa != fb else 0.5
        return a + min(max(share, 0.05), 0.95) * (b - a)

    def take(self, part: float, value: float) -> None:
        """Narrow the bracket by the value found."""
        side = int((value > 0) == (self.values[1] > 0))
        if side == self.side:  # the other end stayed twice: half its value draws the next part nearer to it
            self.values[1 - side] /= 2
        self.parts[side], self.values[side], self.side = part, value, side


class _Grid:
    """Scores that every image may be given: a common grid within its ends, the ends and the clean score."""

    def __init__(self, clean: Vector, low: Vector, high: Vector, lowest: Vector, highest: Vector) -> None:
        stops = np.unique(np.concatenate([clean, low, high, lowest, highest]))
        if len(stops) * (BETWEEN + 1) > GRID:
            stops = np.quantile(stops, np.linspace(0, 1, GRID // (BETWEEN + 1)))
        parts = np.arange(BETWEEN + 1) / (BETWEEN + 1)
        points = np.append((stops[:-1, None] + parts * np.diff(stops)[:, None]).ravel(), stops[-1])
        self.candidates = [
            np.unique(np.concatenate([points[(points >= a) & (points <= b)], own]))
            for a, b, own in zip(
                lowest, highest, np.stack([clean, low, high, lowest, highest], axis=1), strict=True
            )
        ]

    def targets(self, choice: Choice, mos: Vector, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """Return the scores of a choice, equal ones taken apart against labels, and how near to come."""
        wanted = np.array([c[k] for c, k in zip(self.candidates, choice, strict=True)])
        values = np.unique(wanted)
        gap = np.diff(values, prepend=-np.inf, append=np.inf)
        room = np.minimum(gap[:-1], gap[1:]) / 2
        room[~np.isfinite(room)] = np.ptp(values) or 1.0
        near = np.empty_like(wanted)
        for value, space in zip(values, room, strict=True):
            mine = np.flatnonzero(wanted == value)
            order = mine[np.argsort(-mos[mine], kind="stable")]
            offsets = (np.arange(len(mine)) - (len(mine) - 1) / 2) / len(mine) * space
            wanted[order] = np.clip(value + offsets, low[order], high[order])
            near[mine] = NEAR * space / len(mine)
        return wanted, near
