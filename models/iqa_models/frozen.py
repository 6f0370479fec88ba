"""A frozen copy of a model for attacks: the same function, computed the way its input gradient is cheapest.

An attack asks one model for thousands of input gradients and never trains it. Its copy therefore carries no
parameter that could be trained, its batch norms are folded into the convolutions before them, and layout and
precision are those that pay on the device. Scores that are stored come from the model itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from iqa_models.fused import can_fuse, fuse
from iqa_models.graphs import Graphs
from iqa_models.precision import float32_products
from iqa_models.quality_model import QualityModel
from iqa_models.trunks import seeded

Precision = Literal["model", "tf32", "float16", "bfloat16"]
"""Of a copy's gradients: the model's own, products in TensorFloat-32 on a device that has it, or one of two
half precisions through autocast, with heads of float32 numbers and such products."""

HALVES: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""float16 rounds eight times finer, as TensorFloat-32 does; bfloat16 has the range of float32."""

LARGEST = 3
"""A gradient of float16 is taken of the score times a power of two that brings the largest entry of a probe's
near 2**3: maps on the way hold from 2**-24 to 2**15."""

FOLDED_SCORE = 1e-5
"""Largest change of a probe's score by folding, in score ranges (or relative, of scores beyond it)."""

FOLDED_GRADIENT = 1e-2
"""Largest relative change (L1) of a probe's gradient by folding; rounding alone gives 1e-6 to 1e-3."""

PROBE_SIDE = 64
"""Side of the probe of a model that takes any size."""

HALVED = ("trunk", "neck")
"""Parts that autocast covers in the models of this package; their heads stay in the model's precision."""


class _Pair(NamedTuple):
    """A batch norm whose input is the output of a convolution, and of nothing else."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


def frozen(
    model: QualityModel,
    *,
    fold: bool = True,
    channels_last: bool = True,
    precision: Precision = "model",
    compiled: bool = False,
    graphed: bool = False,
) -> QualityModel:
    """Return a copy of a model for input gradients, in eval mode, with no parameter to train.

    The copy checks its input as the model does. What cannot be copied is returned itself, unchanged; a
    batch norm is left where it stands if folding it would change the score.

    Args:
        model: never changed.
        fold: multiply batch norms into the convolutions before them: scores change by rounding only.
        channels_last: keep weights of convolutions, and so the maps, with channels last in memory.
        precision: ``bfloat16`` and ``float16`` compute trunk and neck under autocast (of other models
            everything): the score is then good to about three digits, or four. Maps beyond what float16
            holds make its scores or gradients infinite. ``tf32`` is the model's own away from CUDA.
        compiled: compile the trunk (of other models everything) when it is first called.
        graphed: record gradients of a shape as a CUDA graph (`iqa_models.graphs`); nothing away from CUDA
            or for a stochastic model.
    """
    try:
        made = copy.deepcopy(model)
    except Exception:  # noqa: BLE001 - whatever a model's own state raises: it is used as it is
        return model
    made.eval().requires_grad_(False)
    if fold:
        made = _folded(made)
    if hasattr(made.bare, "crops_ahead"):
        setattr(made.bare, "crops_ahead", True)  # noqa: B010 - an attribute of some models
    if channels_last:
        _lay_channels_last(made)
        if fold and not compiled and can_fuse(made._mean.device):  # a compiler fuses by itself
            made = fused(made, HALVES.get(precision, torch.float32))
    if precision in HALVES:
        _halve(made.bare, HALVES[precision])
    if precision == "float16":
        made.gradient_scale = _scale(model)
    if compiled:
        _compile(made.bare)
    made.tensor_float32 = precision != "model"
    if graphed and made.recordable:
        made.graphs = Graphs()
    return made


def _lay_channels_last(model: nn.Module) -> None:
    """Keep a model's weights of four axes with channels last; those of video have five and no such order."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def fused(model: QualityModel, dtype: torch.dtype) -> QualityModel:
    """Return a copy with its residual stages fused (`iqa_models.fused`), or the model if that changes it.

    A model that reads into its stages, or calls their blocks one by one, stays as it is.

    Args:
        model: a frozen copy with channels last, its batch norms folded.
        dtype: what the stages compute in; in float32 they must give a probe the same score and gradient.
    """
    if model._mean.dtype != torch.float32:
        return model
    made, tried = copy.deepcopy(model), copy.deepcopy(model)
    if not _fuse(tried, torch.float32):
        return model
    try:
        same = _agree(model, tried, probe(model))
    except Exception:  # noqa: BLE001 - whatever a model raises that misses its blocks: not fused
        return model
    if not same:
        return model
    _fuse(made, dtype)
    return made


def _fuse(model: QualityModel, dtype: torch.dtype) -> int:
    """Fuse the parts that `_halve` covers; return how many stages there were."""
    return sum(fuse(part, dtype) for part in _parts(model.bare) or [model.bare])


def probe(model: QualityModel) -> Tensor:
    """Return one image (1, 3, H, W) of noise, of the size and on the device a model takes."""
    side = model.spec.fixed_size or max(model.spec.min_size, PROBE_SIDE)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0), device="cpu")
    return image.to(next(iter(model.buffers())))


def _folded(model: QualityModel) -> QualityModel:
    """Return a copy without the batch norms that follow a convolution, or the model if that changes it."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    image = probe(model)
    made = copy.deepcopy(model)
    try:
        pairs = _pairs(made, image)
        for pair in pairs:
            _fold(made, pair)
        same = bool(pairs) and _agree(model, made, image)
    except Exception:  # noqa: BLE001 - a model that reads its batch norms, or refuses the probe: not folded
        return model
    return made if same else model


def _pairs(model: QualityModel, image: Tensor) -> list[_Pair]:
    """Watch a pass and return each convolution whose every output went straight into one batch norm."""
    from timm.layers import BatchNormAct2d, Conv2dSame

    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is held, so that no other takes its id
    calls: dict[nn.Module, int] = {}
    met: dict[_Pair, int] = {}
    hooks = []

    def leave(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)  # noqa: S101 - hooked below
        made[id(output)] = (module, output)
        calls[module] = calls.get(module, 0) + 1

    def enter(module: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)  # noqa: S101 - hooked below
        calls[module] = calls.get(module, 0) + 1
        source = made.get(id(given[0]))
        if source is not None:
            pair = _Pair(source[0], module)
            met[pair] = met.get(pair, 0) + 1

    for module in model.modules():
        # Exact types: a subclass may compute something else, as convolutions that standardise their weights.
        if _hooked(module):
            continue
        if type(module) in (nn.Conv2d, Conv2dSame):
            hooks.append(module.register_forward_hook(leave))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(enter))
    try:
        with seeded(0), torch.no_grad():
            model(image.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return [p for p, times in met.items() if calls[p.convolution] == times == calls[p.norm]]


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fold(model: nn.Module, pair: _Pair) -> None:
    """Write a batch norm into its convolution and leave only its activation."""
    convolution, norm = pair
    exact = [
        None if tensor is None else tensor.detach().double()
        for tensor in (
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
    ]  # fmt: skip
    weight, bias, mean, variance, scale, shift = exact
    assert weight is not None and mean is not None and variance is not None  # noqa: S101
    folded = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)
    convolution.weight, convolution.bias = (
        nn.Parameter(tensor.to(convolution.weight.dtype), requires_grad=False) for tensor in folded
    )
    # timm's batch norm carries drop-out (nothing in eval mode) and the activation that follows.
    after = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is norm:
                setattr(parent, name, nn.Sequential(*after).eval())


def _agree(model: QualityModel, other: QualityModel, image: Tensor) -> bool:
    """Whether two models give a probe the same score and the same gradient, up to rounding."""
    (score, gradient), (score2, gradient2) = (_score_and_gradient(m, image) for m in (model, other))
    low, high = model.spec.score_range
    span = max(high - low, abs(float(score)))
    near = abs(float(score2) - float(score)) <= FOLDED_SCORE * span
    return near and float((gradient2 - gradient).abs().sum()) <= FOLDED_GRADIENT * float(gradient.abs().sum())


def _score_and_gradient(model: QualityModel, image: Tensor) -> tuple[Tensor, Tensor]:
    leaf = image.clone().requires_grad_()
    # A stochastic model draws the same twice; a folded one differs by rounding, of float32 and no coarser.
    with seeded(0), torch.enable_grad(), float32_products(image.device):
        score = model(leaf.clone()).sum()  # one that writes into its input may not write into a leaf
        (gradient,) = torch.autograd.grad(score, leaf)
    return score.detach().double(), gradient.double()


def _parts(model: QualityModel) -> list[nn.Module]:
    """Return the children that carry the work in the models of this package, none of other models."""
    return [child for name, child in model.named_children() if name in HALVED]


def _scale(model: QualityModel) -> float:
    """Return the power of two that brings the largest entry of a probe's gradient near 2**LARGEST."""
    largest = float(_score_and_gradient(model, probe(model))[1].abs().max())
    return 2.0 ** (LARGEST - math.frexp(largest)[1]) if 0 < largest < math.inf else 1.0


def _halve(model: QualityModel, precision: torch.dtype) -> None:
    parts = _parts(model)
    for part in parts:
        # The attribute hides the method of the class for this copy only.
        part.forward = _computed_in(precision, part.forward)
    if not parts:
        for name in ("predict", "predict_drawn"):
            setattr(model, name, _computed_in(precision, getattr(model, name)))  # for this copy only


def _computed_in(precision: torch.dtype, function: Callable[..., Any]) -> Callable[..., Any]:
    def computed(images: Any, *rest: Any) -> Any:
        device = (images if isinstance(images, Tensor) else images[0]).device.type
        with torch.autocast(device, dtype=precision):
            output = function(images, *rest)
        return _widened(output)

    return computed


def _widened(output: Any) -> Any:
    """Return maps in float32 again; a neck's trace is read by a head that widens it itself."""
    if isinstance(output, list):
        return [_widened(each) for each in output]
    if isinstance(output, Tensor) and output.dtype in HALVES.values():
        return output.float()
    return output


def _compile(model: QualityModel) -> None:
    trunks = [child for name, child in model.named_children() if name == "trunk"]
    for trunk in trunks:
        trunk.forward = torch.compile(trunk.forward)
    if not trunks:
        setattr(model, "predict", torch.compile(model.predict))  # noqa: B010 - a method, for this copy only
