"""A step waits for the device at most twice and sends at most twice, whatever is attacked together."""

import pytest
import torch
from torch import Tensor

from helpers import accelerator
from helpers.accelerator import Accelerator, away, home
from iqa_attacks import ThreatModel, create_attack
from iqa_attacks.gradients import padded
from iqa_attacks.threat_model import project_2
from iqa_models import QualityModel, create_model

THREE = ("mse", "raise", "pairwise_inversion")
KINDS = {
    "pgd": {"step_size": 0.01},
    "last": {"step_size": 0.01, "keep": "last"},
    "mifgsm": {"step_size": 0.01},
    "apgd": {},
    "jpeg": {"step_size": 0.01, "jpeg_qualities": (50, 75)},
}
FEW, MANY = 1, 3
"""Steps of two runs; the difference of what they wait for is that of so many more steps."""


class Curved(QualityModel):
    """Smooth, and of its images only: it never waits itself."""

    def __init__(self) -> None:
        super().__init__(create_model("linear").spec.replace(name="curved"))
        self.passes: list[int] = []
        self.waited: list[int] = []
        """Of each pass, the waits before it."""
        for name, numbers in self.named_buffers():
            self._buffers[name] = away(numbers)

    def predict(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        self.waited.append(accelerator.waits.total())
        return 0.3 * torch.sin(9 * images).mean((1, 2, 3)) + (images.mean((1, 2, 3)) - 0.4).square()


def _a_step(kind, threat, count=2, objectives=THREE, restarts=2, chunk=64, sizes=1):
    """Return waits and copies a step, exactly."""
    spent = []
    for steps in (FEW, MANY):
        settings = {"objectives": objectives, "restarts": restarts, "steps": steps, **KINDS[kind]}
        attack = create_attack("pgd" if kind in ("last", "jpeg") else kind, threat=threat, **settings)
        generator = torch.Generator().manual_seed(0)
        with Accelerator():
            shapes = [(12, 12 + i % sizes) for i in range(count)]
            images = [away(torch.rand(3, *s, generator=generator).mul(255).round() / 255) for s in shapes]
            attack.run(
                Curved().eval(), images, [str(i) for i in range(count)], torch.rand(count), chunk=chunk
            )
            spent.append((accelerator.waits.total(), accelerator.sent.total()))
    (waits, sent), (waits2, sent2) = spent
    return (waits2 - waits) / (MANY - FEW), (sent2 - sent) / (MANY - FEW)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg"])
def test_a_step_waits_and_sends_as_often_for_one_image_as_for_many(kind, norm):
    threat = ThreatModel(norm, {"inf": 0.03, "2": 0.5}[norm])
    for one in (
        {}, {"objectives": ("raise",)}, {"restarts": 1}, {"count": 9}, {"chunk": 2}, {"count": 4, "sizes": 2},
    ):  # fmt: skip
        waits, sent = _a_step(kind, threat, **one)
        assert 1 <= waits <= 2, (one, accelerator.waits)
        assert 1 <= sent <= 2, (one, accelerator.sent)


def test_tables_of_jpeg_are_sent_once():
    """Of one objective, whose best is an end: so every run scores as many examples in the end."""
    for count in (2, 5):
        found = _a_step("jpeg", ThreatModel("inf", 0.03), count=count, objectives=("raise",))
        assert 1 <= min(found) <= max(found) <= 2, accelerator.waits


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("asked", [{"pixels": "8bit"}, {"ssim_floor": 0.98}])
def test_what_is_asked_beside_the_ball_is_not_waited_for(norm, asked):
    for count in (2, 5):
        found = _a_step("pgd", ThreatModel(norm, {"inf": 0.03, "2": 0.5}[norm], **asked), count=count)
        assert max(found) <= 2, accelerator.waits


def test_passes_are_filled_up_to_few_sizes():
    """Any number of states goes in passes of one size of few, none above the chunk, and little is added."""
    sizes = {1: 1, 2: 2, 3: 4, 5: 6, 6: 6, 7: 8, 8: 8, 9: 16, 63: 64, 64: 64, 65: 80, 97: 112, 200: 208}
    assert {count: padded(count, 256) for count in sizes} == sizes
    assert padded(9, 12) == 12
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 0.03), objectives=THREE, steps=6, step_size=0.01, restarts=3
    )
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.rand(3, 12, 12, generator=generator) for _ in range(9)]
    with Accelerator():
        model = Curved().eval()
        ids = [str(i) for i in range(9)]
        result = attack.run(model, [away(image) for image in pixels], ids, torch.rand(9), chunk=20)
    searched = model.passes[1:]  # the first one scored the clean images
    assert set(searched) <= {8, 16, 20}
    states = sum(cost.forwards for cost in result.cost.values())
    assert states < sum(searched) < 1.5 * states


@pytest.mark.parametrize("epsilon", [0.5, 5.0, 12.0])
@pytest.mark.parametrize("times", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("kind", ["any", "edges", "dark"])
def test_a_projection_that_asks_nothing_is_the_one_that_asks(kind, times, epsilon):
    """From as far away as a step leads, at boxes that cut off little, half and nearly all."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, 3, 16, 16, generator=generator, dtype=torch.float64)
    clean = {"any": clean, "edges": clean.round(), "dark": 10 ** (-8 * clean)}[kind]
    change = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    change = -change.abs() if kind == "dark" else change
    length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    images = clean + change / length * times * epsilon
    expected = project_2(images, clean, epsilon)
    with Accelerator():
        found = home(project_2(away(images), away(clean), epsilon))
        assert accelerator.waits.total() == 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert float((found - clean).flatten(1).norm(dim=1).max()) <= epsilon * (1 + 1e-12)


class Recorder:
    """What records passes, as the engine sees it: it is handed the pass and the images, and counts them."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def run(self, compute, images):
        self.shapes.append(images.shape)
        return compute(images)


def test_every_gradient_of_a_search_can_come_from_a_recording():
    """The recorder of a model is asked for each pass with a gradient, and what is found stays the same."""
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 0.03), objectives=("raise",), steps=3, step_size=0.01, restarts=2
    )
    generator = torch.Generator().manual_seed(0)
    on = [torch.rand(3, 16, 16, generator=generator) for _ in range(3)], ["a", "b", "c"], torch.rand(3)
    plain, recorded = create_model("cheat_none"), create_model("cheat_none")
    recorded.graphs = Recorder()
    expected, result = attack.run(plain, *on, chunk=4), attack.run(recorded, *on, chunk=4)
    assert [shape[0] for shape in recorded.graphs.shapes] == [4, 2] * 3
    for some, other in zip(result.found, expected.found, strict=True):
        assert some[:4] == other[:4]
        assert torch.equal(some.example.pixels, other.example.pixels)


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


@pytest.mark.parametrize(
    ("count", "chunk", "taking_turns"), [(5, 64, False), (5, 5, True), (31, 256, False), (32, 256, True)]
)
def test_half_of_the_restarts_is_computed_while_the_other_half_is_decided(count, chunk, taking_turns):
    """How often was waited before each pass: of many starts once less than without halves that take turns."""
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 0.03), objectives=("raise",), steps=3, step_size=0.01, restarts=2
    )
    generator = torch.Generator().manual_seed(0)
    with Accelerator():
        images = [away(torch.rand(3, 12, 12, generator=generator)) for _ in range(count)]
        model = Curved().eval()
        attack.run(model, images, [str(i) for i in range(count)], torch.rand(count), chunk=chunk)
    searched = [waits - model.waited[1] for waits in model.waited[1:]]  # the first pass scored clean images
    assert searched == ([0, 0, 1, 2, 3, 4, 5, 6] if taking_turns else [0, 1, 2, 3])
