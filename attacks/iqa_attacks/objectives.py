"""What an attack maximises: a number made from scores, never from pixels.

By the chain rule dL/dx_i = (dL/df_i) grad f(x_i): an objective supplies one number an image, the model
one gradient an image, and all objectives at the same point share that gradient.

Scores and labels arrive on [0, 1]: scores divided by the card's score range, labels by the set's MOS
range. `mse` would be meaningless on two different scales, and tau of `pairwise_inversion` would mean
something else for every model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from iqa_attacks.errors import AttackFailed, BadAttackOption
from iqa_attacks.registry import Registry
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN


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
    setting: ClassVar[str | None] = None
    """Setting of an attack (`tau`, `rank_temperature`) that its constructor takes, None for none."""

    @abstractmethod
    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the loss (B,) of scores (B,), labels (B,) and clean scores (B,), all on [0, 1].

        One finite number an image, in the batch's order; a loss of the whole batch is repeated B times.
        """

    def value(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the loss, checked.

        Raises:
            AttackFailed: it is not one number an image, or not finite.
        """
        loss = self.loss(scores, mos, clean)
        if not isinstance(loss, Tensor) or loss.shape != scores.shape:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise AttackFailed(
                f"objective {self.name!r}: the loss of {len(scores)} images must be a tensor of shape "
                f"({len(scores)},), one number an image, not {shape}"
            )
        if not bool(loss.isfinite().all()):
            i = int((~loss.isfinite()).nonzero()[0])
            raise AttackFailed(
                f"objective {self.name!r}: the loss is {loss[i].item():g} at score {scores[i].item():g}, "
                f"label {mos[i].item():g}, clean score {clean[i].item():g}; it must be finite everywhere"
            )
        return loss

    def evaluate(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Evaluation:
        """Return loss and dL/df, by automatic differentiation on the B scores.

        Raises:
            AttackFailed: one of them is no finite number an image.
        """
        with torch.enable_grad():
            leaf = scores.detach().clone().requires_grad_()
            loss = self.value(leaf, mos, clean)
            if not loss.requires_grad:
                raise AttackFailed(f"objective {self.name!r}: the loss does not depend on the scores")
            total = loss.mean() if self.batch_level else loss.sum()
            (weight,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if weight is None:
            weight = torch.zeros_like(scores)
        if not bool(weight.isfinite().all()):
            i = int((~weight.isfinite()).nonzero()[0])
            raise AttackFailed(
                f"objective {self.name!r}: the slope of the loss is {weight[i].item():g} at score "
                f"{scores[i].item():g}, label {mos[i].item():g}, clean score {clean[i].item():g}"
            )
        return Evaluation(loss.detach(), self.resolve(weight, leaf.detach(), mos, clean))

    def with_one_changed(self, scores: Tensor, others: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return for every image i the loss (B,) at scores (B,) with score i alone replaced by others[i]."""
        if not self.batch_level:
            return self.value(others, mos, clean)
        losses = torch.empty_like(scores)
        for i in range(len(scores)):
            changed = scores.clone()
            changed[i] = others[i]
            losses[i] = self.value(changed, mos, clean)[i]
        return losses

    def resolve(self, weight: Tensor, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the weights with a direction where the derivative has none (default: leave 0)."""
        return weight


def _check_creatable(cls: type[Objective]) -> None:
    try:
        cls()
    except TypeError as error:
        name = getattr(cls, "name", cls.__name__)
        raise BadAttackOption(f"objective {name!r} must be creatable without arguments: {error}") from error


Class = TypeVar("Class", bound=type[Objective])

_OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    "name",
    Objective,  # type: ignore[type-abstract]  # the base of what is registered, never made itself
    group="iqa_harness.objectives",
    taken=(LOWEST_SEEN, HIGHEST_SEEN, "none"),
    check=_check_creatable,
)


def register_objective(cls: Class) -> Class:
    """Add an objective of your own to the catalogue, under its `name`; a class decorator.

    Attacks and suites in this process then take it by name. The name stands for the formula in stored
    results: give a changed formula another name. Another installed package offers one through the entry
    point group `iqa_harness.objectives`.

    Raises:
        BadAttackOption: the class needs arguments, or the name is taken or not lower case with underscores.
    """
    _OBJECTIVES.add(cls)
    return cls


class _Distance(Objective):
    """Squared distance from a target: its derivative vanishes at the target, where both ways lead up."""

    def resolve(self, weight: Tensor, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Go up from the target itself, or an attack from the clean image would never leave it."""
        return torch.where(weight == 0, torch.ones_like(weight), weight)


@register_objective
class MSE(_Distance):
    """(f_i - y_i)^2: error against the label (SRM, objective family 1)."""

    name = "mse"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return (f - y)^2."""
        return (scores - mos).square()


@register_objective
class Drift(_Distance):
    """(f_i - f_i^clean)^2: change of the score, label-free (SRM, objective family 2)."""

    name = "drift"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return (f - f_clean)^2."""
        return (scores - clean).square()


@register_objective
class PairwiseInversion(Objective):
    """Mean over pairs y_i > y_j of softplus(-(f_i - f_j) / tau) (SRM eq. 32).

    A batch without a comparable pair has loss 0 and moves no image.
    """

    name = "pairwise_inversion"
    batch_level = True
    setting = "tau"

    def __init__(self, tau: float = 0.1) -> None:
        if not tau > 0:
            raise BadAttackOption(f"tau of pairwise_inversion must be positive, not {tau}")
        self.tau = tau

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the batch's loss, repeated B times."""
        return self._mean(scores, mos)[0].expand(len(scores))

    def evaluate(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Evaluation:
        """Return loss and dL/df, written out: a fraction of the time that automatic differentiation takes."""
        mean, worse_by, better, pairs = self._mean(scores, mos)
        if not math.isfinite(float(mean)):
            self.value(scores, mos, clean)  # says where
        # The slope of a term by the worse image's score; by the better one's it is minus that.
        slopes = torch.sigmoid(worse_by) * better
        weight = (slopes.sum(dim=0) - slopes.sum(dim=1)) / pairs / self.tau
        return Evaluation(mean.expand(len(scores)), weight)

    def _mean(self, scores: Tensor, mos: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the mean over pairs, (f_j - f_i) / tau (B, B), whether y_i > y_j (B, B), and the pairs."""
        better = mos.unsqueeze(1) > mos
        worse_by = (scores - scores.unsqueeze(1)) / self.tau
        pairs = better.sum().clamp_min(1)
        # Not multiplied by `better`: a term may be infinite where it does not count.
        return torch.where(better, softplus(worse_by), 0.0).sum() / pairs, worse_by, better, pairs


@register_objective
class Raise(Objective):
    """f_i: the upper end of what is reachable."""

    name = "raise"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return f."""
        return scores * 1


@register_objective
class Lower(Objective):
    """-f_i: the lower end of what is reachable."""

    name = "lower"

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return -f."""
        return -scores


class _Correlation(Objective):
    """Minus a correlation with the labels, over the whole batch, exactly as it is reported.

    Cost O(batch^2) of ranks, on scores only. Where it has no slope, as ranks have none anywhere, every image
    moves against its label. Scores or labels that are all equal have no correlation: the loss is 0.
    """

    batch_level = True

    def loss(self, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Return the batch's loss in [-1, 1], repeated B times."""
        if not (_differ(scores) and _differ(mos)):
            return (scores * 0).sum().expand(len(scores))
        own, wanted = self.of_scores(scores), self.centred(mos).to(scores)
        correlation: Tensor = (own * wanted).sum() / (own.norm() * wanted.norm())
        return -correlation.expand(len(scores))

    def resolve(self, weight: Tensor, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Move every image against its label where there is no slope at all."""
        return -self.centred(mos).to(weight) if not bool(weight.any()) else weight

    def of_scores(self, scores: Tensor) -> Tensor:
        """Return what is correlated of scores (B,), its mean taken off."""
        return self.centred(scores)

    @abstractmethod
    def centred(self, values: Tensor) -> Tensor:
        """Return what is correlated of labels (B,), its mean taken off."""


@register_objective
class SROCC(_Correlation):
    """Minus Spearman's correlation of scores and labels, on exact average ranks."""

    name = "srocc"

    def centred(self, values: Tensor) -> Tensor:
        """Return average ranks: ties share theirs."""
        return (values.unsqueeze(1) - values.unsqueeze(0)).sign().sum(dim=1) / 2


@register_objective
class PLCC(_Correlation):
    """Minus Pearson's correlation of raw scores and labels."""

    name = "plcc"

    def centred(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values - values.mean()


@register_objective
class SoftSpearman(SROCC):
    """Minus a differentiable Spearman correlation with the labels, over the attack's whole batch.

    The soft rank of f_i is 1/2 + sum_j sigmoid((f_i - f_j) / t), with t = temperature times the standard
    deviation of the batch's scores: shifting or stretching the scores changes nothing, as for the exact
    correlation, which it tends to as the temperature goes to 0. It is correlated with the exact average
    ranks of the labels. List-wise: give the attack a large `batch`. Cost O(batch^2), on scores only.

    Scores that are all equal have no ranks: the loss is 0 there, and every image moves against its label.
    A batch without two different labels has loss 0 and moves no image.
    """

    name = "soft_spearman"
    setting = "rank_temperature"

    def __init__(self, temperature: float = 0.1) -> None:
        if not temperature > 0:
            raise BadAttackOption(f"rank_temperature of soft_spearman must be positive, not {temperature}")
        self.temperature = temperature

    def of_scores(self, scores: Tensor) -> Tensor:
        """Return soft ranks."""
        ranks = soft_ranks(scores, self.temperature * scores.std(correction=0))
        return ranks - ranks.mean()

    def resolve(self, weight: Tensor, scores: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
        """Move equal scores apart, against the order of the labels."""
        return weight if _differ(scores) else super().resolve(weight, scores, mos, clean)


def _differ(values: Tensor) -> bool:
    return bool((values != values[0]).any())


def soft_ranks(scores: Tensor, temperature: Tensor | float) -> Tensor:
    """Return ranks (B,) from 1 to B, differentiable: 1/2 + sum_j sigmoid((f_i - f_j) / temperature)."""
    return 0.5 + torch.sigmoid((scores.unsqueeze(1) - scores.unsqueeze(0)) / temperature).sum(dim=1)


def list_objectives() -> list[str]:
    """Return the names of the objectives, sorted."""
    return _OBJECTIVES.names()


def create_objective(name: str, **settings: float) -> Objective:
    """Create an objective by name; of the settings (`tau`, `rank_temperature`) it is given its own.

    Raises:
        UnknownAttack: no objective of that name; the message holds the nearest one.
        BadAttackOption: a temperature is not positive.
    """
    cls = _OBJECTIVES.find(name)
    if cls.setting in settings:
        return cls(settings[cls.setting])  # type: ignore[call-arg]  # what `setting` promises
    return cls()


def objectives_with_settings() -> dict[str, str]:
    """Return the objective that each setting of an attack is for, by the setting."""
    settings = {name: _OBJECTIVES.find(name).setting for name in list_objectives()}
    return {setting: name for name, setting in settings.items() if setting is not None}
