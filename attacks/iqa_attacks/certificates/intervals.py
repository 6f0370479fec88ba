"""Which certificate a model has, and the intervals of a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from iqa_attacks.certificates.linear import linear_interval
from iqa_attacks.certificates.propagation import network_interval, network_of
from iqa_attacks.certificates.smoothing import smoothed_interval, smoothing_of
from iqa_attacks.defences.defended import Defended
from iqa_attacks.errors import BadAttackOption, NoCertificate, naming
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel
from iqa_models.linear import LinearQuality
from iqa_models.wrapping import WrappedModel

Method = Literal["closed form", "layer bounds", "median smoothing"]
_Bounds = Callable[[Tensor, str], tuple[float, float]]


@dataclass(frozen=True)
class ScoreIntervals:
    """Intervals that hold the score of every admissible image, image by image."""

    method: Method
    confidence: float
    """With which all of them hold together; 1 where nothing is drawn."""
    low: NDArray[np.float64]
    """(n,)."""
    high: NDArray[np.float64]
    """(n,)."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How a smoothed model is certified; others need none of it."""

    draws: int = 1000
    """Noisy copies of each image."""
    confidence: float = 0.999
    """With which all ends of all images hold together."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise BadAttackOption(f"draws must be at least 1, not {self.draws}")
        if not 0 < self.confidence < 1:
            raise BadAttackOption(f"confidence must lie between 0 and 1, not {self.confidence:g}")


# What is certified, and how; then what is told on the way.
def certify_scores(
    model: QualityModel,
    images: Iterable[Tensor],
    ids: Sequence[str],
    threat: ThreatModel,
    drawing: Drawing | None = None,
    *,
    on_image: Callable[[], None] = lambda: None,
) -> ScoreIntervals:
    """Return intervals that hold a model's score under every admissible image of a threat model.

    The model decides the method: the closed form for a linear one; bounds through the layers of a wrapped
    ``nn.Sequential`` (`propagation.LAYERS`); median smoothing where ``smooth_median`` stands first before
    it. An SSIM floor or whole grey levels only leave fewer images than the ball that is certified.

    Args:
        model: in eval mode, on the images' device.
        images: each (3, H, W) in [0, 1]; read one by one.
        ids: their names; draws come from them.
        threat: norm and radius; sizes are those that are admitted, rounding included.
        drawing: for a smoothed model.
        on_image: told after each image.

    Raises:
        NoCertificate: nothing here bounds this model, or too few draws; the message says what would.
    """
    drawing = drawing or Drawing()
    method, bounds = _method(model, threat, drawing, len(ids))
    ends = []
    for image, name in zip(images, ids, strict=True):
        with naming([name]):
            ends.append(bounds(image, name))
        on_image()
    found = np.array(ends, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(found).all():
        raise NoCertificate(f"{model.spec.name}: a bound is not finite")
    return ScoreIntervals(
        method, drawing.confidence if method == "median smoothing" else 1.0, found[:, 0], found[:, 1]
    )


def _method(model: QualityModel, threat: ThreatModel, drawing: Drawing, count: int) -> tuple[Method, _Bounds]:
    """Return the method a model allows, and what bounds one image by it."""
    if isinstance(model, Defended):
        smoothing_of(model)
        failing = (1 - drawing.confidence) / (2 * max(count, 1))
        return "median smoothing", lambda image, name: smoothed_interval(
            model, image, name, threat, drawing.draws, failing, drawing.seed
        )
    for part in model.modules():
        if part._forward_hooks or part._forward_pre_hooks or {"forward", "predict"} & vars(part).keys():
            raise NoCertificate(
                f"a {type(part).__name__} has a hook or a method of its own: it may do anything"
            )
    if type(model) is LinearQuality:
        return "closed form", lambda image, name: linear_interval(model, image, threat)
    if type(model) is WrappedModel:
        net = network_of(model)
        return "layer bounds", lambda image, name: network_interval(net, image, threat)
    raise NoCertificate(
        f"{model.spec.name}: no bound is known of such a model; put 'smooth_median:SIGMA,DRAWS' before it "
        "(norm 2), or wrap an nn.Sequential of simple layers"
    )
