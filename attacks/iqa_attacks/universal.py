"""A universal perturbation: one change for all images, trained on one split and tested on another.

What it moves on images it has never seen is not an image's own weakness but the model's (Moosavi-Dezfooli
et al. 2017; for quality scores Shumitskaya et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from iqa_attacks.attack import AttackResult, Effort
from iqa_attacks.catalogue import register_attack
from iqa_attacks.errors import AttackError, naming
from iqa_attacks.gradients import expected_score_and_gradient, score_and_gradient
from iqa_attacks.learner import Learner, Lesson
from iqa_attacks.model_state import check_modes, left_as_it_was
from iqa_attacks.results import Ascent, Cost, Example, Found, Targets, ends
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.settings import Count, NoSetting, StepSize
from iqa_models import QualityModel


@register_attack
@dataclass(frozen=True, kw_only=True)
class Universal(Learner):
    """One change an objective, found by steps along the mean gradient over batches of training images.

    It must be `trained` before it is `run`. Only `raise` and `lower` have a meaning: a change for all
    images cannot know their labels, and the square of a drift would add up unlike directions.
    """

    kind = "universal"
    only_objectives = ("raise", "lower")
    steps: Count
    """Steps of the training, each on one batch of training images."""
    step_size: Annotated[float, StepSize(share=0.25)]
    """Length of the first step, in the units of epsilon; the last one is near 0."""
    training_split: Literal["train", "val"] = "train"
    """Split of the training images."""
    training_images: Annotated[int | None, Field(ge=1)] = None
    """Only the first so many of them, None for all."""

    @property
    def effort(self) -> Effort:
        """Steps of the training; an image itself costs one evaluation an objective (`with_training`)."""
        return Effort(self.steps, self.step_size, 1)

    @property
    def lesson(self) -> Lesson:
        """The training images."""
        return Lesson(self.training_split, self.training_images)

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
        check_modes(model)
        with torch.inference_mode(False), left_as_it_was(model):
            own = [image.detach().clone(memory_format=torch.contiguous_format) for image in images]
            changes, training = [], Cost(0, 0, 0)
            for objective in self.objectives:
                change, spent = self._train(model, own, ids, up=objective == "raise", chunk=chunk)
                changes.append(change)
                training = training.plus(spent)
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        return TrainedUniversal(**settings, changes=tuple(changes), training=training)

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
            with naming(ids):
                return score_and_gradient(model, images, chunk=chunk).gradients
        means = []
        for image, image_id in zip(images, ids, strict=True):
            seeds = draw_seeds(self.seed, image_id, ("universal", step), self.eot_samples or 1)
            with naming([image_id]):
                means.append(expected_score_and_gradient(model, image, seeds)[1])
        return torch.stack(means)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Refuse: what is not trained finds nothing."""
        raise AttackError("universal: train it first: attack.trained(model, images, ids).run(...)")


@dataclass(frozen=True, kw_only=True)
class TrainedUniversal(Universal):
    """A universal perturbation with what training found."""

    changes: Annotated[tuple[Tensor, ...], NoSetting()] = field(repr=False, compare=False)
    """(3, H, W) an objective."""
    training: Annotated[Cost, NoSetting()] = field(compare=False)
    """Work of the training, over all objectives."""

    def with_training(self, result: AttackResult) -> AttackResult:
        """Return a result with the work of the training counted, at the first of its images.

        The changes are found once for all images. `run` counts what an image itself costs, so that results
        of several runs can be put together; exactly one of them is to bear the training.
        """
        cost = {
            (image, steps): own.plus(self.training) if image == 0 else own
            for (image, steps), own in result.cost.items()
        }
        return result._replace(cost=cost)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Add each change to every image; the cost is that of the images, `with_training` adds the other."""
        low, high = model.spec.score_range
        found, cost = [], {}
        for i, image in enumerate(targets.images):
            examples = []
            for objective, change in zip(self.create_objectives(), self.changes, strict=True):
                if change.shape != image.shape:
                    raise AttackError(
                        f"universal: trained for {change.shape[1]} x {change.shape[2]} pixels, but "
                        f"{targets.ids[i]} has {image.shape[1]} x {image.shape[2]}; crop the images to one"
                    )
                clean = image.unsqueeze(0)
                pixels = self.threat.admit(clean + change.to(clean), clean).squeeze(0)
                value = self.score_of(model, pixels, targets.ids[i], (0, self.steps), draws)
                examples.append(Example(pixels, value, 0, self.steps))
                unit = (value - low) / (high - low)
                loss = unit if objective.name == "raise" else -unit
                found.append(Found(i, objective.name, self.steps, loss, examples[-1]))
            found += ends(i, self.steps, examples)
            cost[i, self.steps] = Cost(len(examples) * (draws or 1), 0, 0)
        return Ascent(found, cost)
