"""A live object as a model under test: a module or a function of your own, with a card beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from iqa_models.errors import BadModelOption, ModelError
from iqa_models.quality_model import QualityModel
from iqa_models.spec import ModelSpec, faults

Scorer = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] to scores (B,) or (B, 1)."""


Takes = Literal["tensors", "arrays", "bytes"]
"""What a scorer is called with: images as a tensor; as one float32 array (B, H, W, 3) in [0, 1], for B
scores; or image by image as a uint8 array (H, W, 3), for one score. The last two carry no gradient."""


class WrappedModel(QualityModel):
    """A scorer with a card. Its weights move with `to()` if it is a module or a method of one."""

    def __init__(self, spec: ModelSpec, scorer: Callable[..., Any], takes: Takes = "tensors") -> None:
        super().__init__(spec)
        self.scorer = scorer
        if takes != "tensors":  # noted only where it is not as ever: it is part of what the model is
            self.takes = takes
        owner = getattr(scorer, "__self__", None)
        self.owner = owner if isinstance(owner, nn.Module) else None

    def predict(self, images: Tensor) -> Tensor:
        """Return what the scorer says of images (B, 3, H, W), as (B,).

        Raises:
            ModelError: it says something else than one number an image.
        """
        takes: Takes = getattr(self, "takes", "tensors")
        count = len(images)
        scores: object = self.scorer(images) if takes == "tensors" else self._of_arrays(images, takes)
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            found = f"a tensor of {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
            raise ModelError(
                f"{self.spec.name}: must return a floating-point tensor of scores, not {found}; wrap a "
                "function that picks the scores out of it"
            )
        if scores.shape not in ((count,), (count, 1)):
            raise ModelError(
                f"{self.spec.name}: must return shape ({count},) or ({count}, 1) for {count} images, "
                f"not {tuple(scores.shape)}"
            )
        return scores.reshape(count)

    def _of_arrays(self, images: Tensor, takes: Takes) -> Tensor:
        """Return scores (B,) float64 of a scorer that knows arrays only."""
        pixels = images.detach().permute(0, 2, 3, 1).cpu().float().numpy()
        if takes == "arrays":
            found: Any = self.scorer(pixels.copy())
        else:
            # As a file of 8 bits would hold it.
            found = [self.scorer(image) for image in (pixels * 255 + 0.5).astype(np.uint8)]
        try:
            scores = np.asarray([float(np.asarray(each).reshape(())) for each in found], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.spec.name}: must return one number an image ({error})") from error
        return torch.from_numpy(scores).to(images.device)


def wrap(
    obj: nn.Module | Callable[..., Any],
    *,
    name: str | None = None,
    score_range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
    card: ModelSpec | None = None,
    takes: Takes = "tensors",
    **fields: Any,
) -> QualityModel:
    """Return a live object as a model under test, in eval mode.

    Its hash is of its weights, of the state it holds besides, and of the source of its code; see
    `weights_sha256`. A `QualityModel` passes through as it is.

    Args:
        obj: an ``nn.Module`` or any callable that maps images (B, 3, H, W), RGB in [0, 1], to scores (B,)
            or (B, 1). White-box attacks need its gradient. Resizing and normalising are its own affair.
            A function's weights must already be on the device they are used on.
        name: what reports call it; by default that of its class or function.
        score_range: nominal ends (low, high) of what `obj` returns; objectives, tolerances and step sizes
            are in its units. Required unless there is a card.
        higher_is_better: False for an output such as DMOS, which is then negated.
        card: the whole card, instead of all other arguments.
        takes: what `obj` is called with, see `Takes`; what takes arrays is a black box without a gradient.
        **fields: further fields of `ModelSpec`, such as ``min_size=224`` or ``is_stochastic=True``.

    Raises:
        BadModelOption: nothing that can score, no score range, or a field the card refuses.
    """
    described = bool(fields) or name is not None or score_range is not None or not higher_is_better
    if isinstance(obj, QualityModel):
        if described or card is not None:
            raise BadModelOption(
                f"{obj.spec.name!r} is a QualityModel and has a card; change its `spec` instead"
            )
        return obj
    if isinstance(obj, type) or not callable(obj):
        what = f"the class {obj.__name__}; give an instance" if isinstance(obj, type) else repr(obj)
        raise BadModelOption(f"a model is an nn.Module or a callable on images (B, 3, H, W), not {what}")
    if takes not in ("tensors", "arrays", "bytes"):
        raise BadModelOption(f"takes is 'tensors', 'arrays' or 'bytes', not {takes!r}")
    if card is None:
        fields = fields if takes == "tensors" else {"has_gradient": False, **fields}
        card = _card(obj, name, score_range, higher_is_better, fields)
    elif described:
        raise BadModelOption(f"model {card.name!r}: give a card or its fields, not both")
    return WrappedModel(card, obj, takes).eval()


def _card(
    obj: Callable[..., Any],
    name: str | None,
    ends: tuple[float, float] | None,
    higher_is_better: bool,
    fields: dict[str, Any],
) -> ModelSpec:
    maker: Any = obj if hasattr(obj, "__qualname__") else type(obj)
    label = name or maker.__name__
    if name is None and label == "<lambda>":
        raise BadModelOption("a lambda has no name; give one: wrap(..., name='mine')")
    if ends is None:
        raise BadModelOption(
            f"model {label!r}: give score_range=(low, high), the nominal ends of what it returns (such as "
            "(0, 100)); objectives, tolerances and step sizes are in its units"
        )
    try:
        low, high = (float(end) for end in ends)
        return ModelSpec(
            **{
                "summary": f"live object {maker.__qualname__}",
                "source": f"{maker.__module__}.{maker.__qualname__}",
                "initial_weights": "given",
                "input_protocol": "whole image, as the object takes it",
                "mean": (0.0, 0.0, 0.0),
                "std": (1.0, 1.0, 1.0),
                **fields,
                "name": label,
                "score_range": (low, high) if higher_is_better else (-high, -low),
                "higher_is_better": higher_is_better,
            }
        )
    except (TypeError, ValueError) as error:
        ends_wrong = f"score_range must be (low, high), not {ends!r}"
        why = faults(error) if isinstance(error, ValidationError) else ends_wrong
        raise BadModelOption(f"model {label!r}: {why}") from error
