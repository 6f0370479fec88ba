"""Attacks of the torchattacks library (Kim 2020) on a score, by name.

The library attacks classifiers, so the score becomes two logits, -z and z with z = 10 (u - c), u being the
score divided by the card's range. Untargeted, cross-entropy then pushes the score up (label 0) or down
(label 1), but its gradient dies where the softmax saturates: with c at 0 the best images could not be
lowered, silently. So c is a constant ten ranges beyond the far end of the scores: there cross-entropy is
linear in the score, to the last bit, for every score within nine ranges of the card's.

Attacks that stop at, search for or return label flips cannot work on such logits and are refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iqa_attacks.adapters.torchattacks_options import check_option
from iqa_attacks.attack import Attack, Effort
from iqa_attacks.catalogue import register_attack
from iqa_attacks.errors import AttackError, AttackFailed, BadAttackOption, UnknownAttack, naming
from iqa_attacks.results import Ascent, Cost, Example, Found, Targets, ends
from iqa_attacks.seeding import draw_seeds, seeded
from iqa_attacks.threat_model import parse_epsilon
from iqa_models import QualityModel
from iqa_models.registry import did_you_mean

FITTING = {
    **dict.fromkeys(
        (
            "BIM", "DIFGSM", "EOTPGD", "FFGSM", "FGSM", "MIFGSM", "NIFGSM", "PGD", "PIFGSM", "PIFGSMPP",
            "RFGSM", "SINIFGSM", "TIFGSM", "UPGD", "VMIFGSM", "VNIFGSM",
        ),
        "inf",
    ),
    "PGDL2": "2",
}  # fmt: skip
"""Attacks that move a score, and the norm of their ball."""

_FLIPS = "returns an image only where the label flips, which a score has not"
_DISTANCE = "looks for the nearest label flip, and a score has no label to flip"
_CLASSES = "needs at least three classes"
REFUSED = {
    "APGD": f"{_FLIPS}; use kind 'apgd'",
    "APGDT": _CLASSES,
    "AutoAttack": _CLASSES,
    "CW": _DISTANCE,
    "DeepFool": _DISTANCE,
    "EADEN": _DISTANCE,
    "EADL1": _DISTANCE,
    "FAB": _DISTANCE,
    "GN": "is noise, not an attack; use kind 'noise'",
    "JSMA": _DISTANCE,
    "Jitter": "normalises the logits, which takes the score's slope away",
    "LGV": "trains a surrogate; use kind 'transfer'",
    "MultiAttack": "chooses attacks by label flips; name them one by one",
    "OnePixel": f"{_FLIPS}, and its change is no ball of norm inf or 2",
    "PGDRS": "attacks a smoothed classifier's vote",
    "PGDRSL2": "attacks a smoothed classifier's vote",
    "Pixle": f"{_FLIPS}, and its change is no ball of norm inf or 2",
    "SPSA": "stops at label flips; use kind 'square' for an attack without gradients",
    "SparseFool": _DISTANCE,
    "Square": f"{_FLIPS}; use kind 'square'",
    "TPGD": "maximises a divergence between outputs that saturates on two logits",
    "VANILA": "does nothing",
}
"""Attacks of the library that cannot work on a score, and why."""

REQUIREMENT = "torchattacks>=3.5.1,<4"
"""The library's versions that were tried."""

_RADIUS = {"PIFGSM": "max_epsilon", "PIFGSMPP": "max_epsilon"}
_SCALE, _BEYOND = 10.0, 10.0


@register_attack
@dataclass(frozen=True, kw_only=True)
class TorchAttack(Attack):
    """An attack of torchattacks by its name there, for the objectives `raise` and `lower`.

    Every image is attacked alone, under a seed of (seed, image id): batches and order change nothing. The
    library returns its last iterate, which is what is kept. A stochastic model is refused: the library
    draws where no seed of ours can tell its draws from the model's.
    """

    kind = "torchattacks"
    image_by_image = True
    only_objectives = ("raise", "lower")
    attack: str
    """Name in torchattacks: `MIFGSM`, `PGDL2`, ..."""
    options: Mapping[str, int | float | bool | str] = field(default_factory=dict)
    """Its own settings (`steps`, `alpha`, ...); the library's defaults hold for the others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack in REFUSED:
            raise BadAttackOption(f"torchattacks.{self.attack} does not fit: it {REFUSED[self.attack]}")
        if self.attack not in FITTING:
            near = did_you_mean(self.attack, FITTING, cutoff=0.4)
            raise UnknownAttack(f"no attack torchattacks.{self.attack}{near}; there are {sorted(FITTING)}")
        if self.threat.norm != FITTING[self.attack]:
            raise BadAttackOption(f"torchattacks.{self.attack} attacks norm {FITTING[self.attack]!r} only")
        known = self._settings()
        for name, value in self.options.items():
            if name not in known:
                raise BadAttackOption(
                    f"torchattacks.{self.attack} has no option {name!r}; it takes {sorted(known)}"
                )
            check_option(self.attack, name, value, known[name])
        if "alpha" in known:
            alpha = self._chosen()["alpha"]
            if "steps" in known:  # a single step may go beyond the ball, as FFGSM's does
                own = "the default " if "alpha" not in self.options else ""
                self.threat.check_step(f"torchattacks.{self.attack}: {own}alpha", alpha)

    def _settings(self) -> dict[str, Any]:
        """Return the options the library's attack takes, with their defaults."""
        signature = inspect.signature(_library(self.attack).__init__)
        ours = {"self", "model", "loss", _RADIUS.get(self.attack, "eps")}
        return {name: p.default for name, p in signature.parameters.items() if name not in ours}

    def _chosen(self) -> dict[str, Any]:
        chosen = {**self._settings(), **self.options}
        if "alpha" in chosen:
            chosen["alpha"] = parse_epsilon(chosen["alpha"])
        return chosen

    @property
    def effort(self) -> Effort:
        """Steps and step size as the library names them; 1 and epsilon where it has none."""
        chosen = self._chosen()
        steps = chosen.get("steps", chosen.get("num_iter_set", 1))
        return Effort(steps, float(chosen.get("alpha", self.threat.epsilon)), 1)

    def search(self, model: QualityModel, targets: Targets, draws: int | None, chunk: int) -> Ascent:
        """Run the library on every image, once a direction."""
        if draws is not None:
            raise AttackError(
                f"{model.spec.name} is stochastic; torchattacks.{self.attack} has no seeded EOT"
            )
        low, high = model.spec.score_range
        steps = self.effort.steps
        found: list[Found] = []
        cost = {}
        for i, image in enumerate(targets.images):
            total = Cost(0, 0, 0)
            examples = []
            for objective in self.create_objectives():
                up = objective.name == "raise"
                with naming([targets.ids[i]]):
                    pixels, spent = self._attack(model, image, targets.ids[i], up=up)
                value = self.score_of(model, pixels, targets.ids[i], (0, steps), None)
                examples.append(Example(pixels, value, 0, steps))
                total = total.plus(spent).plus(Cost(1, 0, 0))
                unit = (value - low) / (high - low)
                found.append(Found(i, objective.name, steps, unit if up else -unit, examples[-1]))
            found += ends(i, steps, examples)
            cost[i, steps] = total
        return Ascent(found, cost)

    def _attack(self, model: QualityModel, image: Tensor, image_id: str, *, up: bool) -> tuple[Tensor, Cost]:
        """Return the attacked image (3, H, W), inside the threat model, and what finding it cost."""
        logits = TwoLogits(model, up=up)
        radius = {_RADIUS.get(self.attack, "eps"): self.threat.epsilon}
        chosen = self._chosen()
        rate, width = chosen.get("resize_rate"), image.shape[-1]
        if rate is not None and int(width * rate) in (0, width):
            raise BadAttackOption(
                f"torchattacks.{self.attack}: resize_rate {rate:g} leaves an image {width} pixels wide no "
                "other size"
            )
        attack = _library(self.attack)(logits, **radius, **chosen)
        label = torch.tensor([0 if up else 1], device=image.device)
        clean = image.unsqueeze(0)
        (seed,) = draw_seeds(self.seed, image_id, ("torchattacks",), 1)
        # The caller, or a plug-in of theirs, may have switched gradients off; the library takes them as set.
        with seeded(seed, image.device), torch.enable_grad():
            attacked = attack(clean.clone(), label).detach().to(clean)
        if not logits.spent.backwards:
            raise AttackFailed(f"torchattacks.{self.attack} took no gradient: it attacked nothing")
        if not bool(attacked.isfinite().all()):
            raise AttackFailed(f"torchattacks.{self.attack} returned values that are not finite")
        return self.threat.admit(attacked, clean).squeeze(0), logits.spent


class TwoLogits(nn.Module):
    """A score as two logits with a constant one-sided offset, and what is spent on it."""

    def __init__(self, model: QualityModel, *, up: bool) -> None:
        super().__init__()
        self.model = model
        self.offset = -_BEYOND if up else 1 + _BEYOND
        # The library takes its device from the first parameter; a model may have none.
        self.device = nn.Parameter(torch.empty(0, device=model._mean.device), requires_grad=False)
        self.spent = Cost(0, 0, 0)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 2) of images (B, 3, H, W).

        Some attacks look ahead beyond the box: such a point is scored at the nearest image in the box, and
        the gradient passes through unchanged.
        """
        inside = images + (images.clamp(0, 1) - images).detach()
        self.spent = self.spent.plus(Cost(len(images), 0, 0))
        if inside.requires_grad:
            inside.register_hook(self._count_gradient)  # type: ignore[no-untyped-call]
        low, high = self.model.spec.score_range
        # Rounding of the sum above may leave the box by one unit in the last place.
        scores: Tensor = self.model(inside + (inside.clamp(0, 1) - inside).detach())
        if inside.requires_grad and not scores.requires_grad:
            raise AttackFailed(f"{self.model.spec.name}: the score carries no gradient (detached graph)")
        if not bool(scores.isfinite().all()):
            raise AttackFailed(f"{self.model.spec.name}: the score is not finite")
        logit = _SCALE * ((scores - low) / (high - low) - self.offset)
        return torch.stack([-logit, logit], dim=1)

    def _count_gradient(self, gradient: Tensor) -> Tensor:
        if not bool(gradient.isfinite().all()):
            raise AttackFailed(f"{self.model.spec.name}: the input gradient is not finite")
        zero = (gradient.flatten(1) == 0).all(dim=1)
        self.spent = self.spent.plus(Cost(0, len(gradient), int(zero.sum())))
        # PGDL2 views it flat, which a gradient that lies in memory channels last does not allow.
        return gradient.contiguous()


def _library(name: str) -> Any:
    """Return a class of torchattacks, imported only when one is asked for."""
    try:
        import torchattacks
    except ImportError as error:
        raise BadAttackOption(
            f"torchattacks.{name} needs the package torchattacks ({error}); install it with "
            f"`pip install --no-deps '{REQUIREMENT}'`: without its pins, which ask for a requests of 2021 "
            "that nothing here uses"
        ) from error
    return getattr(torchattacks, name)
