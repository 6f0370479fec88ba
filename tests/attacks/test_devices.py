"""No attack mixes tensors of two devices: each finds on a GPU that is not there what it finds on the CPU."""

import pytest
import torch
from torch import Tensor

from helpers.accelerator import Accelerator, away, home
from iqa_attacks import ThreatModel, create_attack
from iqa_attacks.square import Square
from iqa_models import QualityModel, create_model

EPSILON = {"inf": 4 / 255, "2": 0.5, "rmse": 2 / 255}
ASCENT = ("mse", "raise", "pairwise_inversion")
KINDS = {
    "pgd": {"objectives": ASCENT, "steps": 2, "restarts": 2},
    "jpeg": {"objectives": ("raise",), "steps": 2, "jpeg_qualities": (75,)},
    "mifgsm": {"objectives": ASCENT, "steps": 2},
    "apgd": {"objectives": ASCENT, "steps": 5},
    "fgsm": {"objectives": ASCENT},
    "noise": {"objectives": ASCENT},
    "square": {"objectives": ("raise", "lower"), "queries": 3},
    "universal": {"objectives": ("raise", "lower"), "steps": 2},
    "torchattacks": {"objectives": ("raise",)},
}


class Curved(QualityModel):
    """Smooth, and of its images only: no weights to move."""

    def __init__(self, put) -> None:
        super().__init__(create_model("linear").spec.replace(name="curved"))
        for name, numbers in self.named_buffers():
            self._buffers[name] = put(numbers)

    def predict(self, images: Tensor) -> Tensor:
        return 0.3 * torch.sin(9 * images).mean((1, 2, 3)) + (images.mean((1, 2, 3)) - 0.4).square()


def _find(kind, threat, put):
    """Return what an attack finds, on the device that `put` puts on."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(12, 12)] * 2 if kind == "universal" else [(12, 12), (12, 12), (11, 14)]
    images = [put(torch.rand(3, *size, generator=generator).mul(255).round() / 255) for size in sizes]
    ids, mos = ["a", "b", "c"][: len(sizes)], torch.tensor([0.2, 0.8, 0.5])[: len(sizes)]
    own = dict(KINDS[kind])
    if kind == "pgd" and threat.ssim_floor is not None:  # every window of every version is many operators
        own |= {"objectives": ASCENT[1:], "restarts": 1}
    if kind in ("pgd", "jpeg", "mifgsm", "universal"):
        own["step_size"] = threat.epsilon / 2
    if kind == "torchattacks":
        own |= {"attack": {"inf": "PIFGSMPP", "2": "PGDL2"}[threat.norm]}
    attack = create_attack("pgd" if kind == "jpeg" else kind, threat=threat, **own)
    model = Curved(put).eval()
    if kind == "universal":
        attack = attack.trained(model, images, ids)
    return attack.run(model, images, ids, mos)


@pytest.mark.parametrize(
    ("kind", "norm"),
    # torchattacks has no ball of root mean squares.
    [(k, n) for k in KINDS for n in EPSILON if (k, n) != ("torchattacks", "rmse")],
)
def test_an_attack_finds_the_same_on_an_accelerator(kind, norm):
    """Every operator sees one device only, and the images found are those of the CPU, bit for bit."""
    threats = [{}, {"pixels": "8bit"}, {"ssim_floor": 0.98}] if kind in ("pgd", "square") else [{}]
    for asked in threats:
        threat = ThreatModel(norm, EPSILON[norm], **asked)
        here = _find(kind, threat, lambda numbers: numbers)
        with Accelerator():
            there = _find(kind, threat, away)
        assert [f[:4] for f in there.found] == [f[:4] for f in here.found]
        assert there.cost == here.cost  # images that fill up a pass are not counted
        pairs = zip(there.found, here.found, strict=True)
        assert all(torch.equal(home(a.example.pixels), b.example.pixels) for a, b in pairs)


@pytest.mark.parametrize("norm", EPSILON)
def test_squares_are_proposed_on_the_device_of_the_images(norm):
    """Start and proposals of every kind of move, from generators that are on the CPU everywhere."""
    threat = ThreatModel(norm, EPSILON[norm])
    moves = Square(threat=threat, objectives=("raise",), queries=100, first_area=0.3)
    clean = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))

    def proposed(images):
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        at = moves.start(images, generators).unsqueeze(0)
        return moves.propose(at, images, generators, 1)

    with Accelerator():
        there = proposed(away(clean))
    assert there.device.type == "meta"
    assert torch.equal(home(there), proposed(clean))


def test_the_accelerator_refuses_what_a_real_one_would():
    """Tensors of two devices do not mix; numbers, copies and indices do."""
    numbers = torch.arange(6.0).view(2, 3)
    with Accelerator():
        there = away(numbers)
        with pytest.raises(RuntimeError, match="same device"):
            there * numbers
        with pytest.raises(RuntimeError, match="same device"):
            torch.where(numbers > 2, there, there)
        assert torch.equal(home(there * torch.tensor(2.0)), numbers * 2)
        assert torch.equal(home(there[torch.tensor([1, 0])]), numbers.flip(0))
        assert torch.equal((there + 1).cpu(), numbers + 1)
