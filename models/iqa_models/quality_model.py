"""The contract of a model under test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from iqa_models.errors import BadInput, ModelError
from iqa_models.graphs import Graphs
from iqa_models.spec import ModelSpec


class QualityModel(nn.Module, ABC):
    """An NR-IQA model: images in pixel space in, one score per image out, higher is better.

    ``scores = model(images)`` with images float (B, 3, H, W), RGB in [0, 1]. Resizing, cropping and
    normalisation happen inside and are differentiable, so that an attack acts on the pixels of the
    evaluated image. In eval mode the score of an image does not depend on the others in its batch.

    A subclass writes `predict` only; the checks and the direction of the score are `forward`'s. A stochastic
    one may write `predict_drawn`, too, and say so by `draws_by_image`.
    """

    graphs: Graphs | None = None
    """Recorded passes of a copy (`iqa_models.frozen`), None where gradients are computed anew each time."""
    tensor_float32: bool = False
    """Whether gradients of a copy may be computed in TensorFloat-32 on a device that has it."""
    gradient_scale: float = 1.0
    """What the score is multiplied by on the way back, and the gradient divided by: a power of two."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("_mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self._mean: Tensor
        self._std: Tensor

    @property
    def is_stochastic(self) -> bool:
        """Whether two evaluations of one image may differ (the suite must then use EOT)."""
        return self.spec.is_stochastic

    @property
    def bare(self) -> QualityModel:
        """The model without what stands before it: itself, unless it is defended."""
        return self

    @property
    def ways(self) -> tuple[QualityModel, ...]:
        """This model with each gradient it has: all scores are the same, and an attack follows every one."""
        return (self,)

    @property
    def recordable(self) -> bool:
        """Whether a pass may be recorded: it draws nothing and asks nothing of the host."""
        return not self.is_stochastic

    def normalise(self, images: Tensor) -> Tensor:
        """Apply the card's mean and std to images (B, 3, H, W) in [0, 1]."""
        return (images - self._mean) / self._std

    @property
    def draws_by_image(self) -> bool:
        """Whether `predict_drawn` is there, which gives every image of a batch draws of its own."""
        return False

    @abstractmethod
    def predict(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to the network's own output (B,), DMOS left as it is."""

    def predict_drawn(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Map images to what `predict` gives each alone with torch's generators at its seed, in one pass.

        Args:
            images: (B, 3, H, W) in [0, 1].
            seeds: B; torch's global generators are neither read nor moved.
        """
        raise NotImplementedError(f"{type(self).__name__} draws for a whole batch")

    def forget(self) -> None:
        """Drop answers that are kept between calls."""

    @final  # type: ignore[misc]  # torch types forward as a writable attribute
    def forward(self, images: Tensor) -> Tensor:
        """Score images (B, 3, H, W) in [0, 1]: (B,), higher is better.

        Raises:
            BadInput: wrong shape, dtype, size, or values outside [0, 1] (NaN included).
            ModelError: `predict` returned something else than one number an image.
        """
        self._check_images(images)
        return self._directed(self.predict(images), images)

    @final
    def score_admitted(self, images: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Score images that are known to lie in [0, 1], as `forward`: their values are not looked at.

        A device is then not waited for, and the pass can be recorded.

        Args:
            images: (B, 3, H, W) in [0, 1].
            seeds: one an image, for a model that draws by image; None scores by `predict`.

        Raises:
            BadInput: wrong shape, dtype or size.
            ModelError: `predict` returned something else than one number an image.
        """
        self._check_shape(images)
        output = self.predict(images) if seeds is None else self.predict_drawn(images, seeds)
        return self._directed(output, images)

    def _directed(self, scores: Tensor, images: Tensor) -> Tensor:
        if scores.shape != images.shape[:1]:
            raise ModelError(
                f"{self.spec.name}: predict() must return shape ({len(images)},), not {tuple(scores.shape)}"
            )
        return scores if self.spec.higher_is_better else -scores

    def _check_images(self, images: Tensor) -> None:
        self._check_shape(images)
        if images.numel():
            low, high = torch.aminmax(images.detach())
            # NaN fails both comparisons, so the test is written for what is allowed.
            if not (low >= 0 and high <= 1):
                raise BadInput(
                    f"{self.spec.name}: pixel values must lie in [0, 1], found "
                    f"[{low.item():g}, {high.item():g}]"
                )

    def _check_shape(self, images: Tensor) -> None:
        name, spec = self.spec.name, self.spec
        if images.ndim != 4 or images.shape[1] != 3:
            raise BadInput(f"{name}: images must have shape (B, 3, H, W), not {tuple(images.shape)}")
        if not images.is_floating_point():
            raise BadInput(f"{name}: images must be floating point in [0, 1], not {images.dtype}")
        height, width = images.shape[-2:]
        if spec.fixed_size is not None and (height, width) != (spec.fixed_size, spec.fixed_size):
            raise BadInput(
                f"{name}: takes {spec.fixed_size}x{spec.fixed_size} pixels only, not {height}x{width}"
            )
        if min(height, width) < spec.min_size:
            raise BadInput(f"{name}: needs at least {spec.min_size} pixels a side, not {height}x{width}")
