"""Objectives on all images of a run, restart by restart and batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks.objectives import Objective


def batches(count: int, size: int) -> list[slice]:
    """Cut so many images into consecutive batches.

    One image left over joins the batch before it: in a batch of its own it would have none to be compared
    with, and a loss over pairs would not attack it at all.
    """
    firsts = list(range(0, count, size))
    if len(firsts) > 1 and count - firsts[-1] == 1:
        firsts.pop()
    return [slice(first, end) for first, end in zip(firsts, [*firsts[1:], count], strict=True)]


class Batched(NamedTuple):
    """An objective with the labels and clean scores of all images, (n,) each on [0, 1]."""

    objective: Objective
    mos: Tensor
    clean: Tensor
    batch: int
    """Images in a batch of a batch-level objective."""

    def evaluate(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and weights dL/df (restarts, n) at scores (restarts, n)."""
        if not self.objective.batch_level:
            found = self.objective.evaluate(scores.flatten(), *self._labels(scores))
            return found.loss.view_as(scores), found.weight.view_as(scores)
        losses, weights = torch.empty_like(scores), torch.empty_like(scores)
        for at in self._parts(scores):
            losses[at], weights[at] = self.objective.evaluate(scores[at], self.mos[at[1]], self.clean[at[1]])
        return losses, weights

    def with_one_changed(self, scores: Tensor, others: Tensor) -> Tensor:
        """Return the losses (restarts, n) at scores, each with the image's own score taken from `others`."""
        change = self.objective.with_one_changed
        if not self.objective.batch_level:
            return change(scores.flatten(), others.flatten(), *self._labels(scores)).view_as(scores)
        losses = torch.empty_like(scores)
        for at in self._parts(scores):
            losses[at] = change(scores[at], others[at], self.mos[at[1]], self.clean[at[1]])
        return losses

    def _labels(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and clean scores for all restarts in a row."""
        return self.mos.repeat(len(scores)), self.clean.repeat(len(scores))

    def _parts(self, scores: Tensor) -> Iterator[tuple[int, slice]]:
        """Yield restart and batch: one by one, so that no bit of a loss depends on what else is evaluated."""
        rows, n = scores.shape
        return ((row, part) for row in range(rows) for part in batches(n, self.batch))
