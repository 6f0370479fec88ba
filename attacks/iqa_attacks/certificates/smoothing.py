"""Randomised median smoothing in norm 2 (Chiang et al., "Detection as Regression", NeurIPS 2020).

The smoothed score is the median of the model's score under Gaussian noise of sigma, g(x) = median h(x +
sigma e); h may cut off at black and white, go through further defences and draw itself. Around x, within eps
in norm 2,

    q_below(x) <= g(x') <= q_above(x),  at the levels  Phi(-eps / sigma)  and  Phi(eps / sigma),

q the quantiles of h(x + sigma e): whatever event has probability p at one of two images has at least
Phi(Phi^-1(p) - eps / sigma) at the other (Neyman, Pearson). Quantiles are known from n draws by order
statistics: the k-th lowest is at most the quantile of level p with probability P(Bin(n, p) >= k), the k-th
highest likewise. Both ends of all images hold together with the stated confidence: each may fail by (1 -
confidence) / (2 images).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ndtr
from scipy.stats import binom
from torch import Tensor

from iqa_attacks.certificates.linear import admitted_radius
from iqa_attacks.defences.defended import Defended
from iqa_attacks.defences.steps import Smooth, SmoothMedian
from iqa_attacks.errors import NoCertificate
from iqa_attacks.seeding import draw_seeds, start_generator
from iqa_attacks.threat_model import ThreatModel
from iqa_models import QualityModel


def smoothing_of(model: Defended) -> tuple[SmoothMedian, QualityModel]:
    """Return the noise of a smoothed model, and what stands behind it.

    Raises:
        NoCertificate: its median is not that of its first defence, or something else draws by itself.
    """
    first, *rest = model.defences
    if not isinstance(first, SmoothMedian):
        raise NoCertificate(
            f"no bound goes through the defence {first.text!r}; write 'smooth_median:SIGMA,DRAWS' before it"
        )
    if model.bare.is_stochastic:
        raise NoCertificate("the model behind the noise draws by itself")
    return first, Defended(model.model, rest) if rest else model.model


def order(draws: int, ratio: float, failing: float) -> int:
    """Return which of some sorted draws is at most the quantile at Phi(-ratio), the k-th lowest; 0 for none.

    Args:
        draws: how many there are.
        ratio: radius over sigma.
        failing: probability with which it may be above.
    """
    level = float(ndtr(-ratio))
    # P(Bin(n, p) <= k - 1) must be at most `failing`.
    k = int(binom.ppf(failing, draws, level)) + 1
    while k > 0 and float(binom.cdf(k - 1, draws, level)) > failing:
        k -= 1
    return k


def needed_draws(ratio: float, failing: float) -> float:
    """Return how many draws there must be at the least for an end to exist."""
    missed = math.log1p(-float(ndtr(-ratio)))
    return math.ceil(math.log(failing) / missed) if missed < 0 else math.inf


def smoothed_interval(
    model: Defended, image: Tensor, image_id: str, threat: ThreatModel, draws: int, failing: float, seed: int
) -> tuple[float, float]:
    """Return an interval that holds the exact smoothed score of every admissible image around one (C, H, W).

    Args:
        model: smoothed by `smooth_median`; how many draws it scores by itself does not matter here.
        image: in [0, 1], on the model's device.
        image_id: the draws come from it and the seed.
        threat: in norm 2, or in another one as far as its ball goes in norm 2.
        draws: how often it is scored.
        failing: probability with which each end may be wrong.
        seed: of the draws.

    Raises:
        NoCertificate: too few draws for an end to exist.
    """
    noise, behind = smoothing_of(model)
    count = image.numel()
    radius = admitted_radius(threat, count) * (math.sqrt(count) if threat.norm == "inf" else 1.0)
    ratio = radius / noise.sigma
    k = order(draws, ratio, failing)
    if k == 0:
        needed = needed_draws(ratio, failing)
        words = f"{needed:,} draws at the least" if needed <= 10**8 else "more than 100,000,000 draws"
        raise NoCertificate(
            f"radius {radius:.3g} in norm 2 under noise of {noise.sigma:g} needs {words}, there are {draws:,}"
        )
    generator = start_generator(seed, image_id, 0)
    seeds = draw_seeds(seed, image_id, ("certificate",), draws) if behind.is_stochastic else None
    scores = []
    with torch.no_grad():
        for first in range(0, draws, _TOGETHER):
            some = min(_TOGETHER, draws - first)
            shown = Smooth(noise.sigma, some).apply(image.unsqueeze(0), [generator])
            own = None if seeds is None else seeds[first : first + some]
            scores.append(behind.score_admitted(shown, own).cpu().double().numpy())
    ordered = np.sort(np.concatenate(scores))
    return float(ordered[k - 1]), float(ordered[draws - k])


_TOGETHER = 64
"""Noisy copies that are scored at once."""
