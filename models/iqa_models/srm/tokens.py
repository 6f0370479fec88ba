"""Maps to tokens and back, tokens to heads and back (paper 3.2), and the precision they are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

NORM_EPSILON = 1e-6
"""Added to a token's length, so that a token of zeros can be divided by it."""


def to_tokens(maps: Tensor) -> Tensor:
    """Flatten maps (B, C, H, W) to tokens (B, H * W, C)."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, height: int, width: int) -> Tensor:
    """Fold tokens (B, height * width, C) back to maps (B, C, height, width)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Split tokens (B, N, C) into heads (B, heads, N, C / heads)."""
    batch, count, width = tokens.shape
    return tokens.reshape(batch, count, heads, width // heads).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """Join heads (B, H, N, d) to tokens (B, N, H * d)."""
    return heads.transpose(1, 2).flatten(2)


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Divide each token (..., d) by its length plus `NORM_EPSILON`; the type stays."""
    exact = tokens.to(critical_dtype(tokens))
    length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    unit: Tensor = exact / (length + NORM_EPSILON)
    return unit.to(tokens.dtype)


def critical_dtype(x: Tensor) -> torch.dtype:
    """Return float32 for a half-precision tensor, else the tensor's own type (paper 3.4, step 1)."""
    return torch.promote_types(x.dtype, torch.float32)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off for the device of `x`, where it has one (the meta device has not)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
