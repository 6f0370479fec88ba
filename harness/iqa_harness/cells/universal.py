"""Attacks that learn from other images than they are judged on, each taught once a run and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from iqa_attacks import EVALUATED, Attack, Learner
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_models import QualityModel
from iqa_suites import Suite

ToTensor = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], Tensor]
"""Turns decoded pixels (H, W, 3) into an image (3, H, W) on the run's device."""


def training_images(suite: Suite, data: ImageSet, evaluated: ImageSet) -> dict[str, ImageSet]:
    """Return, by split, the images that attacks of a suite are trained on; empty for most suites.

    Args:
        suite: what is run.
        data: the whole set.
        evaluated: the attacked images.

    Raises:
        RunError: the set has no images in such a split.
    """
    training: dict[str, ImageSet] = {}
    for settings in suite.own_attacks:
        if settings.training is not None:
            split, limit = settings.training
            images = evaluated if split == EVALUATED else data.split(split)
            if not len(images):
                raise RunError(
                    f"{data.card.name!r} has no images in split {split!r} to train "
                    f"{settings.name!r} on; choose another training_split, or other data"
                )
            count = min(len(images), limit or len(images))
            if count > len(training.get(split, ())):
                training[split] = images.subset(range(count))
    return training


class _Pixels(Sequence[Tensor]):
    """The first images of a set, each read when it is asked for."""

    def __init__(self, images: ImageSet, count: int, to_tensor: ToTensor) -> None:
        self._images, self._count, self._to_tensor = images, count, to_tensor

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if not place < self._count:
            raise IndexError(place)
        return self._to_tensor(self._images.read(place))


class TrainedAttacks:
    """What training found, by model and attack.

    A function of model, training images and seed: another process that trains again finds the same. The
    cells of one plan share one of these, so that one process trains a (model, attack, radius) once.
    """

    def __init__(self, training: Mapping[str, ImageSet]) -> None:
        """Take the training images by split, at least as many as any attack of the suite takes."""
        self._training = training
        self._made: dict[tuple[str, str, Learner], Attack] = {}

    def of(
        self, attack: Learner, model: QualityModel, sha256: str, to_tensor: ToTensor, chunk: int
    ) -> Attack:
        """Return an attack ready to run.

        Args:
            attack: the attack of a cell.
            model: the cell's model.
            sha256: its hash, which stands for it.
            to_tensor: makes images for the run's device.
            chunk: images in one pass.

        Raises:
            AttackError: images or model are such that the attack cannot be trained.
        """
        place = (sha256, str(next(model.buffers()).device), attack)
        if place not in self._made:
            split, limit = attack.lesson
            images = self._training[split]
            count = min(len(images), limit or len(images))
            pixels = _Pixels(images, count, to_tensor)
            ids = [images.records[i].image_id for i in range(count)]
            # All attacked images may be more than a memory holds, and are asked for one after the other.
            held = pixels if split == EVALUATED else list(pixels)
            self._made[place] = attack.trained(model, held, ids, chunk=chunk)
        return self._made[place]
