"""What an attack maximises: a number made from scores, never from pixels.

By the chain rule dL/dx_i = (dL/df_i) grad f(x_i): an objective supplies one number an image, the model
one gradient an image, and all objectives at the same point share that gradient.

Scores and labels arrive on [0, 1]: scores divided by the card's score range, labels by the set's MOS
range. `mse` would be meaningless on two different scales, and tau of `pairwise_inversion` would mean
something else for every model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from iqa_attacks.errors import BadAttackOption, UnknownAttack


class Evaluation(NamedTuple):
    """An objective at given scores, both (B,)."""

    loss: Tensor
    """What is maximised; for a batch-level objective the batch's loss, repeated."""
    weight: Tensor
    """dL/df_i, of which the attack uses the sign."""


class Objective(ABC):
    """A loss over scores, to be maximised."""

    name: ClassVar[str]
    batch_level: ClassVar[bool] = False
    """True if the loss couples the images of a batch; the best iterate is then kept a batch."""

    @abstractmethod
    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the loss (B,) of scores (B,), labels (B,) and clean scores (B,), all on [0, 1]."""

    def evaluate(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Evaluation:
        """Return loss and dL/df, by automatic differentiation on the B scores."""
        with torch.enable_grad():
            leaf = scores.detach().clone().requires_grad_()
            loss = self.loss(leaf, mos, clean)
            total = loss.mean() if self.batch_level else loss.sum()
            (weight,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if weight is None:
            weight = torch.zeros_like(scores)
        return Evaluation(loss.detach(), self.resolve(weight, leaf.detach(), mos, clean))

    def resolve(self, weight: Tensor, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the weights with a direction where the derivative has none (default: leave 0)."""
        return weight


class _Distance(Objective):
    """Squared distance from a target: its derivative vanishes at the target, where both ways lead up."""

    def resolve(self, weight: Tensor, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Go up from the target itself, or an attack from the clean image would never leave it."""
        return torch.where(weight == 0, torch.ones_like(weight), weight)


class MSE(_Distance):
    """(f_i - y_i)^2: error against the label (SRM, objective family 1)."""

    name = "mse"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return (f - y)^2."""
        return (scores - mos).square()


class Drift(_Distance):
    """(f_i - f_i^clean)^2: change of the score, label-free (SRM, objective family 2)."""

    name = "drift"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return (f - f_clean)^2."""
        return (scores - clean).square()


class PairwiseInversion(Objective):
    """Mean over pairs y_i > y_j of softplus(-(f_i - f_j) / tau) (SRM eq. 32).

    A batch without a comparable pair has loss 0 and moves no image.
    """

    name = "pairwise_inversion"
    batch_level = True

    def __init__(self, tau: float = 0.1) -> None:
        if not tau > 0:
            raise BadAttackOption(f"tau of pairwise_inversion must be positive, not {tau}")
        self.tau = tau

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the batch's loss, repeated B times."""
        better = mos.unsqueeze(1) > mos.unsqueeze(0)
        terms = softplus(-(scores.unsqueeze(1) - scores.unsqueeze(0)) / self.tau)
        pairs = better.sum()
        total = torch.where(better, terms, torch.zeros_like(terms)).sum()
        return (total / pairs.clamp_min(1)).expand(len(scores))


class Raise(Objective):
    """f_i: the upper end of what is reachable."""

    name = "raise"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return f."""
        return scores * 1


class Lower(Objective):
    """-f_i: the lower end of what is reachable."""

    name = "lower"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return -f."""
        return -scores


_OBJECTIVES: dict[str, Callable[..., Objective]] = {
    cls.name: cls for cls in (MSE, Drift, PairwiseInversion, Raise, Lower)
}


def list_objectives() -> list[str]:
    """Return the names of the objectives, sorted."""
    return sorted(_OBJECTIVES)


def create_objective(name: str, *, tau: float = 0.1) -> Objective:
    """Create an objective by name; `tau` is for `pairwise_inversion`.

    Raises:
        UnknownAttack: no objective of that name.
        BadAttackOption: tau is not positive.
    """
    if name not in _OBJECTIVES:
        raise UnknownAttack(f"no objective {name!r}; there are {', '.join(list_objectives())}")
    return PairwiseInversion(tau) if name == PairwiseInversion.name else _OBJECTIVES[name]()
