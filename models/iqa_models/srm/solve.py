"""The landmark system W_lambda Y = R V: regularised, scaled, solved, and judged (paper 3.4).

Matrices are (..., r, r), right sides (..., r, d). Nothing here forms an inverse that is then multiplied
again, and no gradient passes through a singular value decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iqa_models.srm.config import SRMConfig

RESIDUAL_EPSILON = 1e-12
"""Added to the right side's norm in the relative residual."""


class Solved(NamedTuple):
    """A solution, and whether the route asked for was left."""

    solution: Tensor
    """(..., r, d)."""
    fell_back: Tensor
    """(...), bool: the Neumann series was refused and the default route taken."""


class Scaled(NamedTuple):
    """A matrix with rows and columns of like size: ``matrix = left A right``."""

    matrix: Tensor
    """(..., r, r)."""
    left: Tensor
    """Row factors (..., r, 1)."""
    right: Tensor
    """Column factors (..., r, 1), as they multiply a solution."""


def regularised(block: Tensor, ridge: float) -> Tensor:
    """Return W + lambda I with lambda = ridge * trace(W) / r, of W (..., r, r)."""
    shift = ridge * block.diagonal(dim1=-2, dim2=-1).mean(-1)
    eye = torch.eye(block.shape[-1], dtype=block.dtype, device=block.device)
    return block + shift[..., None, None] * eye


@torch.no_grad()
def condition_number(matrix: Tensor) -> Tensor:
    """Return sigma_max / sigma_min (...) of matrices (..., r, r)."""
    sigma = torch.linalg.svdvals(matrix)
    kappa: Tensor = sigma[..., 0] / sigma[..., -1].clamp_min(torch.finfo(sigma.dtype).tiny)
    return kappa


@torch.no_grad()
def relative_residual(matrix: Tensor, solution: Tensor, right: Tensor) -> Tensor:
    """Return ||A Y - B||_F / (||B||_F + 1e-12), (...)."""
    norm = torch.linalg.matrix_norm
    residual: Tensor = norm(matrix @ solution - right) / (norm(right) + RESIDUAL_EPSILON)
    return residual


def equilibrated(matrix: Tensor) -> Scaled:
    """Scale (..., r, r) by one over the square roots of its row and column norms, both of the input."""
    tiny = torch.finfo(matrix.dtype).tiny
    left = torch.linalg.vector_norm(matrix, dim=-1).clamp_min(tiny).rsqrt().unsqueeze(-1)
    right = torch.linalg.vector_norm(matrix, dim=-2).clamp_min(tiny).rsqrt().unsqueeze(-1)
    return Scaled(left * matrix * right.mT, left, right)


class _PseudoInverse(torch.autograd.Function):
    """Y = A^+ B by SVD; the gradient is that of the linear system, A^T again, not that of the SVD.

    The SVD's own gradient divides by differences of singular values, and W_lambda has equal ones as
    soon as landmarks repeat.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, right: Tensor) -> Tensor:
        u, sigma, vh = torch.linalg.svd(matrix)
        cutoff = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * sigma[..., :1]
        inverse = torch.where(sigma > cutoff, 1 / sigma, torch.zeros_like(sigma)).unsqueeze(-1)
        solution: Tensor = vh.mT @ (inverse * (u.mT @ right))
        # One step of refinement: three products in float32 lose a digit that LU keeps.
        solution = solution + vh.mT @ (inverse * (u.mT @ (right - matrix @ solution)))
        ctx.save_for_backward(matrix, u, inverse, vh, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        matrix, u, inverse, vh, solution = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Under create_graph the factors are no constants: solve anew, as a function of the matrix.
            to_right = _PseudoInverse.apply(matrix.mT, gradient)
        else:
            to_right = u @ (inverse * (vh @ gradient))
        return -to_right @ solution.mT, to_right


def solve_svd(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve by the SVD pseudo-inverse, with a gradient that is finite at repeated singular values."""
    solution: Tensor = _PseudoInverse.apply(matrix, right)
    return solution


def solve_default(matrix: Tensor, right: Tensor, kappa_max: float) -> Tensor:
    """Solve by LU where the condition number is at most `kappa_max`, else by the SVD pseudo-inverse.

    Each matrix is judged alone, so an image's solution does not depend on its batch.
    """
    if matrix.is_meta:
        # Values decide the route and meta tensors have none; the shapes are the same on both.
        solution: Tensor = torch.linalg.solve(matrix, right)
        return solution
    well = condition_number(matrix) <= kappa_max
    return _per_matrix(well, matrix, right, torch.linalg.solve, solve_svd)


def spectral_norm(matrix: Tensor, iterations: int) -> Tensor:
    """Estimate ||A||_2 (...) of (..., r, r) by power iteration on A^T A from a fixed vector.

    The singular vectors are held constant, which leaves the norm's exact gradient once they converged.
    """
    tiny = torch.finfo(matrix.dtype).tiny

    def unit(vector: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
        return vector / length.clamp_min(tiny)

    # A random direction: rows of W sum to one, so a constant vector would hide all but one singular value.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[-1], 1, generator=generator, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        right = unit(start.to(matrix)).expand(*matrix.shape[:-1], 1)
        for _ in range(iterations):
            left = unit(matrix @ right)
            right = unit(matrix.mT @ left)
        left = unit(matrix @ right)
    norm: Tensor = (left * (matrix @ right)).sum((-2, -1))
    return norm


def neumann_series(matrix: Tensor, right: Tensor, terms: int, iterations: int) -> Tensor:
    """Return c * sum_{k=0..terms} (I - c A)^k B with c = 1 / ||A||_2, by Horner's rule.

    Args:
        matrix: A (..., r, r).
        right: B (..., r, d).
        terms: last power.
        iterations: of the power iteration for c, through which the gradient passes too.
    """
    scale = (1 / spectral_norm(matrix, iterations))[..., None, None]
    scaled = scale * right
    solution = scaled
    for _ in range(terms):
        solution = scaled + solution - scale * (matrix @ solution)
    return solution


def solve_neumann(matrix: Tensor, right: Tensor, config: SRMConfig) -> Solved:
    """Solve by a Neumann series, and by the default route where that must not be trusted.

    Args:
        matrix: (..., r, r).
        right: (..., r, d).
        config: the series' last power, its largest relative residual that is kept, iterations for
            c = 1 / ||A||_2 and for ||I - c A||_2, which must be < 1; and kappa_max of the default route.
    """
    iterations = config.power_iterations

    def by_series(some: Tensor, sides: Tensor) -> Tensor:
        return neumann_series(some, sides, config.neumann_terms, iterations)

    def by_default(some: Tensor, sides: Tensor) -> Tensor:
        return solve_default(some, sides, config.kappa_max)

    if matrix.is_meta:
        # Values decide what is kept and meta tensors have none.
        kept = torch.ones(matrix.shape[:-2], dtype=torch.bool, device="meta")
        return Solved(by_series(matrix, right), ~kept)
    # Decided first and without gradient: a series that diverges must not meet a gradient of zero.
    with torch.no_grad():
        scale = 1 / spectral_norm(matrix, iterations)
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        contracts = spectral_norm(eye - scale[..., None, None] * matrix, iterations) < 1
        residual = relative_residual(matrix, by_series(matrix, right), right)
        kept = contracts & (residual < config.neumann_residual)
    return Solved(_per_matrix(kept, matrix, right, by_series, by_default), ~kept)


def solve_system(matrix: Tensor, right: Tensor, config: SRMConfig) -> Solved:
    """Solve A Y = B of (..., r, r) and (..., r, d) by the config's route."""
    if config.equilibrate:
        scaled = equilibrated(matrix)
        inner = _solve(scaled.matrix, scaled.left * right, config)
        return Solved(scaled.right * inner.solution, inner.fell_back)
    return _solve(matrix, right, config)


def _solve(matrix: Tensor, right: Tensor, config: SRMConfig) -> Solved:
    if config.solver == "neumann":
        return solve_neumann(matrix, right, config)
    if config.solver == "default":
        solution = solve_default(matrix, right, config.kappa_max)
    else:
        solution = (torch.linalg.solve if config.solver == "lu" else solve_svd)(matrix, right)
    return Solved(solution, torch.zeros(matrix.shape[:-2], dtype=torch.bool, device=matrix.device))


Route = Callable[[Tensor, Tensor], Tensor]


def _per_matrix(use_first: Tensor, matrix: Tensor, right: Tensor, first: Route, second: Route) -> Tensor:
    """Solve each system of a batch by one of two routes, chosen by `use_first` (...)."""
    if bool(use_first.all()):
        return first(matrix, right)
    if not bool(use_first.any()):
        return second(matrix, right)
    mask = use_first[..., None, None]
    solution = right.masked_scatter(mask, first(matrix[use_first], right[use_first]))
    return solution.masked_scatter(~mask, second(matrix[~use_first], right[~use_first]))
