"""Robust training: a penalty on the input gradient, or adversarial examples instead of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iqa_attacks import Attack, ThreatModel, create_attack, parse_epsilon
from iqa_attacks.errors import AttackError
from iqa_attacks.results import Targets
from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.forward import CropScorer, Draws, evaluating, score_crops, statistics_kept
from iqa_harness.training.robust_settings import Fgsm, GradientNorm, Pgd
from iqa_models import QualityModel


def gradient_sign(model: QualityModel, crops: Tensor) -> Tensor:
    """Return sign(d score / d pixel) (B, 3, h, w) in eval mode, without a graph."""
    with evaluating(model), torch.enable_grad():
        leaf = crops.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score_crops(model, leaf).scores.sum(), leaf)
    return gradient.sign()


AUTHORS_SCALE = 100
"""Length of the label scale on which the authors' code compares scores."""


def gradient_norm_penalty(
    model: QualityModel, crops: Tensor, scores: Tensor, settings: GradientNorm, *, draws: Draws, span: float
) -> Tensor:
    """Return the mean L1 norm of the input gradients, by a finite difference that can be differentiated.

    |f(x + h s) - f(x)| / h with s = sign(grad f(x)) is ||grad f(x)||_1 up to O(h) (Liu et al. 2024); one more
    forward and backward pass replace a second derivative. x + h s is clipped to [0, 1], where an adversary
    has to stay as well: pixels at an end of the range that would leave it do not count.

    The form `author` is the penalty as the code of Liu et al. has it: ((f(x + h s) - f(x)) / h)^2 / 2, mean.
    x is normalised there, so that a pixel moves by h times the deviation of its channel and may leave [0, 1];
    scores are on a scale of 0 to AUTHORS_SCALE. Divided by that scale, it stands to a loss of scores on
    [0, 1] as the authors' penalty stands to theirs.

    Args:
        model: in training mode.
        crops: (B, 3, h, w) in [0, 1].
        scores: (B,) of the crops, on the model's scale, with their graph.
        settings: h and the form.
        draws: of the pass that gave the scores, so that both see the same dropout masks.
        span: length of the model's score range; the norm is in score ranges per pixel unit.
    """
    author, moved = settings.form == "author", settings.step * gradient_sign(model, crops)
    if author:
        moved = crops + torch.tensor(model.spec.std).to(crops).view(1, -1, 1, 1) * moved
    else:
        moved = (crops + moved).clamp(0, 1)
    with statistics_kept(model), draws.again():
        there = score_crops(model, moved, outside=author).scores
    if author:
        slopes = AUTHORS_SCALE * (there - scores) / (settings.step * span)
        return slopes.square().mean() / 2 / AUTHORS_SCALE
    return ((there - scores).abs() / (settings.step * span)).mean()


@dataclass(frozen=True)
class Adversary:
    """Makes the adversarial examples of a batch with the attack engine."""

    attack: Attack
    share: float
    """Share of a batch that is attacked."""
    label_damage: float
    """Labels fall by this times 1 - HaarPSI."""
    chunk: int
    """Images in one pass of the engine."""

    def __call__(
        self, model: QualityModel, crops: Tensor, labels: Tensor, ids: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Return crops and labels with the first part of the batch replaced; batches are shuffled already.

        Args:
            model: put into eval mode for the attack and back.
            crops: (B, 3, h, w) in [0, 1].
            labels: (B,) on [0, 1].
            ids: one an image, unique; random starts are drawn from them.

        Raises:
            TrainingError: scores or gradients that no attack can use.
        """
        count = max(1, round(self.share * len(crops)))
        chosen = crops[:count].detach()
        try:
            with evaluating(model):
                clean = self._clean(model, chosen)
                targets = Targets(list(chosen), list(ids[:count]), labels[:count].cpu().double(), clean)
                scorer = CropScorer(model).eval()
                found = self.attack.search(scorer, targets, None, self.chunk).found
        except AttackError as error:
            raise TrainingError(f"adversarial training: {error}") from error
        examples = chosen.clone()
        for one in found:
            if one.objective == self.attack.objectives[0]:
                examples[one.image] = one.example.pixels
        lowered = labels.clone()
        if self.label_damage:
            lowered[:count] = (labels[:count] - self.label_damage * damage(examples, chosen)).clamp_min(0)
        return torch.cat([examples, crops[count:]]), lowered

    def _clean(self, model: QualityModel, crops: Tensor) -> Tensor:
        """Return the clean scores (B,), which only `drift` looks at: zeros for the others save a pass."""
        if self.attack.objectives[0] != "drift":
            return torch.zeros(len(crops), dtype=torch.float64)
        with torch.no_grad():
            return score_crops(model, crops).scores.cpu().double()


def create_adversary(config: TrainConfig) -> Adversary | None:
    """Return what makes the settings' adversarial examples, None if they ask for none.

    Raises:
        TrainingError: the radius is no number.
    """
    robust = config.robust
    if not isinstance(robust, Fgsm | Pgd):
        return None
    try:
        epsilon = parse_epsilon(robust.epsilon)
        threat = ThreatModel("inf", epsilon)
    except AttackError as error:
        raise TrainingError(f"{config.name}: robust.epsilon: {error}") from error
    settings: dict[str, object] = {
        "threat": threat,
        "objectives": (robust.objective,),
        "batch": config.batch_size,
        "seed": config.seed,
    }
    if isinstance(robust, Pgd):
        settings |= {"steps": robust.steps, "step_size": robust.step_size * epsilon, "keep": "last"}
    attack = create_attack(robust.kind, **settings)
    return Adversary(attack, robust.share, robust.label_damage, chunk=config.batch_size)


def damage(examples: Tensor, images: Tensor) -> Tensor:
    """Return 1 - HaarPSI of examples against images, both (B, 3, h, w) in [0, 1]: (B,), 0 for equal ones."""
    from piq import haarpsi

    with torch.no_grad():
        similarity: Tensor = haarpsi(examples.float(), images.float(), data_range=1.0, reduction="none")
    return (1 - similarity).clamp(0, 1)
