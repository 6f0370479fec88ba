"""Precision of matrix products and convolutions on CUDA, which PyTorch sets for a whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_products(device: torch.device, *, tensor_float32: bool = False) -> Iterator[None]:
    """Compute products of float32 numbers in float32 inside, or in TensorFloat-32, and put it back.

    PyTorch lets convolutions use TensorFloat-32 (10 bits of mantissa) unless it is told otherwise; a score
    that is stored must not depend on that.

    Args:
        device: where is computed; only CUDA knows a difference.
        tensor_float32: whether TensorFloat-32 is allowed.
    """
    if device.type != "cuda":
        yield
        return
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32 = convolutions.allow_tf32 = tensor_float32
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before
