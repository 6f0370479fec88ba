"""Training losses: closeness to the label, and agreement of a batch with its labels.

Scores and targets are (B,). A batch without a pair of different labels has no order: its ranking losses
are 0 with a zero gradient, its correlation losses 1.

The `*_author` forms are those of SMART-IQA's published code, kept to repeat its comparison of losses; the
others are what the names promise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from iqa_attacks.objectives import soft_ranks
from iqa_harness.training.config import TrainConfig

SAME_LABEL = 1e-6
"""Labels closer than this are equal: their pair has no order."""

_SQRT2 = math.sqrt(2)


def training_loss(config: TrainConfig, scores: Tensor, targets: Tensor, span: float) -> Tensor:
    """Return the loss that the settings name.

    Args:
        config: which loss, its reading, its weights and widths.
        scores: (B,), on the scale of `config.loss_scale`.
        targets: (B,), on the same scale.
        span: length of that scale: 1, or that of the model's score range.
    """
    author = config.loss_reading == "author"
    if config.loss == "smooth_l1_plcc":
        loss = quality_loss(
            scores, targets, beta=config.smooth_l1_beta * span, plcc_weight=config.plcc_weight
        )
    elif config.loss == "l1":
        loss = functional.l1_loss(scores, targets)
    elif config.loss == "l2":
        loss = functional.mse_loss(scores, targets)
    elif config.loss == "rank":
        loss = (rank_author_loss if author else rank_loss)(scores, targets)
    elif config.loss == "pairwise":
        sigma = config.pairwise_sigma * span
        loss = (
            pairwise_author_loss(scores, targets) if author else pairwise_loss(scores, targets, sigma=sigma)
        )
    elif config.loss == "srcc" and author:
        loss = correlation_loss(scores, targets)
    else:
        loss = soft_spearman_loss(scores, targets, temperature=config.rank_temperature)
    if config.hinge_weight:
        loss = loss + config.hinge_weight * hinge_loss(scores, targets, margin=config.hinge_margin)
    return loss


def plcc_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - PLCC of scores (B,) and targets (B,): 0 at best, 2 at worst, 1 if either is constant."""
    s, t = scores - scores.mean(), targets - targets.mean()
    # The floor keeps value and gradient finite on constant scores.
    norm = (s.square().sum() + 1e-8).sqrt() * (t.square().sum() + 1e-8).sqrt()
    return 1 - (s * t).sum() / norm


def quality_loss(scores: Tensor, targets: Tensor, *, beta: float, plcc_weight: float) -> Tensor:
    """Return smooth L1 with threshold `beta` plus `plcc_weight` times `plcc_loss`; both inputs (B,)."""
    loss = functional.smooth_l1_loss(scores, targets, beta=beta)
    return loss + plcc_weight * plcc_loss(scores, targets)


def correlation_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - sum(s t) / (sqrt(sum s^2 sum t^2) + 1e-8), s and t centred.

    SMART-IQA's code calls it the SRCC loss; it is 1 - PLCC.
    """
    s, t = scores - scores.mean(), targets - targets.mean()
    squares = s.square().sum() * t.square().sum()
    # The root has no slope at 0: constant scores or labels take the branch without it.
    root = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
    loss: Tensor = 1 - torch.where(squares > 0, (s * t).sum() / (root + 1e-8), (s * t).sum() * 0)
    return loss


def soft_spearman_loss(scores: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Return 1 - Spearman's correlation with soft ranks of the scores: 0 at best, 2 at worst.

    Soft ranks are 1/2 + sum_j sigmoid((s_i - s_j) / (temperature std(s))); the labels' ranks are exact, ties
    shared. Shifting or stretching the scores changes nothing. Equal scores have no ranks: 1, and no gradient.
    """
    wanted = (targets.unsqueeze(1) - targets.unsqueeze(0)).sign().sum(dim=1).to(scores)
    spread = scores.detach().std(correction=0)
    if not bool(spread > 0) or not bool(wanted.any()):
        return 1 + (scores * 0).sum()
    ranks = soft_ranks(scores, temperature * scores.std(correction=0))
    centred = ranks - ranks.mean()
    loss: Tensor = 1 - (centred * wanted).sum() / (centred.norm() * wanted.norm())
    return loss


def rank_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over pairs of relu(|q_i - q_j| - sign(q_i - q_j) (p_i - p_j)).

    Zero when every pair is in order and at least as far apart as its labels.
    """
    p, q = _differences(scores), _differences(targets)
    return _mean_over_pairs(functional.relu(q.abs() - q.sign() * p), q)


def rank_author_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over pairs of relu(|p_i - p_j| - e (q_i - q_j)), e = +1 if p_i >= p_j else -1.

    The roles of scores and labels are swapped: pairs in the right order are only pulled together.
    """
    p, q = _differences(scores), _differences(targets)
    order = torch.where(p >= 0, 1.0, -1.0).to(p)
    return _mean_over_pairs(functional.relu(p.abs() - order * q), q)


def pairwise_loss(scores: Tensor, targets: Tensor, *, sigma: float) -> Tensor:
    """Return the fidelity loss of pairs, Thurstone's model with scores and labels of spread `sigma`.

    Mean over pairs of 1 - sqrt(Pq Pp) - sqrt((1 - Pq) (1 - Pp)), P = Phi(difference / (sigma sqrt 2)).
    """
    p, q = _differences(scores), _differences(targets)
    return _mean_over_pairs(_fidelity(_phi(q / (sigma * _SQRT2)), _phi(p / (sigma * _SQRT2))), q)


def pairwise_author_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the fidelity loss as SMART-IQA's code has it, its widths fixed whatever the scale.

    Pq = sigmoid(q_i - q_j), Pp = sigmoid(1.702 (p_i - p_j) / (.1 sqrt 2)); on 0..100 both saturate.
    """
    p, q = _differences(scores), _differences(targets)
    return _mean_over_pairs(_fidelity(q.sigmoid(), (1.702 * p / (0.1 * _SQRT2)).sigmoid()), q)


def hinge_loss(scores: Tensor, targets: Tensor, *, margin: float) -> Tensor:
    """Return the mean over pairs with different labels of relu(margin - sign(q_i - q_j) (p_i - p_j))."""
    p, q = _differences(scores), _differences(targets)
    return _mean_over_pairs(functional.relu(margin - q.sign() * p), q, threshold=0.0)


def _differences(values: Tensor) -> Tensor:
    return values.unsqueeze(1) - values.unsqueeze(0)


def _phi(values: Tensor) -> Tensor:
    share: Tensor = torch.special.ndtr(values)
    return share


def _fidelity(wanted: Tensor, found: Tensor) -> Tensor:
    # 1e-8 under each root, as published: the root has no slope at 0.
    both = (wanted * found + 1e-8).sqrt() + ((1 - wanted) * (1 - found) + 1e-8).sqrt()
    return 1 - both


def _mean_over_pairs(terms: Tensor, label_differences: Tensor, threshold: float = SAME_LABEL) -> Tensor:
    """Return the mean of terms (B, B) over ordered pairs of different labels, 0 if there is none."""
    pairs = label_differences.abs() > threshold
    total: Tensor = torch.where(pairs, terms, torch.zeros_like(terms)).sum()
    return total / pairs.sum().clamp_min(1)
