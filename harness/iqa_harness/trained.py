"""Attacks that learn from other images than they are judged on, each taught once a run and model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from iqa_attacks import Attack, Universal
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_models import QualityModel

ToTensor = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], Tensor]
"""Turns decoded pixels (H, W, 3) into an image (3, H, W) on the run's device."""


class TrainedAttacks:
    """What training found, by model and attack.

    A function of model, training images and seed: another process that trains again finds the same. The
    cells of one plan share one of these, so that one process trains a (model, attack, radius) once.
    """

    def __init__(self, data: ImageSet) -> None:
        """Take the whole image set; each attack trains on its own split of it."""
        self._data = data
        self._made: dict[tuple[str, str, Universal], Attack] = {}

    def of(
        self, attack: Universal, model: QualityModel, sha256: str, to_tensor: ToTensor, chunk: int
    ) -> Attack:
        """Return an attack ready to run.

        Args:
            attack: the attack of a cell.
            model: the cell's model.
            sha256: its hash, which stands for it.
            to_tensor: makes images for the run's device.
            chunk: images in one pass.

        Raises:
            RunError: the image set has no images in the training split.
            AttackError: the images differ in size.
        """
        place = (sha256, str(next(model.buffers()).device), attack)
        if place not in self._made:
            images = self._data.split(attack.training_split)
            if not len(images):
                raise RunError(
                    f"{self._data.card.name!r} has no images in split {attack.training_split!r} to train a "
                    "universal perturbation on; choose another training_split, or other data"
                )
            count = min(len(images), attack.training_images or len(images))
            pixels = [to_tensor(images.read(i)) for i in range(count)]
            ids = [images.records[i].image_id for i in range(count)]
            self._made[place] = attack.trained(model, pixels, ids, chunk=chunk)
        return self._made[place]
