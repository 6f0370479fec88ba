"""How often an attack waits for the card: torch itself counts, but for events, which are counted here."""

import warnings

import pytest
import torch

from iqa_attacks import ThreatModel, create_attack

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

A_STEP = 2
"""Most waits a step, however many images, objectives and restarts."""


@pytest.fixture
def events(monkeypatch):
    """One entry an event that was waited for."""
    met, wait = [], torch.cuda.Event.synchronize
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda event: met.append(wait(event)))
    return met


def _waits(card, model, events, count, steps, objectives, restarts):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 48, 48, generator=generator).to(card) for _ in range(count)]
    mos = torch.linspace(0.1, 0.9, count, dtype=torch.float64)
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 4 / 255), objectives=objectives, steps=steps, step_size=1 / 255,
        restarts=restarts,
    )  # fmt: skip
    events.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            attack.run(model, images, [f"i{i}" for i in range(count)], mos, chunk=16)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) + len(events)


@pytest.mark.parametrize(
    ("count", "objectives", "restarts"),
    [(2, ("raise",), 1), (8, ("raise", "lower", "mse", "drift", "pairwise_inversion"), 3)],
)
def test_a_step_waits_twice_at_the_most(card, convolutional, events, count, objectives, restarts):
    """What twenty more steps add, a step, where halves of the restarts take turns, too."""
    model = convolutional().eval().to(card)
    _waits(card, model, events, count, 2, objectives, restarts)  # kernels are loaded at the first call
    few, many = (_waits(card, model, events, count, steps, objectives, restarts) for steps in (5, 25))
    assert 1 <= (many - few) / 20 <= A_STEP
