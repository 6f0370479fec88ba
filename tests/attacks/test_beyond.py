"""Beyond norm balls: 8-bit pixels, JPEG, an SSIM floor, one change for all images, radii per pixel."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from helpers.attack_cases import ALL, BOTH, Wavy, by_key, same, targets
from iqa_attacks import (
    AttackError,
    BadAttackOption,
    ThreatModel,
    create_attack,
    nearest_levels,
    ssim,
    through_jpeg,
    through_jpeg_file,
    to_8_bits,
)
from iqa_models import QualityModel, create_model

BIG = [(24, 24)] * 6
THREATS = {
    "8bit": ThreatModel("inf", 4 / 255, pixels="8bit"),
    "8bit, norm 2": ThreatModel("2", 0.5, pixels="8bit"),
    "floor": ThreatModel("inf", 16 / 255, ssim_floor=0.98),
    "floor, norm rmse": ThreatModel("rmse", 16 / 255, ssim_floor=0.98),
}


def _on_levels(sizes=BIG, **limits):
    images, ids, mos = targets(sizes, **limits)
    return [nearest_levels(image) for image in images], ids, mos


def _attack(kind, threat, **settings):
    own = {"pgd": {"steps": 8, "step_size": threat.epsilon / 3, "restarts": 2}, "apgd": {"steps": 12}}[kind]
    return create_attack(kind, threat=threat, **{"objectives": ALL, "seed": 7, **own, **settings})


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS.keys())
@pytest.mark.parametrize("kind", ["pgd", "apgd"])
def test_sharing_and_company_change_nothing(kind, threat):
    """Five objectives together or alone, image by image or not: the same bit for bit, and admissible."""
    model, (images, ids, mos) = Wavy().eval(), _on_levels([(16, 16)] * 3 + [(12, 20)] * 2)
    short = {"steps": {"pgd": 4, "apgd": 7}[kind]}
    whole = by_key(_attack(kind, threat, **short).run(model, images, ids, mos))
    again = by_key(_attack(kind, threat, **short).run(model, images, ids, mos, chunk=1))
    assert all(same(found, again[key]) for key, found in whole.items())
    for objective in ALL:
        alone = by_key(_attack(kind, threat, objectives=(objective,), **short).run(model, images, ids, mos))
        assert all(same(found, whole[key]) for key, found in alone.items() if key[1] == objective)
    for (i, _, _), found in whole.items():
        pixels, clean = found.example.pixels.unsqueeze(0), images[i].unsqueeze(0)
        assert threat.violation(pixels, clean) is None
        assert torch.equal(threat.admit(pixels, clean), pixels)
        assert found.example.score == model(pixels).item()


@pytest.mark.parametrize("box", ["inactive", "active"])
@pytest.mark.parametrize("kind", ["pgd", "apgd"])
def test_with_8_bit_pixels_the_optimum_of_a_linear_model_is_reached(kind, box):
    """At 4.9 grey levels the ends are clip(x +- 4 levels sign(w)): four whole ones."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = _on_levels(low=0.2, high=0.8) if box == "inactive" else _on_levels()
    threat = ThreatModel("inf", 4.9 / 255, pixels="8bit")
    attack = _attack(kind, threat, objectives=BOTH, steps=20)
    found = by_key(attack.run(model, images, ids, mos))
    weight = model.weight(24, 24).detach()
    for (i, image), (objective, side) in itertools.product(enumerate(images), (("raise", 1), ("lower", -1))):
        best = (image + side * 4 / 255 * weight.sign()).clamp(0, 1)
        optimum = model(best.unsqueeze(0)).item()
        assert found[i, objective, 20].example.score == pytest.approx(optimum, abs=1e-12)


def test_8_bit_aware_attacks_reach_further_in_an_8_bit_file():
    """In norm 2 below half a level a pixel rounding wipes the plain attack out; the aware one stays."""
    model, (images, ids, mos) = create_model("linear", dtype="float64"), _on_levels(low=0.3, high=0.7)
    epsilon = 0.15 / 255 * math.sqrt(3 * 24 * 24)
    left = []
    for pixels in ("float", "8bit"):
        attack = _attack("pgd", ThreatModel("2", epsilon, pixels=pixels), objectives=("raise",))
        result = attack.run(model, images, ids, mos)
        rounded = []
        for found in result.found:
            if found.objective == "raise":
                example, clean = found.example.pixels.unsqueeze(0), images[found.image].unsqueeze(0)
                rounded.append(model(to_8_bits(example, clean, attack.threat)).item())
                assert pixels == "float" or rounded[-1] == found.example.score
        left.append(sum(rounded) - float(result.clean.sum()))
    assert left[1] > 3 * left[0]


class Broad(QualityModel):
    """A smooth score of all frequencies, float32: a linear one, bent."""

    def __init__(self) -> None:
        linear = create_model("linear", scale=30.0)
        super().__init__(linear.spec.replace(name="broad"))
        self.linear = linear

    def predict(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(images) - 0.5)


def _photos(count=4):
    """Smooth images with some texture, as photographs are, of 8 bits."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (40, 44), mode="bicubic").clamp(0.1, 0.9)
    images = nearest_levels((smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1))
    return list(images), [f"photo-{i}" for i in range(count)], torch.linspace(0, 1, count).double()


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_the_differentiable_jpeg_is_pillows_up_to_its_soft_rounding(quality):
    """Nearer to the real file than the file is to the image, at sizes that are no multiples of a block."""
    images = torch.stack(_photos()[0])
    real, ours = through_jpeg_file(images, quality), through_jpeg(images, quality)
    loss = (real - images).abs().mean()
    assert (ours - real).abs().mean() < 0.5 * loss
    assert (ours - real).abs().mean() * 255 < 2
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_an_attack_through_jpeg_survives_a_jpeg_file_better():
    """In real files of both qualities it keeps more than plain PGD, and its work is counted."""
    model, (images, ids, mos) = Broad().eval(), _photos()
    kept = {}
    for qualities in ((), (60, 80)):
        attack = create_attack(
            "pgd", threat=ThreatModel("inf", 4 / 255), objectives=BOTH, steps=12, step_size=0.8 / 255,
            jpeg_qualities=qualities,
        )  # fmt: skip
        result = attack.run(model, images, ids, mos)
        drifts = []
        for found in result.found:
            if found.objective in BOTH:
                pair = torch.stack([found.example.pixels, images[found.image]])
                assert found.example.score == pytest.approx(float(model(pair)[0].detach()), abs=1e-6)
                side = 1 if found.objective == "raise" else -1
                for quality in (60, 80):
                    after, before = model(through_jpeg_file(pair, quality)).tolist()
                    drifts.append(side * (after - before))
        kept[qualities] = sum(drifts) / len(drifts)
        assert result.cost[0, 12].backwards == (len(qualities) or 1) * 23  # one start for both ways
        assert all(f.example.pixels.sub(images[f.image]).abs().max() <= 4.001 / 255 for f in result.found)
    assert kept[60, 80] > 1.2 * kept[()] > 0


@pytest.mark.parametrize("qualities", [(0,), (101,), (75, 75), (75.0,), (True,)])
def test_a_jpeg_quality_out_of_range_is_refused(qualities):
    """A quality is a whole number from 1 to 100, named once."""
    with pytest.raises(BadAttackOption, match=r"JPEG quality|jpeg_qualities\.0"):
        _attack("pgd", ThreatModel("inf", 0.1), jpeg_qualities=qualities)


def test_a_higher_similarity_leaves_less_to_the_adversary():
    """The floor binds, and raising it costs reach; the plain ball breaks it."""
    model, (images, ids, mos) = Wavy().eval(), _on_levels(low=0.4, high=0.6)
    clean = torch.stack(images)
    reach = []
    for floor in (None, 0.9, 0.98, 0.999):
        threat = ThreatModel("inf", 24 / 255, ssim_floor=floor)
        result = _attack("apgd", threat, objectives=("raise",), steps=20).run(model, images, ids, mos)
        found = [f for f in result.found if f.objective == "raise"]
        reach.append(sum(f.loss for f in found))
        values = ssim(torch.stack([f.example.pixels for f in found]), clean)
        assert (values.min() < 0.9) if floor is None else bool((values >= floor).all())
        assert floor is None or float(values.mean()) == pytest.approx(floor, abs=0.3 * (1 - floor))
    assert reach == sorted(reach, reverse=True)
    assert reach[3] > float(result.clean.sum())


def test_a_radius_per_pixel_attacks_as_norm_2_does():
    """PGD at rmse r is PGD in norm 2 at r sqrt(3 H W), up to rounding, whatever the size."""
    model, root = Wavy().eval(), math.sqrt(3 * 12 * 20)
    on = targets([(12, 20)] * 3)
    a = _attack("pgd", ThreatModel("rmse", 4 / 255), objectives=BOTH, step_size=1 / 255)
    b = _attack("pgd", ThreatModel("2", 4 / 255 * root), objectives=BOTH, step_size=root / 255)
    ours, theirs = by_key(a.run(model, *on)), by_key(b.run(model, *on))
    for key, found in ours.items():
        assert torch.allclose(found.example.pixels, theirs[key].example.pixels, rtol=0, atol=1e-9)


class Quadratic(QualityModel):
    """f(x) = (mean(x) - 1/2)^2, whose ends in a ball are known: the far side, or the vertex inside."""

    def __init__(self) -> None:
        super().__init__(create_model("linear").spec.replace(name="quadratic"))

    def predict(self, images: Tensor) -> Tensor:
        return (images.flatten(1).mean(dim=1) - 0.5).square()


@pytest.mark.parametrize("norm", ["inf", "2", "rmse"])
def test_mse_and_drift_take_the_right_end_of_a_quadratic_model(norm):
    """From means on either side of the vertex both go to the farther of the two ends that can be reached."""
    model, (images, ids, _) = Quadratic().eval(), targets([(12, 12)] * 6, low=0.2, high=0.6)
    images = [image + shift for image, shift in zip(images, (0, 0, 0, 0.2, 0.2, 0.2), strict=True)]
    root = math.sqrt(432)
    threat = ThreatModel(norm, 0.04 * root if norm == "2" else 0.04)
    mos = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0]).double()
    for kind in ("pgd", "apgd"):
        own = {"steps": 40, "step_size": threat.epsilon / 8} if kind == "pgd" else {"steps": 40}
        attack = create_attack(kind, threat=threat, objectives=("mse", "drift", *BOTH), restarts=3, **own)
        result = attack.run(model, images, ids, mos)
        found = by_key(result)
        for i, image in enumerate(images):
            mean = float(image.mean())
            low = max(0.0, abs(mean - 0.5) - 0.04) ** 2
            high = (abs(mean - 0.5) + 0.04) ** 2
            clean = (mean - 0.5) ** 2
            by_mse = max((low, high), key=lambda f, y=float(mos[i]): (f - y) ** 2)
            by_drift = max((low, high), key=lambda f, c=clean: (f - c) ** 2)
            wanted = {"mse": by_mse, "drift": by_drift, "raise": high, "lower": low}
            for objective, value in wanted.items():
                assert found[i, objective, 40].example.score == pytest.approx(value, abs=2e-5)


def _universal(threat=None, **settings):
    threat = threat or ThreatModel("inf", 8 / 255)
    own = {"steps": 12, "step_size": threat.epsilon / 2, "objectives": BOTH, "batch": 4, "seed": 7}
    return create_attack("universal", threat=threat, **{**own, **settings})


@pytest.mark.parametrize("norm", ["inf", "2", "rmse"])
def test_a_universal_change_reaches_the_optimum_of_a_linear_model_on_unseen_images(norm):
    """Trained on some images it is +- eps sign(w) (inf) or +- eps w / |w|, and moves others just so."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = targets([(8, 8)] * 12, low=0.3, high=0.7)
    threat = ThreatModel(norm, {"inf": 8 / 255, "2": 0.3, "rmse": 0.02}[norm])
    attack = _universal(threat, steps=30).trained(model, images[:6], ids[:6])
    result = attack.run(model, images[6:], ids[6:], mos[6:])
    weight = model.weight(8, 8).detach()
    length = {"2": 0.3, "rmse": 0.02 * math.sqrt(192)}.get(norm, 0.0)
    change = 8 / 255 * weight.sign() if norm == "inf" else length * weight / weight.norm()
    for found in result.found:
        side = 1 if found.objective in ("raise", "highest_seen") else -1
        best = images[6 + found.image] + side * change
        assert found.example.score == pytest.approx(model(best.unsqueeze(0)).item(), abs=1e-9)
    assert result.cost[0, 30] == (2, 0, 0)


def test_a_universal_change_is_one_change_and_repeats():
    """Away from the box all images move alike; training depends on nothing but model, images and seed."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 12, low=0.2, high=0.8)
    attack = _universal()
    first, again = (attack.trained(model, images[:6], ids[:6], chunk=chunk) for chunk in (8, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.changes, again.changes, strict=True))
    result = by_key(first.run(model, images[6:], ids[6:], mos[6:]))
    for objective, change in zip(BOTH, first.changes, strict=True):
        moved = [result[i, objective, 12].example.pixels - images[6 + i] for i in range(6)]
        assert all(torch.allclose(m, change, atol=1e-12) for m in moved)
    gains = [result[i, "raise", 12].loss - result[i, "lower", 12].loss * -1 for i in range(6)]
    assert all(gain > 0 for gain in gains)
    other = _universal(seed=8).trained(model, images[:6], ids[:6])
    assert not torch.equal(other.changes[0], first.changes[0])


def test_a_universal_change_is_weaker_than_one_an_image():
    """On unseen images it moves scores, more than noise and less than PGD."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 12)
    threat = ThreatModel("inf", 8 / 255)
    universal = _universal(threat, steps=20).trained(model, images[:6], ids[:6])
    noise = create_attack("noise", threat=threat, objectives=BOTH)
    runs = {
        name: attack.run(model, images[6:], ids[6:], mos[6:])
        for name, attack in (("noise", noise), ("universal", universal), ("pgd", _attack("pgd", threat)))
    }
    reach = {name: sum(f.loss for f in run.found if f.objective in BOTH) / 12 for name, run in runs.items()}
    assert reach["noise"] < reach["universal"] < reach["pgd"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ("mse",)}, "not 'mse'"),
        ({"objectives": ("raise", "drift")}, "not 'drift'"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": 10}, "more than twice the radius"),
        ({"training_split": "test"}, "training_split"),
        ({"training_images": 0}, "training_images"),
    ],
)
def test_a_universal_change_refuses_what_has_no_meaning(settings, message):
    """Objectives that know an image, and settings out of range."""
    with pytest.raises(BadAttackOption, match=message):
        _universal(**settings)


def test_a_universal_change_fits_one_size():
    """Images of other sizes, no images, and a run before training are refused with the reason."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8), (8, 8), (6, 9)])
    with pytest.raises(AttackError, match=r"2 \(6 x 9, 8 x 8\)"):
        _universal().trained(model, images, ids)
    with pytest.raises(AttackError, match="no images"):
        _universal().trained(model, [], [])
    with pytest.raises(AttackError, match="train it first"):
        _universal().run(model, images, ids, mos)
    trained = _universal().trained(model, images[:2], ids[:2])
    with pytest.raises(AttackError, match="trained for 8 x 8 pixels, but image-2 has 6 x 9"):
        trained.run(model, images, ids, mos)
