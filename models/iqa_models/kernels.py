"""Two kernels for maps with channels last on a CUDA device, one pass over memory each."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers a program works on."""
MOST = 2**31 - BLOCK
"""Numbers maps may have: they are counted in 32 bits."""


def rectify(maps: Tensor, bias: Tensor, other: Tensor | None) -> None:
    """Turn maps (B, C, H, W) into max(maps + bias + other, 0) where they lie, added in float32.

    Args:
        maps: dense, channels last.
        bias: (C,) float32.
        other: like the maps, None for nothing.
    """
    count = maps.numel()
    _rectify[(triton.cdiv(count, BLOCK),)](
        maps, bias, maps if other is None else other, count, maps.shape[1], other is not None, BLOCK
    )


def mask(slopes: Tensor, maps: Tensor, other: Tensor | None) -> None:
    """Turn slopes into slopes + other where maps are positive and 0 elsewhere, where they lie.

    Args:
        slopes: (B, C, H, W), dense, channels last, as all are.
        maps: what a rectifier gave.
        other: slopes to add, None for nothing.
    """
    count = slopes.numel()
    _mask[(triton.cdiv(count, BLOCK),)](
        slopes, maps, slopes if other is None else other, count, other is not None, BLOCK
    )


@triton.jit  # type: ignore[untyped-decorator]
def _rectify(maps, bias, other, count, channels: tl.constexpr, added: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < count
    value = tl.load(maps + at, inside).to(tl.float32) + tl.load(bias + at % channels, inside)
    if added:
        value += tl.load(other + at, inside).to(tl.float32)
    # Written so that what is no number stays none.
    tl.store(maps + at, tl.where(value < 0, 0.0, value).to(maps.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _mask(slopes, maps, other, count, added: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < count
    value = tl.load(slopes + at, inside).to(tl.float32)
    if added:
        value += tl.load(other + at, inside).to(tl.float32)
    kept = tl.where(tl.load(maps + at, inside) > 0, value, 0.0)
    tl.store(slopes + at, kept.to(slopes.dtype.element_ty), inside)
