"""Defences as facts: what each does to an image, and that knowing it never makes an attack weaker."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers.attack_cases import BOTH, Counting, Wavy, targets
from iqa_attacks import BadAttackOption, ThreatModel, create_attack, score, score_and_gradient
from iqa_attacks.defences.defended import defend
from iqa_attacks.defences.steps import DEFENCES, parse_defence
from iqa_attacks.images.jpeg import through_jpeg_file
from iqa_attacks.seeding import seeded
from iqa_models import create_model
from iqa_models.frozen import frozen

EACH = (
    "jpeg:60", "resize_crop:0.8", "median:3", "blur:0.8", "quantise:5", "flip", "smooth:0.02,3",
    "smooth_median:0.02,3",
)  # fmt: skip
"""Every defence with numbers of its own."""


def _images(count=3, side=32, seed=1):
    """Return smooth float32 images (B, 3, H, W) with some noise, away from black and white."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side + 4), mode="bicubic")
    return (0.15 + 0.7 * smooth + 0.04 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def _generators(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def _filtered(images, function):
    return torch.from_numpy(np.stack([[function(c) for c in x] for x in images.double().numpy()]))


ORACLES = {
    "jpeg:60": lambda x: through_jpeg_file(x, 60).double(),
    "median:5": lambda x: _filtered(x, lambda c: ndimage.median_filter(c, 5, mode="nearest")),
    "blur:1.2": lambda x: _filtered(x, lambda c: ndimage.gaussian_filter(c, 1.2, mode="nearest", radius=4)),
    "quantise:3": lambda x: (x.double() * 7 + 0.5).floor() / 7,
}


@pytest.mark.parametrize("text", ORACLES)
def test_what_is_exact_is_what_others_compute(text):
    images = _images()
    found = parse_defence(text).apply(images, _generators(len(images)))
    assert (found.double() - ORACLES[text](images)).abs().max() < 2e-6


def test_what_is_drawn_is_drawn_from_the_image_s_own_generator():
    """A coin, a place, noise: each from one generator an image, whoever shares the batch."""
    images = _images(8)
    for text in ("flip", "resize_crop:0.75", "smooth:0.1,2"):
        defence = parse_defence(text)
        together = defence.apply(images, _generators(8)).view(8, defence.copies, *images.shape[1:])
        for i, generator in enumerate(_generators(8)):
            alone = defence.apply(images[i : i + 1], [generator])
            assert torch.equal(alone, together[i])
    flipped = parse_defence("flip").apply(images, _generators(8))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert any(mirrored)
    assert any(kept)
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    crops = parse_defence("resize_crop:0.75").apply(images.mean(dim=(2, 3), keepdim=True).expand_as(images),
                                                    _generators(8))  # fmt: skip
    assert (crops - images.mean(dim=(2, 3), keepdim=True)).abs().max() < 1e-6
    noise = parse_defence("smooth:0.01,400").apply(torch.full((1, 3, 8, 8), 0.5), _generators(1)) - 0.5
    assert float(noise.std()) == pytest.approx(0.01, rel=0.02)


def test_every_defence_leaves_images_in_the_box_and_lets_a_gradient_past():
    """The defended model's own, and that of the model behind; scores are the same to the last bit."""
    images = torch.stack([_images(1)[0], torch.zeros(3, 32, 36), torch.ones(3, 32, 36)])
    assert {text.partition(":")[0] for text in EACH} == set(DEFENCES)
    for text in EACH:
        shown = parse_defence(text).apply(images, _generators(3))
        assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
        model = defend(create_model("cheat_none"), text)
        scores = []
        for way in model.ways:
            with seeded(5, images.device):
                found = score_and_gradient(way, images, chunk=3)
            assert found.gradients[0].abs().max() > 0
            scores.append(found.scores)
        assert all(torch.equal(scores[0], other) for other in scores)
        assert torch.equal(found.gradients, score_and_gradient(model.bare, images, chunk=3).gradients)
        assert model.is_stochastic == text.startswith(("flip", "resize_crop", "smooth"))


@pytest.mark.parametrize(
    "text", ["flip", "resize_crop|jpeg:80", "smooth:0.05,12|median", "median|smooth:.05,3|flip"]
)
def test_draws_of_one_pass_are_those_of_each_image_alone(text):
    """`predict_drawn` is `predict` with torch's generators at the seed; gradients of many copies, too."""
    model, images = defend(create_model("cheat_none"), text), _images()
    assert model.draws_by_image
    seeds = [11, 12, 13]
    leaf = images.clone().requires_grad_()
    with torch.enable_grad():
        together = model.score_admitted(leaf, seeds)
        (slopes,) = torch.autograd.grad(together.sum(), leaf)
    together = together.detach()
    for i, seed in enumerate(seeds):
        with seeded(seed, images.device):
            alone = score_and_gradient(model, images[i : i + 1], chunk=1)
        assert float(alone.scores) == pytest.approx(float(together[i]), abs=1e-6)
        assert torch.allclose(alone.gradients[0], slopes[i], atol=1e-6)


@pytest.mark.parametrize("text", EACH)
@pytest.mark.parametrize("name", ["cheat_none", "linear"])
def test_an_attack_that_knows_the_defence_is_not_weaker_than_one_that_does_not(name, text):
    """On every image, up and down, as the attack scores it; so two models, every wrapper.

    Of a defence that draws, the mean over images and both ways, by draws that no attack has seen.
    """
    images, ids, mos = list(_images(3)), ["a", "b", "c"], torch.full((3,), 0.5, dtype=torch.float64)
    model = create_model(name)
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 4 / 255), objectives=BOTH, steps=6, step_size=1 / 255, eot_samples=4
    )
    defended = defend(model, text)
    draws = 8 if defended.is_stochastic else None
    gains = {}
    for victim in (model, defended):
        for found in attack.run(victim, images, ids, mos).found:
            if found.objective in BOTH:
                value = attack.score_of(defended, found.example.pixels, ids[found.image], ("again",), draws)
                base = attack.score_of(defended, images[found.image], ids[found.image], ("again",), draws)
                gain = (value - base) * (1 if found.objective == "raise" else -1)
                gains.setdefault(found.image if draws is None else "mean", {}).setdefault(victim, []).append(
                    gain
                )
    for found in gains.values():
        unaware, adaptive = np.array(found[model]), np.array(found[defended])
        if draws is None:
            assert (adaptive >= unaware).all()
        assert adaptive.mean() > (0.99 if draws else 1) * unaware.mean() - 1e-9
        assert unaware.mean() > 0


def test_every_way_is_followed_and_paid_for():
    """Of each image and objective the better is kept; of what follows no gradient there is one search."""
    model, (images, ids, mos) = Counting().eval(), targets([(16, 16)] * 2)
    defended = defend(model, "jpeg:50")
    attack = create_attack("fgsm", threat=ThreatModel("inf", 0.05), objectives=BOTH)
    both = attack.run(defended, images, ids, mos)
    apart = [attack.search(way, _as_targets(images, ids, mos, both.clean), None, 8) for way in defended.ways]
    losses = [
        {(f.image, f.objective): f.loss for f in ascent.found if f.loss is not None} for ascent in apart
    ]
    kept = {(f.image, f.objective): f.loss for f in both.found if f.loss is not None}
    assert kept == {key: max(each[key] for each in losses) for key in kept}
    assert {c.backwards for c in both.cost.values()} == {2 * c.backwards for c in apart[0].cost.values()}
    noise = create_attack("noise", threat=ThreatModel("inf", 0.05), objectives=BOTH)
    assert {c.backwards for c in noise.run(defended, images, ids, mos).cost.values()} == {0}


def _as_targets(images, ids, mos, clean):
    from iqa_attacks.results import Targets

    return Targets(images, ids, mos, clean)


def test_a_copy_for_gradients_is_behind_the_same_defences():
    """Folded or not, its ways lead where the model's do."""
    model = defend(create_model("demo_resnet10t"), "jpeg:70")
    copy = frozen(model, channels_last=False, graphed=True)
    assert copy is not model
    assert copy.graphs is None
    images = _images(2, side=64)
    for mine, theirs in zip(model.ways, copy.ways, strict=True):
        a, b = (score_and_gradient(each, images, chunk=2) for each in (mine, theirs))
        assert torch.allclose(a.scores, b.scores, atol=1e-4)
        assert float((a.gradients - b.gradients).abs().sum()) < 0.02 * float(a.gradients.abs().sum())


def test_defences_before_defences_are_one_chain():
    images = _images(2)
    twice = defend(defend(create_model("linear"), "quantise:3"), "blur")
    once = defend(create_model("linear"), "blur|quantise:3")
    assert twice.text == once.text == "blur:1|quantise:3"
    assert torch.equal(score(twice, images, chunk=2), score(once, images, chunk=2))
    assert twice.spec == once.spec
    assert twice.bare.spec == create_model("linear").spec


def test_a_direction_that_was_turned_stays_turned():
    """A model of DMOS is turned once, not twice."""
    images = _images(2).double()
    model = Wavy(higher_is_better=False).eval()
    assert torch.allclose(
        score(defend(model, "blur:0.2"), images, chunk=2), score(model, images, chunk=2), atol=1e-3
    )


@pytest.mark.parametrize(
    "text", [*EACH, "blur", "median", "quantise", "resize_crop", "smooth:1e-3,1", "blur:1.23456789"]
)
def test_a_defence_s_text_makes_it_again(text):
    defence = parse_defence(text)
    assert parse_defence(defence.text) == defence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jpg:75", "no defence 'jpg', did you mean 'jpeg'"),
        ("jpeg", "write jpeg:QUALITY"),
        ("jpeg:75,3", "write jpeg:QUALITY"),
        ("jpeg:0", "jpeg: quality: Input should be greater than or equal to 1"),
        ("jpeg:75.5", "jpeg: quality: Input should be a valid integer"),
        ("jpeg:high", "could not convert"),
        ("median:4", "must be odd"),
        ("resize_crop:1", "less than 1"),
        ("resize_crop:nan", "resize_crop: share"),
        ("smooth:0.1", "write smooth:SIGMA,DRAWS"),
        ("smooth:inf,2", "smooth: sigma"),
        ("flip:1", "write flip"),
        ("", "no defence ''"),
    ],
)
def test_what_is_no_defence_is_said_in_words(text, words):
    with pytest.raises(BadAttackOption, match=words):
        defend(create_model("linear"), text)
