"""What a search on a copy of a model found, with the scores and losses of the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from iqa_attacks.engine.batches import batches
from iqa_attacks.objectives import Objective
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Ascent, Example, Found, Targets

OwnScores = Callable[[Sequence[Example], Sequence[int]], Sequence[float]]
"""Returns the model's own scores of examples, each of an image i."""


def rescored(found: Ascent, own: OwnScores) -> Ascent:
    """Return what was found with every distinct example's score replaced by the model's own.

    The ends are chosen again by it among what was found: what was lowest for the copy, or through JPEG, need
    not be.
    """
    distinct = {id(each.example): (each.example, each.image) for each in found.found}
    examples, images = zip(*distinct.values(), strict=True)
    scores = own(examples, images)
    made = {
        key: example._replace(score=value)
        for (key, (example, _)), value in zip(distinct.items(), scores, strict=True)
    }
    entries = [each._replace(example=made[id(each.example)]) for each in found.found]
    met: dict[int, list[Found]] = {}
    for each in entries:
        met.setdefault(each.image, []).append(each)
    return Ascent([_end(each, met[each.image]) for each in entries], found.cost)


def _end(entry: Found, met: Sequence[Found]) -> Found:
    """Return an end with the example that is it among those of its image, another entry as it is."""
    if entry.objective not in (LOWEST_SEEN, HIGHEST_SEEN):
        return entry
    end = min if entry.objective == LOWEST_SEEN else max
    examples = [entry.example, *(each.example for each in met if each.steps <= entry.steps)]
    return entry._replace(example=end(examples, key=lambda example: example.score))


def with_own_losses(
    found: Ascent,
    objectives: Sequence[Objective],
    targets: Targets,
    score_range: tuple[float, float],
    batch: int,
) -> Ascent:
    """Return what was found with losses that follow from the scores in it.

    Args:
        found: one entry an image, objective and number of steps; losses of other entries stay.
        objectives: of the attack.
        targets: labels, and the clean scores of the model whose scores `found` holds.
        score_range: of its card.
        batch: consecutive images in a batch of a batch-level objective.
    """
    low, high = score_range
    losses: dict[tuple[int, str, int], float] = {}
    for objective in objectives:
        own = sorted((f for f in found.found if f.objective == objective.name), key=lambda f: f.image)
        for steps in {each.steps for each in own}:
            group = [each for each in own if each.steps == steps]
            images = torch.tensor([each.image for each in group])
            scores = torch.tensor([each.example.score for each in group], dtype=torch.float64)
            unit, clean = ((of - low) / (high - low) for of in (scores, targets.clean[images]))
            for part in batches(len(group), batch if objective.batch_level else len(group)):
                at = images[part]
                values = objective.evaluate(unit[part], targets.mos[at], clean[part]).loss
                keys = ((i, objective.name, steps) for i in at.tolist())
                losses |= dict(zip(keys, values.tolist(), strict=True))
    entries = [
        each._replace(loss=losses.get((each.image, each.objective, each.steps), each.loss))
        for each in found.found
    ]
    return Ascent(entries, found.cost)
