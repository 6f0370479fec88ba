"""Bounds through the layers of a small network: intervals forward, linear bounds backward.

Forward (IBP, Gowal et al. 2018): every layer's outputs as intervals, mid-point through the layer, half-width
through the absolute weights. In norm 2 the first layer with weights has the norm of its kernel for each
output, too. Backward (CROWN, Zhang et al. 2018): the score as a linear form of the pixels, each ReLU between
its two lines; `largest_change` of it is exact in ball and box. The interval is what both leave.

All of it in float64. The model scores in float32: how far that may be from exact arithmetic is bounded
along, a sum of k products by min(k, LONGEST) roundings of its absolute terms. Convolutions by transforms
(Winograd, FFT) round otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iqa_attacks.certificates.linear import UNIT, admitted_radius, largest_change
from iqa_attacks.errors import NoCertificate
from iqa_attacks.threat_model import ThreatModel
from iqa_models.wrapping import WrappedModel

_WEIGHTED = (nn.Conv2d, nn.Linear)
_MEANS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_SAME = (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d)
_MONOTONE = (nn.ReLU, nn.MaxPool2d, nn.Sigmoid, nn.Tanh)
LONGEST = 1024
"""Additions one after the other in a layer's sum, at the most: matrix products add longer ones in blocks."""
LAYERS = (*_WEIGHTED, nn.BatchNorm2d, *_MEANS, *_SAME, *_MONOTONE)
"""The layers that bounds go through, in an `nn.Sequential` or one within another."""


class Network(NamedTuple):
    """A model as a list of layers in float64."""

    layers: tuple[nn.Module, ...]
    absolute: tuple[nn.Module, ...]
    """The same with the absolute values of the weights and nothing added."""
    sign: float
    """1, or -1 where the card turns the score."""
    single: bool
    """Whether the model itself computes in float32."""


class _Around(NamedTuple):
    """What enters a layer, for one image: (1, ...) each."""

    low: Tensor
    high: Tensor
    centre: Tensor
    """Of the clean image."""
    error: Tensor
    """How far float32 may be from it."""


def network_of(model: WrappedModel) -> Network:
    """Return the layers of a wrapped `nn.Sequential`.

    Raises:
        NoCertificate: something else, with a layer that is not in `LAYERS` named.
    """
    net = model.scorer
    if type(net) is not nn.Sequential:
        raise NoCertificate(f"bounds go through an nn.Sequential, not through a {type(net).__name__}")
    layers = tuple(_flat(net))
    single = all(p.dtype == torch.float32 for p in net.parameters())
    if not single and not all(p.dtype == torch.float64 for p in net.parameters()):
        raise NoCertificate("bounds are of weights in float32 or in float64")
    copied = tuple(copy.deepcopy(layer).cpu().double().eval().requires_grad_(False) for layer in layers)
    return Network(
        copied, tuple(map(_absolute, copied)), 1.0 if model.spec.higher_is_better else -1.0, single
    )


def network_interval(net: Network, image: Tensor, threat: ThreatModel) -> tuple[float, float]:
    """Return an interval of a network's scores around one image (C, H, W) in [0, 1].

    Raises:
        NoCertificate: the layers do not lead to one number.
    """
    x = image.detach().cpu().double().unsqueeze(0)
    radius = admitted_radius(threat, x.numel())
    reach = min(radius, 1.0)
    low, high = (x - reach).clamp_min(0), (x + reach).clamp_max(1)
    at = [_Around(low, high, x, torch.zeros_like(x))]
    ball = None if threat.norm == "inf" else torch.full((x.shape[1],), radius, dtype=torch.float64)
    with torch.no_grad():
        for layer, absolute in zip(net.layers, net.absolute, strict=True):
            at.append(_forward(layer, absolute, at[-1], ball, UNIT if net.single else UNIT**2))
            ball = _rescaled(layer, ball)
    if at[-1].centre.numel() != 1:
        raise NoCertificate(f"the layers lead to {at[-1].centre.numel()} numbers, not to one score")
    # What is monotone in one number at the end needs no line.
    end = len(net.layers)
    while end and isinstance(net.layers[end - 1], _MONOTONE + _SAME) and at[end - 1].centre.numel() == 1:
        end -= 1
    ends = []
    for side, known in ((-1.0, at[end].low), (1.0, at[end].high)):
        found = side * min(side * _backward(net.layers[:end], at, x[0], threat, side), side * float(known))
        wrong = float(at[end].error) + 1e-9 * max(abs(found), 1e-6)
        bound = torch.full_like(at[end].centre, found + side * wrong)
        with torch.no_grad():
            for layer in net.layers[end:]:
                bound = layer(bound)
        ends.append(float(bound) + side * 8 * (UNIT if net.single else UNIT**2) * (len(net.layers) > end))
    return (ends[0], ends[1]) if net.sign > 0 else (-ends[1], -ends[0])


def _flat(net: nn.Sequential) -> Sequence[nn.Module]:
    found: list[nn.Module] = []
    for layer in net:
        if type(layer) is nn.Sequential:
            found += _flat(layer)
            continue
        if type(layer) not in LAYERS:
            known = ", ".join(kind.__name__ for kind in LAYERS)
            raise NoCertificate(f"no bound goes through a {type(layer).__name__}; there are {known}")
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            raise NoCertificate(f"no bound goes through padding {layer.padding_mode!r}")
        if isinstance(layer, nn.BatchNorm2d):
            _statistics(layer)
        found.append(layer)
    return found


def _forward(layer: nn.Module, absolute: nn.Module, at: _Around, ball: Tensor | None, unit: float) -> _Around:
    """Return what leaves a layer."""
    low, high, centre, error = at
    if isinstance(layer, _MONOTONE):
        # Slopes are at most 1; an exponential is right to a few units.
        wide = layer(error) if isinstance(layer, nn.MaxPool2d) else error
        rounding = 8 * unit * isinstance(layer, nn.Sigmoid | nn.Tanh)
        return _Around(layer(low), layer(high), layer(centre), wide + rounding)
    if isinstance(layer, _SAME):
        return _Around(*(layer(each) for each in at))
    out, half = layer((low + high) / 2), absolute((high - low) / 2)
    most = absolute(torch.maximum(low.abs(), high.abs()) + error) + _added(layer)
    wrong = absolute(error) + (min(_terms(layer, centre), LONGEST) + 4) * unit * most
    new = _Around(out - half, out + half, layer(centre), wrong)
    if ball is None or not isinstance(layer, _WEIGHTED):
        return new
    length = _kernel_norms(layer, ball, centre)
    return new._replace(
        low=torch.maximum(new.low, new.centre - length), high=torch.minimum(new.high, new.centre + length)
    )


def _absolute(layer: nn.Module) -> nn.Module:
    """Return a layer with the absolute values of its weights and nothing added."""
    made = copy.deepcopy(layer)
    with torch.no_grad():
        if isinstance(made, nn.BatchNorm2d) and made.running_mean is not None:
            made.running_mean.zero_()
        if isinstance(made, (*_WEIGHTED, nn.BatchNorm2d)) and made.weight is not None:
            made.weight.abs_()
            if made.bias is not None:
                made.bias.zero_()
    return made


def _added(layer: nn.Module) -> Tensor | float:
    """Return the absolute values of what a layer adds to its sums, output channel by channel."""
    if isinstance(layer, nn.BatchNorm2d):
        mean, slope = _statistics(layer)
        added = mean.abs() * slope + (0.0 if layer.bias is None else layer.bias.abs())
    elif isinstance(layer, _WEIGHTED) and layer.bias is not None:
        added = layer.bias.abs()
    else:
        return 0.0
    return added if isinstance(layer, nn.Linear) else added.view(-1, 1, 1)


def _terms(layer: nn.Module, centre: Tensor) -> int:
    """Return how many numbers are added for one output, at the most."""
    if isinstance(layer, _WEIGHTED):
        return layer.weight[0].numel()
    return 2 if isinstance(layer, nn.BatchNorm2d) else centre[0, 0].numel()


def _kernel_norms(layer: nn.Conv2d | nn.Linear, ball: Tensor, centre: Tensor) -> Tensor:
    """Return how far each output channel moves at the most, `ball` a radius for each input channel."""
    if isinstance(layer, nn.Linear):
        per_input = ball.repeat_interleave(centre.numel() // len(ball)) if centre.ndim == 2 else ball.max()
        lengths: Tensor = torch.linalg.vector_norm(layer.weight * per_input, dim=1)
        return lengths
    scale = ball.view(1, -1, 1, 1) if layer.groups == 1 else ball.max()
    norms: Tensor = torch.linalg.vector_norm(layer.weight * scale, dim=(1, 2, 3))
    return norms.view(-1, 1, 1)


def _rescaled(layer: nn.Module, ball: Tensor | None) -> Tensor | None:
    """Return the radius of the ball behind a layer, channel by channel; None where it is a ball no more."""
    if ball is None or isinstance(layer, _SAME):
        return ball
    return ball * _statistics(layer)[1] if isinstance(layer, nn.BatchNorm2d) else None


def _statistics(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the mean that a layer takes, and what it multiplies by, without sign."""
    if layer.running_mean is None or layer.running_var is None:
        raise NoCertificate("a BatchNorm2d without running statistics depends on the batch")
    slope = (layer.running_var + layer.eps).rsqrt()
    return layer.running_mean, slope if layer.weight is None else slope * layer.weight.abs()


def _backward(
    layers: Sequence[nn.Module], at: Sequence[_Around], image: Tensor, threat: ThreatModel, side: float
) -> float:
    """Return the bound of the one number behind some layers: from above for side 1, from below for -1."""
    form = torch.full_like(at[len(layers)].centre, side)
    added = 0.0
    for place in range(len(layers) - 1, -1, -1):
        layer, entering = layers[place], at[place]
        if isinstance(layer, nn.ReLU):
            form, more = _through_relu(form, entering)
            added += more
        elif isinstance(layer, _MONOTONE):
            # No line: what is known of its outputs decides.
            left = at[place + 1]
            return side * (added + float(torch.where(form > 0, form * left.high, form * left.low).sum()))
        else:
            zero = torch.zeros_like(entering.centre, requires_grad=True)
            with torch.enable_grad():
                value = (form * layer(zero)).sum()
                (form,) = torch.autograd.grad(value, zero)
            added += float(value.detach())
    here = float((form[0] * image).sum())
    return side * (added + here + largest_change(form[0], image, threat))


def _through_relu(form: Tensor, at: _Around) -> tuple[Tensor, float]:
    """Return a form of what enters ReLUs that is at least one of what leaves them, and what is added."""
    low, high = at.low.clamp_max(0), at.high.clamp_min(0)
    above = high / (high - low).clamp_min(1e-300)
    above = torch.where(at.low >= 0, 1.0, torch.where(at.high <= 0, 0.0, above))
    below = torch.where(at.low >= 0, 1.0, torch.where(at.high <= 0, 0.0, (high > -low).to(high)))
    crossing = (at.low < 0) & (at.high > 0)
    up = form.clamp_min(0)
    return up * above + form.clamp_max(0) * below, float((up * -above * low * crossing).sum())
