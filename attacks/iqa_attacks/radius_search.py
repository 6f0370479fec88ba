"""How the smallest radius is searched that moves scores by given amounts, many images at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.errors import naming
from iqa_attacks.gradients import Facts, ask, read
from iqa_attacks.results import Best, Example, Targets
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

NEARLY = 1e-3
"""Of a grey level: what float32 makes of a whole one."""


class Task(NamedTuple):
    """A score to be moved one way."""

    image: int
    way: int
    """1 up, -1 down."""
    amount: float
    """By how much, above 0."""


def tasks_of(images: Sequence[int], goals: Mapping[str, Tensor]) -> list[Task]:
    """Return the distinct tasks of images; what several objectives ask for is done once."""
    return list(
        dict.fromkeys(
            Task(i, way, amount)
            for i in images
            for amounts in goals.values()
            for way, amount in zip((-1, 1), amounts[i].tolist(), strict=True)
            if 0 < amount < math.inf and bool((amounts[i] > 0).all())
        )
    )


class Outcome(NamedTuple):
    """What came of a task."""

    loss: float
    """Minus the size of the example if it reaches the goal, else lower than -epsilon."""
    example: Example
    lowest: Example
    highest: Example


class Kept:
    """The best of some tasks so far, and the ends of their scores, the start left out."""

    def __init__(self, clean: Tensor, scores: Tensor, way: Tensor, amount: Tensor) -> None:
        self.clean, self.start, self.way = clean, scores, way
        self.amount, self.aim = amount, amount * (1 + MARGIN)
        self.best, self.lowest, self.highest = (Best(clean) for _ in range(3))

    @property
    def size(self) -> Tensor:
        """(P,) float64: the smallest that reached the aim, inf for none."""
        return -self.best.loss

    def look(self, rows: Tensor, shown: Tensor, scores: Tensor, sizes: Tensor, step: int) -> Tensor:
        """Take in versions of the tasks `rows`; return which reach their aim (B,)."""
        reach = self.way[rows] * (scores - self.start[rows]) >= self.aim[rows]
        wanted = (
            (self.best, reach, -sizes),
            (self.lowest, sizes > 0, -scores),
            (self.highest, sizes > 0, scores),
        )
        for kept, counts, loss in wanted:
            kept.take(shown, torch.where(counts, loss, -torch.inf), scores, step, rows)
        return reach

    def outcomes(self, epsilon: float) -> list[Outcome]:
        """Return what came of each task."""
        made = []
        for p, (size, way) in enumerate(zip(self.size.tolist(), self.way.tolist(), strict=True)):
            lowest, highest = self._end(self.lowest, p), self._end(self.highest, p)
            if math.isfinite(size):
                made.append(Outcome(-size, self.best.example(p), lowest, highest))
            else:  # the aim lies a little beyond the goal: what is between the two misses it
                far = highest if way > 0 else lowest
                share = way * (far.score - float(self.start[p])) / float(self.amount[p])
                made.append(Outcome(-epsilon * (2 - min(share, 1 - MARGIN)), far, lowest, highest))
        return made

    def _end(self, kept: Best, p: int) -> Example:
        if math.isfinite(float(kept.loss[p])):
            return kept.example(p)
        return Example(self.clean[p].clone(), float(self.start[p]), 0, 0)  # nothing else was met


class Hunt:
    """The search on some images of one size, all their tasks together."""

    def __init__(
        self,
        model: QualityModel,
        targets: Targets,
        members: Sequence[int],
        tasks: Sequence[Task],
        threat: ThreatModel,
        steps: int,
        chunk: int,
    ) -> None:
        """Take what is searched.

        Args:
            model: in eval mode.
            targets: images and clean scores.
            members: indices of the images, all of one size.
            tasks: of these images.
            threat: its epsilon is the largest radius.
            steps: gradients a task.
            chunk: images in one pass.
        """
        self.model, self.threat, self.steps, self.chunk = model, threat, steps, chunk
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
        self.kept = Kept(self.images[self.image.to(self.images.device)], scores, way, amount)
        self.spent = torch.zeros(len(members), 3, dtype=torch.long)

    def run(self) -> list[Outcome]:
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
        for step in range(self.steps):
            facts, slopes = self._gradients(shown, first=step == 0)
            reach = kept.look(every, shown, facts.scores, sizes, step)
            towards = slopes * kept.way.to(slopes).view(-1, 1, 1, 1)
            # Pixels at the end of the box move no further: neither the slope nor the step is theirs.
            towards = towards * torch.where(towards > 0, at < 1, at > 0)
            along = self.threat.direction(towards)
            steep = (towards.double() * along.double()).flatten(1).sum(dim=1).cpu()
            done = step / max(1, self.steps - 1)
            missing = kept.aim + SURPLUS * kept.amount - kept.way * (facts.scores - kept.start)
            radii = self._radii(
                torch.where(reach, sizes, radii), missing, steep, FIRST_CUT * (LAST_CUT / FIRST_CUT) ** done
            )
            length = radii * (FIRST_STEP * (LAST_STEP / FIRST_STEP) ** done)
            at = at + length.to(at).view(-1, 1, 1, 1) * along
            at = self.threat.project(at, clean, radii.to(at.device))
            shown, sizes = self._shown(at, clean, radii)
        facts, _ = self._ask(shown, self.image, gradient=False)
        kept.look(every, shown, facts.scores, sizes, self.steps)

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
        versions = self.images[asked_of.to(shown.device)] if first else shown
        facts, slopes = self._ask(versions, asked_of, gradient=True)
        assert slopes is not None  # noqa: S101 - asked for
        if not first:
            return facts, slopes
        rows = torch.searchsorted(asked_of, self.image)
        return Facts(facts.scores[rows], facts.zero[rows]), slopes[rows.to(shown.device)]

    def _ask(self, shown: Tensor, images: Tensor, *, gradient: bool) -> tuple[Facts, Tensor | None]:
        """Return scores and, if wanted, slopes of versions of images; all counted."""
        with naming([self.ids[i] for i in images.tolist()]):
            asked = ask(self.model, shown, chunk=self.chunk, gradient=gradient)
            facts = read(self.model, [asked.numbers])
        for column, rows in enumerate((images, images if gradient else images[:0], images[facts.zero])):
            self.spent[:, column] += torch.bincount(rows, minlength=len(self.spent))
        return facts, asked.gradients

    def _close_in(self) -> None:
        """Shorten the best examples, by halves, as far as they still reach their aim."""
        rows = self.kept.size.isfinite().nonzero().flatten()
        if not len(rows):
            return
        device = self.kept.clean.device
        best, clean = (stack[rows.to(device)].clone() for stack in (self.kept.best.at, self.kept.clean))
        high = self.kept.size[rows]
        low, middle = torch.zeros_like(high), NEAR * high
        for _ in range(1 + REFINEMENTS):
            at = self.threat.project(best, clean, middle.to(device))
            shown, sizes = self._shown(at, clean, middle)
            facts, _ = self._ask(shown, self.image[rows], gradient=False)
            reach = self.kept.look(rows, shown, facts.scores, sizes, self.steps)
            high, low = torch.where(reach, middle, high), torch.where(reach, low, middle)
            middle = (low + high) / 2
