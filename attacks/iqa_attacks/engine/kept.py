"""What a group of restarts keeps: its best examples on the device, and on the host which they are.

Examples lie in PLACES, rows of one buffer a size; an example that several objectives keep, or that APGD may
come back to, lies in one. Which place is whose, and which are free, are vectors of the host, so that nothing
is read from the device but at reported steps, where examples are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_attacks.engine.states import Ground, Schedule, States
from iqa_attacks.errors import AttackFailed
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Example, Found

ENDS = (LOWEST_SEEN, HIGHEST_SEEN)


class Candidates(NamedTuple):
    """What an iterate has to offer to every wish, in every restart."""

    loss: Tensor
    """(W, restarts, n) float64: larger is wished for."""
    state: Tensor
    """(W, restarts, n) long: the state that has it."""


class Kept:
    """The best of every wish (the objectives, then both ends) on every image, over the restarts of a group.

    Of equal losses the earlier restart's is kept, and of one restart the earlier iterate's: what each restart
    kept by itself would give, compared at the end. Of every restart by itself only what an update may go back
    to is kept, by objective.

    Memory: an image for each wish and image at most, on the device; with an update that goes back, an image
    and a slope for each objective, restart and image besides. On the CPU only as much of it is taken as is in
    use at once.
    """

    def __init__(self, ground: Ground, names: Sequence[str], restarts: range, schedule: Schedule) -> None:
        self.ground, self.names, self.restarts, self.schedule = ground, (*names, *ENDS), restarts, schedule
        n, wishes = len(ground.group), len(self.names)
        self.loss = torch.full((wishes, n), -torch.inf, dtype=torch.float64)
        self.best = torch.full((wishes, n), -1)
        """(W, n) long: the place of the best example, -1 for none."""
        self.back = torch.full((len(names), len(restarts), n), -1)
        """(L, restarts, n) long: the place of the iterate to go back to; that of an image's own best, which
        need not be its batch's."""
        goes_back = schedule.update.goes_back
        each = wishes + (len(names) * len(restarts) if goes_back else 0)
        sizes = torch.tensor([each * len(members) for members in ground.members])
        self.first = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
        """(sizes + 1,) long: the first place of each size."""

        def buffers() -> list[Tensor]:
            rows = zip(sizes.tolist(), ground.clean, strict=True)
            return [clean.new_empty((count, *clean.shape[1:])) for count, clean in rows]

        self.examples = buffers()
        self.iterates = buffers() if goes_back and schedule.threat.pixels == "8bit" else self.examples
        self.slopes = buffers() if goes_back else []
        total = int(self.first[-1])
        self.score = torch.zeros(total, dtype=torch.float64)
        self.moment = torch.zeros(total, 3, dtype=torch.long)
        """(places, 3) long: restart within the group, iterate and state."""
        self._made: dict[tuple[int, ...], Example] = {}

    def choose(self, step: int, offered: Candidates, best: Tensor, states: States, scores: Tensor) -> Tensor:
        """Take what is better than what was kept, and return the states to copy and their places, (2, K).

        Args:
            step: the iterate.
            offered: of all restarts.
            best: (L, restarts, n) bool: iterates to go back to.
            states: of the iterate.
            scores: (S,) float64.
        """
        loss, restart = offered.loss.max(dim=1)
        state = offered.state.gather(1, restart.unsqueeze(1)).squeeze(1)
        better = (loss > self.loss) | ((loss == self.loss) & (restart < self.moment[self.best, 0]))
        if not self.schedule.keep_best:
            better[: -len(ENDS)] = step in (*self.schedule.report_steps, self.schedule.steps)
        self.loss = torch.where(better, loss, self.loss)
        going_back = offered.state[: len(best)]
        new = torch.from_numpy(np.unique(torch.cat([state[better], going_back[best]]).numpy()))
        self.best[better] = -1
        self.back[best] = -1
        places = self._free(states.image[new])
        self.score[places] = scores[new]
        self.moment[places] = torch.stack([states.restart[new], torch.full_like(new, step), new], dim=1)
        place_of = torch.full_like(states.image, -1)
        place_of[new] = places
        self.best[better] = place_of[state[better]]
        self.back[best] = place_of[going_back[best]]
        return torch.stack([new, places])

    def _free(self, images: Tensor) -> Tensor:
        """Return a free place for each of some images, the first ones."""
        used = torch.zeros(len(self.score) + 1, dtype=torch.bool)
        used[self.best] = True
        used[self.back] = True  # -1, nothing, is the one beyond the last
        places = torch.empty_like(images)
        group = self.ground.group[images]
        for g in range(len(self.examples)):
            mine = (group == g).nonzero().flatten()
            free = (~used[self.first[g] : self.first[g + 1]]).nonzero().flatten()
            places[mine] = free[: len(mine)] + self.first[g]
        return places

    def copy(
        self,
        g: int,
        states: States,
        slope: Tensor | None,
        rows: Tensor,
        places: Tensor,
        return_rows: Tensor,
        return_places: Tensor,
    ) -> None:
        """Copy rows of a stack to places within its size, with slopes those to return to."""
        stack = states.stacks[g]
        if len(rows):
            self.examples[g].index_copy_(0, places, stack.shown.index_select(0, rows))
        if len(return_rows) and slope is not None:
            self.slopes[g].index_copy_(0, return_places, slope.index_select(0, return_rows))
            if self.iterates is not self.examples:
                self.iterates[g].index_copy_(0, return_places, stack.pixels.index_select(0, return_rows))

    def back_to(
        self, g: int, rows: Tensor, places: Tensor, pixels: Tensor, slopes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return iterates and slopes (M, C, H, W), in some rows those that are kept in places of a size."""
        kept = (self.iterates[g], pixels), (self.slopes[g], slopes)
        back, along = (now.index_copy(0, rows, held.index_select(0, places)) for held, now in kept)
        return back, along

    def found(self, steps: int, ids: Sequence[str]) -> list[Found]:
        """Return, for every image, the best so far; an example that is kept twice is one object.

        Raises:
            AttackFailed: an image has none; left out, it would be missing from every mean.
        """
        found = []
        for name, places, losses in zip(self.names, self.best.tolist(), self.loss.tolist(), strict=True):
            for i, (place, loss) in enumerate(zip(places, losses, strict=True)):
                if place < 0:
                    raise AttackFailed(f"objective {name!r}: no iterate of image {ids[i]!r} was kept")
                example = self._example(place, int(self.ground.group[i]))
                found.append(Found(i, name, steps, None if name in ENDS else loss, example))
        return found

    def _example(self, place: int, g: int) -> Example:
        restart, step, state = self.moment[place].tolist()
        key = (step, state)
        if key not in self._made:
            pixels = self.examples[g][place - int(self.first[g])].clone()
            self._made[key] = Example(pixels, float(self.score[place]), self.restarts[restart], step)
        return self._made[key]
