"""Which keys are landmarks: pure functions from keys to indices (paper 3.3).

Indices carry no gradient; the rows they select do. With as many landmarks as keys every rule selects
all keys, in their own order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iqa_models.srm.config import SRMConfig
from iqa_models.srm.tokens import critical_dtype, without_autocast


@torch.no_grad()
def leverage_scores(keys: Tensor, ridge: float, floor: float) -> Tensor:
    """Return the ridge leverage k^T (K^T K + lambda I)^-1 k of each key.

    Args:
        keys: (..., N, d).
        ridge: lambda is this times trace(K^T K) / d, plus `floor`.
        floor: keeps keys of zeros solvable.

    Returns:
        (..., N) in [0, 1], at least float32, by a Cholesky factor.
    """
    with without_autocast(keys):
        exact = keys.to(critical_dtype(keys))
        gram = exact.mT @ exact
        trace = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
        shift = (ridge * trace + floor)[..., None, None]
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        # The unchecked form spares a device a wait; keys that are not finite give scores that are not.
        factor = torch.linalg.cholesky_ex(gram + shift * eye).L
        # k^T (L L^T)^-1 k is the squared length of L^-1 k.
        scores: Tensor = torch.linalg.solve_triangular(factor, exact.mT, upper=False).square().sum(-2)
        return scores


def largest(scores: Tensor, count: int) -> Tensor:
    """Return the indices (..., count) of the largest scores (..., N); of equal ones the first."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count]


def uniform(keys: Tensor, count: int) -> Tensor:
    """Return `count` evenly spaced indices (..., count) of keys (..., N, d)."""
    size = keys.shape[-2]
    steps = (2 * torch.arange(count, device=keys.device) + 1) * size // (2 * count)
    return steps.expand(*keys.shape[:-2], count)


def sampled(scores: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw indices (..., count) without replacement, with probability proportional to scores (..., N)."""
    # Zero scores stay drawable: there must be `count` of them that are.
    weights = scores.clamp_min(torch.finfo(scores.dtype).tiny).flatten(0, -2)
    drawn = torch.multinomial(weights, count, replacement=False, generator=generator)
    return drawn.reshape(*scores.shape[:-1], count)


@torch.no_grad()
def refine(keys: Tensor, candidates: Tensor, count: int, steps: int, seed: int) -> Tensor:
    """Choose `count` of the candidate keys by k-means++ and Lloyd steps, then the keys nearest the means.

    The numbers that k-means++ draws are fixed by `seed` and the same for every batch element, so the
    choice is a function of the keys.

    Args:
        keys: (..., N, d).
        candidates: indices (..., M) into the keys, M >= count.
        count: landmarks wanted.
        steps: Lloyd steps.
        seed: of k-means++.

    Returns:
        Indices (..., count) into the keys.
    """
    points = select(keys, candidates).to(critical_dtype(keys))
    with without_autocast(points):
        means = _spread_seeds(points, count, seed)
        for _ in range(steps):
            nearest = torch.cdist(points, means).argmin(-1)
            member = torch.nn.functional.one_hot(nearest, count).to(points.dtype)
            size = member.sum(-2).unsqueeze(-1)
            # A mean without members stays where it is.
            means = torch.where(size > 0, (member.mT @ points) / size.clamp_min(1), means)
        chosen = torch.cdist(means, points).argmin(-1)
    return candidates.gather(-1, chosen)


def _spread_seeds(points: Tensor, count: int, seed: int) -> Tensor:
    """Return k-means++ seeds (..., count, d) of points (..., M, d): each drawn by squared distance."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu").tolist()
    lead, size = points.shape[:-2], points.shape[-2]
    first = torch.full((*lead, 1), int(draws[0] * size), device=points.device)
    seeds = [select(points, first)]
    distance = (points - seeds[0]).square().sum(-1)
    for draw in draws[1:]:
        total = distance.cumsum(-1)
        # The first point whose cumulated distance exceeds the share; equal points all end at the last.
        index = (total <= draw * total[..., -1:]).sum(-1, keepdim=True).clamp_max(size - 1)
        seeds.append(select(points, index))
        distance = torch.minimum(distance, (points - seeds[-1]).square().sum(-1))
    return torch.cat(seeds, dim=-2)


def select(rows: Tensor, indices: Tensor) -> Tensor:
    """Return rows (..., r, d) of (..., N, d) at indices (..., r)."""
    return rows.gather(-2, indices.unsqueeze(-1).expand(*indices.shape, rows.shape[-1]))


def choose_landmarks(
    keys: Tensor, config: SRMConfig, *, training: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Return the indices (..., r) of the landmarks among keys (..., N, d), r at most N.

    Args:
        keys: as they enter the attention.
        config: rank, rule, ridge and refinement.
        training: whether the rule ``sampled`` draws.
        generator: what it draws from, torch's global one if None.
    """
    size = keys.shape[-2]
    count = min(config.rank, size)
    if count == size:
        return torch.arange(size, device=keys.device).expand(*keys.shape[:-2], size)
    pool = min(size, count * config.kmeans_candidates) if config.kmeans else count
    if config.landmarks == "uniform":
        chosen = uniform(keys, pool)
    else:
        scores = leverage_scores(keys, config.leverage_ridge, config.leverage_floor)
        draw = config.landmarks == "sampled" and training
        chosen = sampled(scores, pool, generator) if draw else largest(scores, pool)
    return refine(keys, chosen, count, config.kmeans_steps, config.kmeans_seed) if config.kmeans else chosen
