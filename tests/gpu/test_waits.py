"""How often an attack waits for the card: torch itself counts."""

import warnings

import pytest
import torch

from iqa_attacks import ThreatModel, create_attack

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

A_STEP = 2
"""Most waits a step, however many images, objectives and restarts."""


def _waits(card, model, count, steps, objectives, restarts):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 48, 48, generator=generator).to(card) for _ in range(count)]
    mos = torch.linspace(0.1, 0.9, count, dtype=torch.float64)
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 4 / 255), objectives=objectives, steps=steps, step_size=1 / 255,
        restarts=restarts,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            attack.run(model, images, [f"i{i}" for i in range(count)], mos, chunk=64)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("count", "objectives", "restarts"),
    [(2, ("raise",), 1), (8, ("raise", "lower", "mse", "drift", "pairwise_inversion"), 3)],
)
def test_a_step_waits_twice_at_the_most(card, convolutional, count, objectives, restarts):
    """What twenty more steps add, a step; what comes once an attack is not counted."""
    model = convolutional().eval().to(card)
    _waits(card, model, count, 2, objectives, restarts)  # kernels are loaded at the first call
    few, many = (_waits(card, model, count, steps, objectives, restarts) for steps in (5, 25))
    assert few > 0, "nothing was counted"
    assert many - few <= A_STEP * 20 * restarts
