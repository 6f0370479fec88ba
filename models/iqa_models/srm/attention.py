"""Cross-attention in two forms: Nystroem with landmarks, and full softmax (paper 3.3).

Queries (B, H, Nq, d), keys and values (B, H, Nk, d). The large blocks keep the model's precision; the
landmark system is at least float32 from its logits to its solution, whatever autocast says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_models.srm.config import SRMConfig
from iqa_models.srm.landmarks import select
from iqa_models.srm.solve import regularised, solve_system
from iqa_models.srm.tokens import critical_dtype, without_autocast


class LandmarkSystem(NamedTuple):
    """What the landmarks gave, for diagnostics."""

    matrix: Tensor
    """W_lambda (B, H, r, r)."""
    right: Tensor
    """R V (B, H, r, d)."""
    solution: Tensor
    """(B, H, r, d)."""
    fell_back: Tensor
    """(B, H), bool: the Neumann series was refused."""


def softmax_block(rows: Tensor, columns: Tensor) -> Tensor:
    """Return softmax(A B^T / sqrt d) of rows (..., n, d) and columns (..., m, d): (..., n, m)."""
    return torch.softmax(rows @ columns.mT / math.sqrt(rows.shape[-1]), dim=-1)


def full_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return softmax(Q K^T / sqrt d) V: (B, H, Nq, d), by the whole Nq x Nk matrix."""
    return softmax_block(queries, keys) @ values


def nystroem_attention(
    queries: Tensor, keys: Tensor, values: Tensor, landmarks: Tensor, config: SRMConfig
) -> tuple[Tensor, LandmarkSystem]:
    """Return softmax(Q K~^T) W_lambda^-1 softmax(K~ K^T) V (B, H, Nq, d), and what the landmarks gave.

    No Nq x Nk matrix is made.

    Args:
        queries: (B, H, Nq, d).
        keys: (B, H, Nk, d).
        values: (B, H, Nk, d).
        landmarks: indices (B, H, r) into the keys.
        config: ridge and solver.
    """
    centres = select(keys, landmarks)
    left = softmax_block(queries, centres)
    context = softmax_block(centres, keys) @ values
    with without_autocast(keys):
        exact = centres.to(critical_dtype(centres))
        matrix = regularised(softmax_block(exact, exact), config.ridge)
        right = context.to(exact.dtype)
        solved = solve_system(matrix, right, config)
    output = left @ solved.solution.to(left.dtype)
    system = LandmarkSystem(matrix.detach(), right.detach(), solved.solution.detach(), solved.fell_back)
    return output.to(values.dtype), system
