"""Stages of a residual network whose biases, sums and rectifiers take one pass over memory, not several.

On a card the input gradient of a ResNet waits for memory: between two convolutions the same map is read and
written for the bias, for the sum and for the rectifier, and as often on the way back. Here each of these is
one kernel (`iqa_models.kernels`), forward and backward, and nothing is kept but what the rectifiers gave.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Convolution(NamedTuple):
    """A convolution without its bias."""

    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def of(self, maps: Tensor) -> Tensor:
        """Return what it makes of maps."""
        return nn.functional.conv2d(
            maps, self.weight, None, self.stride, self.padding, self.dilation, self.groups
        )

    def back(self, slopes: Tensor, maps: Tensor) -> Tensor:
        """Return the slopes of its input, given those of its output."""
        found: Tensor = torch.ops.aten.convolution_backward(
            slopes, maps, self.weight, None, self.stride, self.padding, self.dilation, False,
            [0, 0], self.groups, [True, False, False],
        )[0]  # fmt: skip
        return found.contiguous(memory_format=torch.channels_last)


class _Block(NamedTuple):
    """A residual block: convolutions with rectifiers between, the input added before the last one."""

    convolutions: list[_Convolution]
    biases: list[Tensor]
    """(C,) float32 each; the last holds the shortcut's, too."""
    shortcut: _Convolution | None


class Stage(nn.Module):
    """Residual blocks one after another: maps (B, C, H, W) in, their maps out, channels last.

    Without parameters: it is a part of a frozen copy, and gives a gradient to its input only.
    """

    def __init__(self, blocks: list[_Block], dtype: torch.dtype) -> None:
        super().__init__()
        self.blocks, self.dtype = blocks, dtype

    def forward(self, maps: Tensor) -> Tensor:
        """Run all blocks in the precision of the stage."""
        last = maps.to(self.dtype).contiguous(memory_format=torch.channels_last)
        result: Tensor = _Blocks.apply(last, self.blocks)
        return result


class _Blocks(torch.autograd.Function):
    """The blocks of a stage, with the way back written by hand."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, blocks: list[_Block]) -> Tensor:
        kept = [maps]
        for convolutions, biases, shortcut in blocks:
            start = kept[-1]
            for place, (convolution, bias) in enumerate(zip(convolutions, biases, strict=True)):
                last = place == len(convolutions) - 1
                made = convolution.of(kept[-1]).contiguous(memory_format=torch.channels_last)
                added = (start if shortcut is None else shortcut.of(start)) if last else None
                kept.append(_rectified(made, bias, added))
        ctx.save_for_backward(*kept)
        ctx.blocks = blocks
        return kept[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        kept = list(ctx.saved_tensors)
        slopes = given[0].clone(memory_format=torch.channels_last)
        slopes = _masked(slopes, kept[-1], None)
        for place, (convolutions, _, shortcut) in reversed(list(enumerate(ctx.blocks))):
            outer = slopes
            for inner, convolution in reversed(list(enumerate(convolutions))):
                kept.pop()
                slopes = convolution.back(slopes, kept[-1])
                if inner:
                    slopes = _masked(slopes, kept[-1], None)
            around = outer if shortcut is None else shortcut.back(outer, kept[-1])
            # The stage's own input was rectified elsewhere, or not at all.
            slopes = _masked(slopes, kept[-1], around) if place else slopes.add_(around)
        return slopes, None


def _rectified(maps: Tensor, bias: Tensor, other: Tensor | None) -> Tensor:
    """Return max(maps + bias + other, 0), in the memory of the maps."""
    if maps.is_cuda:
        from iqa_models.kernels import MOST, rectify

    if maps.is_cuda and maps.numel() < MOST:
        same = None if other is None else other.contiguous(memory_format=torch.channels_last)
        with torch.cuda.device(maps.device):  # where Triton starts its kernels
            rectify(maps, bias, same)
        return maps
    total = maps + bias.view(-1, 1, 1)  # bias is float32: so is the sum
    return maps.copy_(torch.relu(total if other is None else total + other))


def _masked(slopes: Tensor, maps: Tensor, other: Tensor | None) -> Tensor:
    """Return slopes + other where maps are positive, 0 elsewhere, in the memory of the slopes."""
    if slopes.is_cuda:
        from iqa_models.kernels import MOST, mask

    if slopes.is_cuda and slopes.numel() < MOST:
        with torch.cuda.device(slopes.device):
            mask(slopes, maps, other)
        return slopes
    return slopes.copy_(torch.where(maps > 0, slopes if other is None else slopes + other, 0))


def fuse(model: nn.Module, dtype: torch.dtype) -> int:
    """Put a `Stage` where a model has a row of plain residual blocks of timm, and return how many it put.

    Args:
        model: a frozen copy whose batch norms are folded; changed in place. What is no such row, or has
            anything else between its convolutions, is left as it is.
        dtype: what the stages compute in.
    """
    made = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Sequential):
                continue
            blocks = list(_blocks(child, dtype))
            if blocks and len(blocks) == len(child):
                setattr(parent, name, Stage(blocks, dtype).eval())
                made += 1
    return made


def can_fuse(device: torch.device) -> bool:
    """Whether a device has the kernels: CUDA with Triton, which not every build of torch brings."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def _blocks(stage: nn.Sequential, dtype: torch.dtype) -> Iterator[_Block]:
    """Yield a block for each child that is plain."""
    from timm.models.resnet import BasicBlock, Bottleneck

    for child in stage:
        count = {BasicBlock: 2, Bottleneck: 3}.get(type(child), 0)
        convolutions = [getattr(child, f"conv{i}") for i in range(1, count + 1)]
        shortcut = _shortcut(getattr(child, "downsample", None))
        if count and _plain(child, count) and all(map(_folded, [*convolutions, *shortcut])):
            biases = [c.bias.detach().float() for c in convolutions]
            for each in shortcut:
                biases[-1] = biases[-1] + each.bias.detach().float()
            taken = [_taken(each, dtype) for each in [*convolutions, *shortcut]]
            yield _Block(taken[:count], biases, taken[count] if shortcut else None)


def _plain(block: nn.Module, count: int) -> bool:
    """Whether nothing but rectifiers stands between the convolutions of a block."""
    if any(module._forward_hooks or module._forward_pre_hooks for module in block.modules()):
        return False
    inner = [getattr(block, f"{part}{i}") for part in ("bn", "act") for i in range(1, count + 1)]
    idle = [*inner[:count], getattr(block, "drop_block", None), getattr(block, "aa", None)]
    nothing = getattr(block, "se", None) is None and getattr(block, "drop_path", None) is None
    return nothing and all(map(_idle, idle)) and all(type(act) is nn.ReLU for act in inner[count:])


def _idle(module: nn.Module | None) -> bool:
    """Whether a module gives back what it is given."""
    if isinstance(module, nn.Sequential):
        return all(map(_idle, module))
    return module is None or type(module) is nn.Identity


def _shortcut(module: nn.Module | None) -> list[Any]:
    """Return the convolution of a shortcut, nothing where the input itself is added."""
    if isinstance(module, nn.Sequential) and len(module) and all(map(_idle, module[1:])):
        return [module[0]]
    return [] if module is None else [module]


def _folded(module: object) -> bool:
    """Whether a module is a convolution that had a batch norm, with zeros around."""
    return type(module) is nn.Conv2d and module.bias is not None and module.padding_mode == "zeros"


def _taken(module: nn.Conv2d, dtype: torch.dtype) -> _Convolution:
    weight = module.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
    padding = module.padding
    assert not isinstance(padding, str)  # noqa: S101 - timm's blocks give numbers
    return _Convolution(weight, module.stride, padding, module.dilation, module.groups)
