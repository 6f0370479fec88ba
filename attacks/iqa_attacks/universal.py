"""A universal perturbation: one change for all images, trained on one split and tested on another.

What it moves on images it has never seen is not an image's own weakness but the model's (Moosavi-Dezfooli
et al. 2017; for quality scores Shumitskaya et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from torch import Tensor

from iqa_attacks.attack import Attack, AttackResult, Effort, Runtime
from iqa_attacks.errors import AttackError, BadAttackOption
from iqa_attacks.gradients import expected_score, expected_score_and_gradient, score, score_and_gradient
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Ascent, Cost, Example, Found, Targets
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_models import QualityModel


@dataclass(frozen=True, kw_only=True)
class Universal(Attack):
    """One change an objective, found by steps along the mean gradient over batches of training images.

    It must be `trained` before it is `run`. Only `raise` and `lower` have a meaning: a change for all
    images cannot know their labels, and the square of a drift would add up unlike directions.
    """

    kind = "universal"
    steps: int
    """Steps of the training, each on one batch of training images."""
    step_size: float
    """Length of the first step, in the units of epsilon; the last one is near 0."""
    training_split: Literal["train", "val"] = "train"
    """Split of the training images."""
    training_images: int | None = None
    """Only the first so many of them, None for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise BadAttackOption(f"universal: steps ({self.steps}) start at 1")
        self.threat.check_step("universal: step_size", self.step_size)
        if self.training_split not in ("train", "val"):
            raise BadAttackOption(
                f"universal: training_split is 'train' or 'val', not {self.training_split!r}"
            )
        if self.training_images is not None and self.training_images < 1:
            raise BadAttackOption(f"universal: training_images start at 1, not {self.training_images}")
        wrong = [o for o in self.objectives if o not in ("raise", "lower")]
        if wrong:
            raise BadAttackOption(
                f"universal: one change for all images pushes their scores one way: objectives are 'raise' "
                f"and 'lower', not {wrong[0]!r}"
            )

    @property
    def effort(self) -> Effort:
        """Steps of the training; an image itself costs one evaluation an objective (`with_training`)."""
        return Effort(self.steps, self.step_size, 1)

    def trained(
        self, model: QualityModel, images: Sequence[Tensor], ids: Sequence[str], *, chunk: int = 8
    ) -> TrainedUniversal:
        """Return the attack with its changes, found on training images.

        The start is no change; every step goes along the mean gradient of the next batch, at the images
        with the change in the box, and is followed by the projection of the change on the ball. Step sizes
        fall linearly. Batches follow a seeded order, so the result is a function of model, images and
        seed alone.

        Args:
            model: the model under attack, in eval mode.
            images: training images (3, H, W) in [0, 1] of one size.
            ids: their ids.
            chunk: images in one forward or backward pass.

        Raises:
            AttackError: no images, images of several sizes, or a stochastic model without EOT.
            AttackFailed: the model gave scores or gradients that no attack can use.
        """
        if not images:
            raise AttackError(f"universal: split {self.training_split!r} has no images to train on")
        sizes = sorted({tuple(image.shape) for image in images})
        if len(sizes) > 1:
            shown = ", ".join(f"{h} x {w}" for _, h, w in sizes[:3])
            raise AttackError(
                f"universal: one change fits images of one size, the training images have {len(sizes)} "
                f"({shown}); crop them to one"
            )
        if model.is_stochastic and self.eot_samples is None:
            raise AttackError(f"universal: {model.spec.name} is stochastic; set eot_samples")
        trained = [self._train(model, images, ids, up=o == "raise", chunk=chunk) for o in self.objectives]
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        training = Cost(*(sum(counts) for counts in zip(*(cost for _, cost in trained), strict=True)))
        return TrainedUniversal(**settings, changes=tuple(change for change, _ in trained), training=training)

    def _train(
        self, model: QualityModel, images: Sequence[Tensor], ids: Sequence[str], *, up: bool, chunk: int
    ) -> tuple[Tensor, Cost]:
        """Return the change (C, H, W) for one objective, and what it cost."""
        change = torch.zeros_like(images[0])
        size = min(self.batch, len(images))
        order: list[int] = []
        draws = (self.eot_samples or 1) if model.is_stochastic else 1
        taken = self.steps * size * draws
        zero = 0
        for step in range(self.steps):
            if len(order) < size:
                generator = start_generator(self.seed, "universal", step)
                order = torch.randperm(len(images), generator=generator).tolist()
            members, order = order[:size], order[size:]
            batch = torch.stack([images[i] for i in members])
            moved = self.threat.project(batch + change, batch)
            gradient = self._gradient(model, moved, [ids[i] for i in members], step, chunk)
            zero += draws * int((gradient.flatten(1) == 0).all(dim=1).sum())
            length = self.step_size * (1 - step / self.steps)
            towards = self.threat.direction(gradient.mean(dim=0, keepdim=True)) * (1 if up else -1)
            change = self.threat.shorten(change.unsqueeze(0) + length * towards).squeeze(0)
        return change, Cost(taken, taken, zero)

    def _gradient(
        self, model: QualityModel, images: Tensor, ids: Sequence[str], step: int, chunk: int
    ) -> Tensor:
        if not model.is_stochastic:
            return score_and_gradient(model, images, chunk=chunk).gradients
        seeds = [draw_seeds(self.seed, i, ("universal", step), self.eot_samples or 1) for i in ids]
        pairs = zip(images, seeds, strict=True)
        return torch.stack([expected_score_and_gradient(model, image, s)[1] for image, s in pairs])

    def search(self, model: QualityModel, targets: Targets, draws: int | None, runtime: Runtime) -> Ascent:
        """Refuse: what is not trained finds nothing."""
        raise AttackError("universal: train it first: attack.trained(model, images, ids).run(...)")


@dataclass(frozen=True, kw_only=True)
class TrainedUniversal(Universal):
    """A universal perturbation with what training found."""

    changes: tuple[Tensor, ...] = field(repr=False, compare=False)
    """(3, H, W) an objective."""
    training: Cost = field(compare=False)
    """Work of the training, over all objectives."""

    def with_training(self, result: AttackResult) -> AttackResult:
        """Return a result with the work of the training counted, at the first of its images.

        The changes are found once for all images. `run` counts what an image itself costs, so that results
        of several runs can be put together; exactly one of them is to bear the training.
        """
        cost = {
            (image, steps): Cost(*(a + b for a, b in zip(own, self.training, strict=True)))
            if image == 0
            else own
            for (image, steps), own in result.cost.items()
        }
        return result._replace(cost=cost)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, runtime: Runtime) -> Ascent:
        """Add each change to every image; the cost is that of the images, `with_training` adds the other."""
        low, high = model.spec.score_range
        found, cost = [], {}
        for i, image in enumerate(targets.images):
            examples = []
            for objective, change in zip(self.objectives, self.changes, strict=True):
                if change.shape != image.shape:
                    raise AttackError(
                        f"universal: trained for {change.shape[1]} x {change.shape[2]} pixels, but "
                        f"{targets.ids[i]} has {image.shape[1]} x {image.shape[2]}; crop the images to one"
                    )
                clean = image.unsqueeze(0)
                pixels = self.threat.admit(clean + change.to(clean), clean)
                if draws is None:
                    value = float(score(model, pixels, chunk=1))
                else:
                    seeds = draw_seeds(self.seed, targets.ids[i], (0, self.steps), draws)
                    value = expected_score(model, pixels.squeeze(0), seeds)
                example = Example(pixels.squeeze(0), value, 0, self.steps)
                examples.append(example)
                unit = (value - low) / (high - low)
                loss = unit if objective == "raise" else -unit
                found.append(Found(i, str(objective), self.steps, loss, example))
            for name, end in ((LOWEST_SEEN, min), (HIGHEST_SEEN, max)):
                found.append(Found(i, name, self.steps, None, end(examples, key=lambda e: e.score)))
            cost[i, self.steps] = Cost(len(examples) * (draws or 1), 0, 0)
        return Ascent(found, cost)
