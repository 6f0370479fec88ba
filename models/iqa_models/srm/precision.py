"""The precision of the critical path: never below float32, whatever autocast or the weights say."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def critical_dtype(x: Tensor) -> torch.dtype:
    """Return float32 for a half-precision tensor, else the tensor's own type (paper 3.4, step 1)."""
    return torch.promote_types(x.dtype, torch.float32)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off for the device of `x`, where it has one (the meta device has not)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
