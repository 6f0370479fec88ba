"""What an attack says it cost is what a model that counts saw, for every kind."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iqa_attacks import ThreatModel, create_attack

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)
Wavy, targets = shared.Wavy, shared.targets

SIZES = [(8, 8), (8, 8), (6, 9)]
EPSILON = {"inf": 0.05, "2": 0.5, "rmse": 0.03}
ASCENT = ("mse", "drift", "pairwise_inversion", "raise", "lower")
BOTH = ("raise", "lower")
KINDS = {
    "fgsm": {"objectives": ASCENT},
    "pgd": {"objectives": ASCENT, "steps": 4, "restarts": 2, "report_steps": (1, 3)},
    "jpeg": {"objectives": ASCENT, "steps": 4, "restarts": 2, "jpeg_qualities": (50, 75)},
    "mifgsm": {"objectives": ASCENT, "steps": 3},
    "apgd": {"objectives": ASCENT, "steps": 6, "restarts": 2},
    "noise": {"objectives": ASCENT, "samples": 3},
    "square": {"objectives": ("mse", *BOTH), "queries": 6, "restarts": 2},
    "torchattacks": {"objectives": BOTH, "attack": "VMIFGSM", "options": {"steps": 3, "N": 2}},
}


class Counting(Wavy):
    """Counts the images it is shown and the gradients taken of them; noisy if it is stochastic."""

    def __init__(self, **card: object) -> None:
        super().__init__(**card)
        self.forwards = self.backwards = self.zero = 0

    def predict(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        if images.requires_grad:
            images.register_hook(self._count)
        if self.spec.is_stochastic:
            images = (images + 0.01 * torch.randn(images.shape[1:], dtype=images.dtype)).clamp(0, 1)
        return super().predict(images)

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def _attack(kind, norm, **settings):
    own = {**KINDS[kind], **settings}
    if kind in ("pgd", "jpeg", "mifgsm"):
        own["step_size"] = EPSILON[norm] / 4
    threat = ThreatModel(norm, EPSILON[norm])
    return create_attack("pgd" if kind == "jpeg" else kind, threat=threat, **own)


def _spent(cost, steps):
    return tuple(sum(c[k] for (_, s), c in cost.items() if s == steps) for k in range(2))


@pytest.mark.parametrize("draws", [None, 3])
@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("kind", KINDS)
def test_forwards_and_backwards_are_those_the_model_saw(kind, norm, draws):
    """All but the clean scores, of which every image has its own row; stochastic models by the draw."""
    if kind == "torchattacks" and (norm != "inf" or draws):
        norm, draws = "inf", None  # the attack has one norm, and no EOT
    model, (images, ids, mos) = Counting(is_stochastic=draws is not None).eval(), targets(SIZES)
    result = _attack(kind, norm, eot_samples=draws).run(model, images, ids, mos)
    last = max(steps for _, steps in result.cost)
    # Behind JPEG an image is scored once for every quality.
    clean = len(SIZES) * (draws or 1)
    assert _spent(result.cost, last) == (model.forwards - clean, model.backwards)


@pytest.mark.parametrize("qualities", [(), (50, 75)])
def test_a_prefix_costs_what_a_run_of_its_length_costs(qualities):
    """The shorter run does the same work and finds the same images."""
    on, settings = targets(SIZES), {"jpeg_qualities": qualities, "restarts": 2}
    whole = _attack("pgd", "inf", report_steps=(3,), **settings).run(Wavy().eval(), *on)
    model = Counting().eval()
    alone = _attack("pgd", "inf", steps=3, report_steps=(), **settings).run(model, *on)
    assert _spent(whole.cost, 3) == _spent(alone.cost, 3) == (model.forwards - len(SIZES), model.backwards)


@pytest.mark.parametrize("draws", [None, 3])
def test_the_training_of_a_universal_change_is_counted(draws):
    """Steps times batch times draws for each objective, told apart from what an image costs."""
    model = Counting(is_stochastic=draws is not None).eval()
    images, ids, mos = targets([(8, 8)] * 7)
    attack = create_attack(
        "universal", threat=ThreatModel("inf", 0.05), objectives=BOTH, steps=5, step_size=0.02, batch=3,
        eot_samples=draws,
    )  # fmt: skip
    trained = attack.trained(model, images[:4], ids[:4])
    assert trained.training == (model.forwards, model.backwards, 0) == (30 * (draws or 1),) * 2 + (0,)
    before, model.forwards, model.backwards = (model.forwards, model.backwards), 0, 0
    result = trained.run(model, images[4:], ids[4:], mos[4:])
    clean = 3 * (draws or 1)
    assert _spent(result.cost, 5) == (model.forwards - clean, 0)
    whole = trained.with_training(result)
    assert _spent(whole.cost, 5) == (model.forwards - clean + before[0], before[1])
    assert whole.cost[1, 5] == result.cost[1, 5]


def test_gradients_of_zero_in_training_are_counted():
    """A flat model has no others."""

    class Flat(Wavy):
        def predict(self, images: Tensor) -> Tensor:
            return super().predict(images) * 0

    images, ids, _ = targets([(8, 8)] * 4)
    attack = create_attack(
        "universal", threat=ThreatModel("inf", 0.05), objectives=BOTH, steps=5, step_size=0.02
    )
    assert attack.trained(Flat().eval(), images, ids).training == (40, 40, 40)
