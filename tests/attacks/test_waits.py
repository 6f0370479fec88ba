"""A step waits for the device at most twice and sends at most twice, whatever is attacked together."""

import pytest
import torch
from torch import Tensor

from helpers import accelerator
from helpers.accelerator import Accelerator, away
from iqa_attacks import ThreatModel, create_attack
from iqa_models import QualityModel, create_model

THREE = ("mse", "raise", "pairwise_inversion")
KINDS = {
    "pgd": {"step_size": 0.01},
    "last": {"step_size": 0.01, "keep": "last"},
    "mifgsm": {"step_size": 0.01},
    "apgd": {},
}
FEW, MANY = 2, 6
"""Steps of two runs; the difference of what they wait for is that of so many more steps."""


class Curved(QualityModel):
    """Smooth, and of its images only: it never waits itself."""

    def __init__(self) -> None:
        super().__init__(create_model("linear").spec.replace(name="curved"))
        for name, numbers in self.named_buffers():
            self._buffers[name] = away(numbers)

    def predict(self, images: Tensor) -> Tensor:
        return 0.3 * torch.sin(9 * images).mean((1, 2, 3)) + (images.mean((1, 2, 3)) - 0.4).square()


def _a_step(kind, threat, count=2, objectives=THREE, restarts=3, chunk=64, sizes=1):
    """Return waits and copies a step, exactly."""
    spent = []
    for steps in (FEW, MANY):
        settings = {"objectives": objectives, "restarts": restarts, "steps": steps, **KINDS[kind]}
        attack = create_attack("pgd" if kind == "last" else kind, threat=threat, **settings)
        generator = torch.Generator().manual_seed(0)
        with Accelerator():
            shapes = [(12, 12 + i % sizes) for i in range(count)]
            images = [away(torch.rand(3, *s, generator=generator).mul(255).round() / 255) for s in shapes]
            attack.run(Curved().eval(), images, [str(i) for i in range(count)], torch.rand(count), chunk=chunk)
            spent.append((accelerator.waits.total(), accelerator.sent.total()))
    (waits, sent), (waits2, sent2) = spent
    return (waits2 - waits) / (MANY - FEW), (sent2 - sent) / (MANY - FEW)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_waits_and_sends_as_often_for_one_image_as_for_many(kind, norm):
    threat = ThreatModel(norm, {"inf": 0.03, "2": 0.5}[norm])
    for one in (
        {}, {"objectives": ("raise",)}, {"restarts": 1}, {"count": 9}, {"chunk": 2}, {"count": 4, "sizes": 2},
    ):  # fmt: skip
        waits, sent = _a_step(kind, threat, **one)
        assert 1 <= waits <= 2, (one, accelerator.waits)
        assert 1 <= sent <= 2, (one, accelerator.sent)


@pytest.mark.parametrize(("norm", "asked"), [("inf", {"pixels": "8bit"}), ("2", {"pixels": "8bit"})])
def test_grey_levels_are_not_waited_for(norm, asked):
    waits, sent = _a_step("pgd", ThreatModel(norm, {"inf": 0.03, "2": 0.5}[norm], **asked), count=3)
    assert (waits, sent) <= (2, 2)


def test_the_device_counts_what_a_real_one_would_wait_for():
    """Reading, shapes that hang on numbers, masks and plain copies; not what is sent ahead, nor rows."""
    numbers = torch.arange(6.0).view(2, 3)
    with Accelerator():
        there = away(numbers)
        there * 2 + there.sum()
        there[torch.tensor([1])]
        numbers.to(there.device, non_blocking=True)
        assert (accelerator.waits.total(), accelerator.sent.total()) == (0, 1)
        for count, wait in enumerate(
            (
                lambda: float(there.sum()),
                lambda: bool((there > 9).any()),
                there.cpu,
                (there > 2).nonzero,
                lambda: there[there > 2],
                lambda: numbers.to(there.device),
                lambda: there.new_tensor([1.0, 2.0]),
            ),
            start=1,
        ):
            wait()
            assert accelerator.waits.total() == count, accelerator.waits
