"""Score intervals that no admissible image leaves: closed forms, layer bounds, median smoothing."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest
from torch import nn

from iqa_attacks import BadAttackOption, ThreatModel, create_attack, score
from iqa_attacks.certificates.intervals import Drawing, certify_scores
from iqa_attacks.certificates.linear import largest_change
from iqa_attacks.certificates.smoothing import needed_draws, order
from iqa_attacks.defences.defended import defend
from iqa_attacks.errors import NoCertificate
from iqa_models import create_model, wrap

NORMS = [("inf", 0.5 / 255), ("inf", 4 / 255), ("2", 0.3), ("2", 3.0), ("rmse", 1 / 255)]


def images(count, side=16, low=0.0, high=1.0, seed=0):
    """Return random images [(3, side, side)]."""
    generator = torch.Generator().manual_seed(seed)
    return list(torch.rand(count, 3, side, side, generator=generator) * (high - low) + low)


def attacked(model, shown, threat, steps=20):
    """Return the lowest and highest score (n,) an attack finds."""
    attack = create_attack(
        "pgd",
        threat=threat,
        objectives=("raise", "lower"),
        steps=steps,
        step_size=threat.epsilon / 6,
        restarts=1,
    )
    found = attack.run(
        model, shown, [str(i) for i in range(len(shown))], torch.zeros(len(shown)).double()
    ).found
    ends = [[f.example.score for f in found if f.image == i] for i in range(len(shown))]
    return np.array([min(e) for e in ends]), np.array([max(e) for e in ends])


@pytest.mark.parametrize(("norm", "epsilon"), NORMS)
def test_a_linear_model_s_bounds_are_its_closed_form(norm, epsilon):
    """Within 1 % of f +- eps |w| (dual norm) where the box is far, and attacks come near, never outside."""
    model, shown = create_model("linear"), images(3, low=0.4, high=0.6)
    threat = ThreatModel(norm, epsilon)
    weight = (model.weight(16, 16) / 768).detach().double()
    reach = epsilon * float(weight.abs().sum() if norm == "inf" else weight.norm())
    reach *= math.sqrt(768) if norm == "rmse" else 1
    if norm == "2" and epsilon > 1:
        shown = [torch.full((3, 16, 16), 0.5)] * 3
    found = certify_scores(model, shown, list("abc"), threat)
    clean = score(model, torch.stack(shown), chunk=3).double().numpy()
    assert found.method == "closed form"
    assert found.confidence == 1
    assert (found.high - clean) / reach == pytest.approx(np.ones(3), abs=0.01)
    assert (clean - found.low) / reach == pytest.approx(np.ones(3), abs=0.01)
    low, high = attacked(model, shown, threat)
    assert (found.low <= low).all()
    assert (high <= found.high).all()
    assert (high - low > 0.9 * (found.high - found.low)).all()


@pytest.mark.parametrize(("norm", "epsilon"), [*NORMS, ("2", 9.0), ("2", 60.0)])
def test_the_box_is_counted_exactly(norm, epsilon):
    """The best point of ball and box is where the projection of a far point in the direction w lies."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    weight.view(-1)[::5] = 0
    image, threat = images(1)[0].double(), ThreatModel(norm, epsilon)
    far = threat.project((image + 1e5 * weight).unsqueeze(0), image.unsqueeze(0))[0]
    exact = float((weight * (far - image)).sum())
    found = largest_change(weight, image, threat)
    assert exact <= found <= exact * (1 + 1e-3)


NETS = {
    "plain": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1),
    ),
    "all": lambda: nn.Sequential(
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 5, stride=2, groups=3, bias=False)),
        nn.BatchNorm2d(6), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Identity(), nn.Flatten(), nn.Dropout(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid(),
    ),
    "pooled": lambda: nn.Sequential(nn.Conv2d(3, 1, 3, stride=3), nn.ReLU(), nn.MaxPool2d(5), nn.Flatten()),
}  # fmt: skip


def network(name, **card):
    """Return a small network with random statistics, wrapped."""
    torch.manual_seed(4)
    net = NETS[name]()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.3, 2)
    return wrap(net, name=name, score_range=(0, 1), **card)


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_no_attack_leaves_the_bounds_of_a_network(name, better):
    """In every norm, both ways, also where the card turns the score; and the bounds say something."""
    model, shown = network(name, higher_is_better=better), images(2)
    for norm, epsilon in NORMS:
        threat = ThreatModel(norm, epsilon)
        found = certify_scores(model, shown, ["a", "b"], threat)
        low, high = attacked(model, shown, threat, steps=8)
        assert found.method == "layer bounds"
        assert (found.low <= low).all()
        assert (high <= found.high).all()
        if epsilon == 0.5 / 255 and name == "plain":
            assert ((high - low) > 0.6 * (found.high - found.low)).all()


def test_a_network_without_corners_is_exact():
    """Layers that add up to a linear form are bounded by it; a ReLU that is always open changes nothing."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 1)).double()
    net[0].bias.data += 5
    image = images(1)[0].double()
    leaf = image.clone().unsqueeze(0).requires_grad_()
    value = net(leaf).squeeze()
    (slope,) = torch.autograd.grad(value, leaf)
    value = float(value.detach())
    for norm, epsilon in NORMS:
        threat = ThreatModel(norm, epsilon)
        found = certify_scores(wrap(net, name="net", score_range=(0, 1)), [image], ["a"], threat)
        up, down = largest_change(slope[0], image, threat), largest_change(-slope[0], image, threat)
        assert found.high[0] == pytest.approx(value + up, rel=1e-6)
        assert found.low[0] == pytest.approx(value - down, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 1, 3), nn.GELU(), nn.Flatten()), "no bound goes through a GELU"),
        (lambda: nn.Sequential(nn.Conv2d(3, 1, 3, padding_mode="reflect", padding=1)), "padding 'reflect'"),
        (lambda: nn.Conv2d(3, 1, 3), "through an nn.Sequential, not through a Conv2d"),
        (lambda: nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten()), "lead to 196 numbers"),
        (lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "without running statistics"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 1)).half(), "float32 or in float64"),
    ],
)
def test_what_no_bound_goes_through_is_said_in_words(make, words):
    with pytest.raises(NoCertificate, match=words):
        certify_scores(
            wrap(make(), name="net", score_range=(0, 1)), images(1), ["a"], ThreatModel("inf", 1 / 255)
        )


def test_a_hook_and_a_subclass_may_do_anything():
    class Mine(nn.Sequential):
        def forward(self, shown):
            return -super().forward(shown)

    hooked = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))
    hooked[1].register_forward_hook(lambda *_: None)
    replaced = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))
    replaced[0].forward = lambda shown: shown.flatten(1) ** 2
    endless = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))
    endless[1].weight.data[0, 0] = math.inf
    cases = ((hooked, "has a hook"), (replaced, "a method of its own"), (endless, "not finite"))
    for net, words in (*cases, (Mine(nn.Flatten(), nn.Linear(768, 1)), "through a Mine")):
        with pytest.raises(NoCertificate, match=words):
            certify_scores(wrap(net, name="net", score_range=(0, 1)), images(1), ["a"], ThreatModel("2", 1))


def test_order_statistics_fail_as_seldom_as_asked_and_no_seldomer_than_need_be():
    for draws in (100, 1000):
        for ratio in (0.1, 0.5, 1.0):
            for failing in (0.05, 1e-4):
                k = order(draws, ratio, failing)
                level = 0.5 * math.erfc(ratio / math.sqrt(2))
                if k:
                    assert binom.cdf(k - 1, draws, level) <= failing
                assert binom.cdf(k, draws, level) > failing
    needed = needed_draws(1.0, 1e-3)
    assert order(needed, 1.0, 1e-3) == 1
    assert order(needed - 1, 1.0, 1e-3) == 0
    assert needed_draws(60.0, 1e-3) == math.inf


# A model, its smoothed score at the two worst images of the ball, in closed form.
def _linear():
    model = create_model("linear")
    return (
        model,
        lambda image, r: float(model(image.unsqueeze(0))) + r * float(model.weight(8, 8).norm()) / 192,
    )


def _threshold():
    """Brightness above one half, as 0 or 1 and a little of the brightness: its median knows both."""
    step = wrap(
        lambda x: (x.mean(dim=(1, 2, 3)) > 0.5).to(x) + x.mean(dim=(1, 2, 3)), name="t", score_range=(0, 2)
    )

    def smoothed(image, r):
        mean = float(image.mean()) + r / math.sqrt(192)
        return (mean > 0.5) + mean

    return step, smoothed


@pytest.mark.parametrize("make", [_linear, _threshold])
def test_the_smoothed_certificate_covers_as_often_as_it_says(make):
    """Of 150 sets of 3 images, those with an image outside are no more than 20 %, by a binomial test."""
    with torch.no_grad():
        bare, smoothed = make()
        model, shown = defend(bare, "smooth_median:0.05,1"), images(3, side=8, low=0.47, high=0.535)
        epsilon, sets = 0.03, 150
        worst = np.array([[smoothed(x, -epsilon), smoothed(x, epsilon)] for x in shown])
        failed = nearly = 0
        for seed in range(sets):
            drawing = Drawing(draws=120, confidence=0.8, seed=seed)
            found = certify_scores(model, shown, list("abc"), ThreatModel("2", epsilon), drawing)
            assert found.method == "median smoothing"
            assert found.confidence == 0.8
            failed += bool((found.low > worst[:, 0]).any() or (found.high < worst[:, 1]).any())
            nearly += float(np.mean(found.high - found.low)) / sets
    assert binomtest(failed, sets, 0.2, alternative="greater").pvalue > 1e-3
    assert failed > 0  # it promises no more than it must
    assert nearly < 4 * float(np.mean(worst[:, 1] - worst[:, 0]))


def test_the_smoothed_score_is_what_is_certified_whatever_stands_behind():
    """Norm inf through its ball in norm 2; a defence that draws behind the noise; the same draws twice."""
    model, shown = create_model("linear"), images(1, side=8, low=0.3, high=0.7)
    threat, drawing = ThreatModel("inf", 0.1 / 255), Drawing(draws=300, confidence=0.9)
    for text in ("smooth_median:0.05,1", "smooth_median:0.05,1|flip", "smooth_median:0.05,1|jpeg:90"):
        defended = defend(model, text)
        found = certify_scores(defended, shown, ["a"], threat, drawing)
        again = certify_scores(defended, shown, ["a"], threat, drawing)
        assert (found.low, found.high) == (again.low, again.high)
        behind = defend(model, text.replace(",1", ",400"))
        torch.manual_seed(0)
        with torch.no_grad():
            middle = float(behind(shown[0].unsqueeze(0)))
        assert found.low[0] < middle < found.high[0]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("jpeg:75|smooth_median:0.1,3", "no bound goes through the defence 'jpeg:75'"),
        ("smooth:0.1,3", "write 'smooth_median:SIGMA,DRAWS'"),
        ("smooth_median:0.01,3", "image 'a': radius 0.3 .* needs more than 100,000,000 draws"),
        ("smooth_median:0.1,3", r"needs [\d,]+ draws at the least, there are 50"),
    ],
)
def test_what_smoothing_cannot_certify_is_said_in_words(model, words):
    with pytest.raises(NoCertificate, match=words):
        certify_scores(
            defend(create_model("linear"), model), images(1), ["a"], ThreatModel("2", 0.3), Drawing(draws=50)
        )


def test_models_and_settings_without_a_certificate_are_refused():
    with pytest.raises(NoCertificate, match="cheat_none: no bound is known"):
        certify_scores(create_model("cheat_none"), images(1), ["a"], ThreatModel("2", 0.3))
    for bad in ({"draws": 0}, {"confidence": 1.0}, {"confidence": 0}):
        with pytest.raises(BadAttackOption, match=next(iter(bad))):
            Drawing(**bad)
