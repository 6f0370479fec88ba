"""The torchattacks catalogue: what fits moves every score both ways, what cannot says why; parity."""

import importlib
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from helpers.attack_cases import BOTH, Wavy, by_key, same, targets
from iqa_attacks import (
    AttackError,
    AttackFailed,
    BadAttackOption,
    ThreatModel,
    UnknownAttack,
    create_attack,
    measure,
)
from iqa_attacks.adapters.torchattacks import FITTING, REFUSED, REQUIREMENT, TorchAttack, TwoLogits
from iqa_models import QualityModel, create_model


class Hundred(QualityModel):
    """Scores on 0..100: brightness, with a smooth texture term; gradients lie in memory channels last."""

    def __init__(self) -> None:
        spec = create_model("linear").spec.replace(name="hundred", score_range=(0.0, 100.0))
        super().__init__(spec)

    def predict(self, images: Tensor) -> Tensor:
        same = torch.eye(3).to(images).view(3, 3, 1, 1).to(memory_format=torch.channels_last)
        images = nn.functional.conv2d(images.to(memory_format=torch.channels_last), same)
        texture = (images[..., 1:] - images[..., :-1]).square().mean((1, 2, 3))
        return 100 * images.mean((1, 2, 3)) + 20 * texture


def _levels():
    """Images that score near 0, 50 and 100."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 3, 24, 24, generator=generator)
    images = [
        (level + 0.04 * (n - 0.5)).clamp(0, 1) for level, n in zip((0.03, 0.5, 0.97), noise, strict=True)
    ]
    return images, ["dark", "middle", "bright"], torch.tensor([0.1, 0.5, 0.9]).double()


def _attack(name, epsilon=None, **settings):
    norm = FITTING.get(name, "inf")
    epsilon = epsilon or (4 / 255 if norm == "inf" else 1.0)
    settings = {"objectives": BOTH, **settings}
    return create_attack("torchattacks", threat=ThreatModel(norm, epsilon), attack=name, **settings)


@cache
def _plain(name):
    """What an attack of the library finds; nobody may change it."""
    return _attack(name).run(Hundred().eval(), *_levels())


@pytest.mark.parametrize("name", sorted(FITTING))
def test_every_fitting_attack_moves_every_score_both_ways(name, capsys):
    """Near 0, 50 and 100 alike, inside its ball, repeatably, and without printing."""
    model, (images, ids, mos) = Hundred().eval(), _levels()
    result = _plain(name)
    found = by_key(result)
    steps = _attack(name).effort.steps
    assert [round(float(s), -1) for s in result.clean] == [0, 50, 100]
    for i, image in enumerate(images):
        moved = [found[i, o, steps].example.score - float(result.clean[i]) for o in BOTH]
        assert moved[0] > 0.2
        assert moved[1] < -0.2
        for objective in BOTH:
            pixels = found[i, objective, steps].example.pixels.unsqueeze(0)
            budget = measure(pixels, image.unsqueeze(0))
            size = budget.linf if FITTING[name] == "inf" else budget.l2
            assert float(size) <= (4 / 255 if FITTING[name] == "inf" else 1.0) + 1e-6
            assert float(model(pixels).detach()) == pytest.approx(found[i, objective, steps].example.score)
        forwards, backwards, zero = result.cost[i, steps]
        assert forwards > backwards > 0
        assert zero == 0
    alone = by_key(_attack(name).run(model, images[2:], ids[2:], mos[2:]))
    assert all(same(f, found[i + 2, o, s]) for (i, o, s), f in alone.items())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", sorted(FITTING))
def test_equal_images_are_attacked_alike_whatever_their_layout(name):
    """The library draws in the layout of an image, and views it flat: it is given one layout only."""
    model, (images, ids, mos) = Hundred().eval(), _levels()
    turned = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
    plain, other = by_key(_plain(name)), by_key(_attack(name).run(model, turned[:1], ids[:1], mos[:1]))
    assert len(other) == len(plain) / len(images)
    assert all(same(each, plain[key]) for key, each in other.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("up", [True, False])
def test_the_offset_logits_are_linear_over_the_whole_range(up, dtype):
    """From far below the card's range to far above it the cross-entropy has one slope, to the last bit."""

    class Through(QualityModel):
        def predict(self, images: Tensor) -> Tensor:
            return 1000 * images.mean((1, 2, 3)) - 450  # -450 .. 550 on a card of 0..100

    model = Through(create_model("linear").spec.replace(name="through", score_range=(0.0, 100.0))).eval()
    levels = torch.linspace(0, 1, 101, dtype=dtype).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    levels.requires_grad_()
    logits = TwoLogits(model, up=up)(levels)
    label = torch.full((101,), 0 if up else 1)
    loss = nn.functional.cross_entropy(logits, label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, levels)
    assert (gradient == gradient[0]).all()
    assert bool((gradient > 0).all() if up else (gradient < 0).all())


def test_the_bare_shim_would_leave_the_best_images_untouched():
    """Without the offset the same attack cannot lower a high score: what the adapter is there for."""

    class Bare(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.device = model, nn.Parameter(torch.empty(0))

        def forward(self, images):
            scores = self.model(images)
            return torch.stack([-scores, scores], dim=1)

    model, (images, _, _) = Hundred().eval(), _levels()
    bright = images[2].unsqueeze(0)
    untouched = torchattacks.BIM(Bare(model), eps=4 / 255)(bright, torch.tensor([1]))
    assert torch.equal(untouched, bright)


def test_the_catalogue_is_complete():
    """Every attack of the installed library either fits or is refused by name with a reason."""
    library = {n for n in torchattacks.__dict__ if isinstance(getattr(torchattacks, n), type)}
    assert library == set(FITTING) | set(REFUSED)
    assert len(FITTING) == 17
    for name in REFUSED:
        with pytest.raises(BadAttackOption, match=f"torchattacks.{name} does not fit"):
            _attack(name)


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("MIFGMS", {}, UnknownAttack, "did you mean 'MIFGSM'"),
        ("PGDL2", {"threat": ThreatModel("inf", 0.1)}, BadAttackOption, "norm '2' only"),
        ("PGD", {"objectives": ("mse",)}, BadAttackOption, "its objectives are 'raise' and 'lower'"),
        ("PGD", {"options": {"step": 3}}, BadAttackOption, "no option 'step'"),
        ("PGD", {"options": {"steps": 2.5}}, BadAttackOption, "whole number"),
        ("PGD", {"options": {"steps": 0}}, BadAttackOption, "steps must be at least 1"),
        ("PGD", {"options": {"steps": True}}, BadAttackOption, "whole number, not True"),
        ("PGD", {"options": {"random_start": "false"}}, BadAttackOption, "true or false, not 'false'"),
        ("PGD", {"options": {"random_start": 1}}, BadAttackOption, "true or false, not 1"),
        ("PGD", {"options": {"alpha": True}}, BadAttackOption, "a number or a fraction"),
        ("PGD", {"options": {"alpha": 1}}, BadAttackOption, "more than twice the radius 0.1"),
        ("EOTPGD", {"options": {"eot_iter": 0}}, BadAttackOption, "eot_iter must be at least 1"),
        ("EOTPGD", {"options": {"eot_iter": -3}}, BadAttackOption, "eot_iter must be at least 1"),
        ("UPGD", {"options": {"eot_iter": 0}}, BadAttackOption, "eot_iter must be at least 1"),
        ("SINIFGSM", {"options": {"m": 0}}, BadAttackOption, "m must be at least 1"),
        ("VMIFGSM", {"options": {"N": 0}}, BadAttackOption, "N must be at least 1"),
        ("VMIFGSM", {"options": {"beta": float("nan")}}, BadAttackOption, "finite number, not nan"),
        ("VNIFGSM", {"options": {"beta": -1.0}}, BadAttackOption, "beta must be more than 0"),
        ("MIFGSM", {"options": {"decay": float("nan")}}, BadAttackOption, "finite number, not nan"),
        ("MIFGSM", {"options": {"decay": "abc"}}, BadAttackOption, "finite number, not 'abc'"),
        ("PIFGSM", {"options": {"amplification": 0.0}}, BadAttackOption, "amplification must be more than 0"),
        ("PIFGSM", {"options": {"num_iter_set": 0}}, BadAttackOption, "num_iter_set must be at least 1"),
        ("PIFGSMPP", {"options": {"project_factor": 0}}, BadAttackOption, "project_factor must be more"),
        ("TIFGSM", {"options": {"kernel_name": "foo"}}, BadAttackOption, "'gaussian', 'linear', 'uniform'"),
        ("TIFGSM", {"options": {"len_kernel": 4}}, BadAttackOption, "an odd number"),
        ("DIFGSM", {"options": {"resize_rate": 1.0}}, BadAttackOption, "no size to draw from"),
        ("DIFGSM", {"options": {"diversity_prob": 7.0}}, BadAttackOption, "at most 1"),
        (
            "PGDL2",
            {"options": {"eps_for_division": 1}, "threat": ThreatModel("2", 1.0)},
            BadAttackOption,
            "eps_for_division must be more than 0 and at most 1e-06",
        ),
        ("PGD", {"options": {"alpha": 0}}, BadAttackOption, "positive"),
        ("FFGSM", {"options": {"alpha": 0}}, BadAttackOption, "positive"),
        ("TIFGSM", {"options": {"nsig": 0}}, BadAttackOption, "nsig must be more than 0"),
        ("PGD", {"options": {"eps": 0.1}}, BadAttackOption, "no option 'eps'"),
        ("UPGD", {"options": {"loss": "dlr"}}, BadAttackOption, "no option 'loss'"),
    ],
)
def test_bad_settings_are_refused(name, settings, error, message):
    """A name or option the library has not, or a loss that is no score's, is refused with the reason."""
    with pytest.raises(error, match=message):
        create_attack(
            "torchattacks",
            **{"attack": name, "threat": ThreatModel("inf", 0.1), "objectives": BOTH, **settings},
        )


@pytest.mark.parametrize("name", sorted(FITTING))
def test_a_default_step_is_held_to_the_ball_like_a_stated_one(name):
    """The library's steps are for 8/255: at a small radius several of them overshoot, said or not."""
    default = _attack(name)._settings().get("alpha")
    small = 0.4 / 255 if FITTING[name] == "inf" else 0.05
    stated = {} if default is None else {"options": {"alpha": default}}
    answers = []
    for settings in ({}, stated):
        try:
            _attack(name, small, **settings)
            answers.append("taken")
        except BadAttackOption as error:
            answers.append(str(error).replace("the default alpha", "alpha"))
    assert answers[0] == answers[1]
    repeats = "steps" in _attack(name)._settings() and default is not None
    assert ("more than twice the radius" in answers[0]) == repeats


@pytest.mark.parametrize("name", sorted(FITTING))
def test_the_library_s_own_values_and_whole_numbers_for_them_are_taken(name):
    """Every default of the library passes; a float may be written without its point."""
    options = {k: v for k, v in _attack(name)._settings().items() if k != "alpha"}
    assert _attack(name, options=options)._chosen() == _attack(name)._chosen()
    if "decay" in options:
        assert _attack(name, options={"decay": 1})._chosen()["decay"] == 1
    if "nsig" in options:
        assert _attack(name, options={"nsig": 2.5})._chosen()["nsig"] == 2.5


def test_a_resize_rate_without_another_size_is_told_not_crashed():
    """An image 24 wide times 1.01, rounded down, is 24 wide: nothing to draw."""
    attack = _attack("DIFGSM", options={"resize_rate": 1.01})
    with pytest.raises(BadAttackOption, match="an image 24 pixels wide no other size"):
        attack.run(Hundred().eval(), *_levels())


class Bad(Hundred):
    """A score without a graph, with an infinite slope, or NaN under attack only."""

    def __init__(self, how) -> None:
        super().__init__()
        self.how = how

    def predict(self, images: Tensor) -> Tensor:
        score = super().predict(images)
        if self.how == "detached":
            return score.detach()
        if self.how == "slope":
            return score + (score - score.detach()).sqrt()
        return score * torch.nan if images.requires_grad else score


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("detached", "carries no gradient"),
        ("slope", "input gradient is not finite"),
        ("score", "score is not finite"),
    ],
)
def test_a_model_the_library_cannot_attack_is_a_failure(how, message):
    """What our own attacks refuse is refused here, too: the library would return the image as it is."""
    with pytest.raises(AttackFailed, match=message):
        _attack("MIFGSM").run(Bad(how).eval(), *_levels())


def test_an_attack_without_a_gradient_is_a_failure(monkeypatch):
    """A library attack that spends no backward pass has attacked nothing, whatever its settings say."""

    class Idle(torchattacks.PGD):
        def forward(self, images, labels):
            return images.clone()

    monkeypatch.setattr(torchattacks, "PGD", Idle)
    with pytest.raises(AttackFailed, match="took no gradient"):
        _attack("PGD").run(Hundred().eval(), *_levels())


def test_a_stochastic_model_is_refused():
    """The library has no EOT that can be seeded."""
    with pytest.raises(AttackError, match="no seeded EOT"):
        _attack("PGD", eot_samples=3).run(Wavy(is_stochastic=True).eval(), *targets())


def test_the_library_is_imported_only_when_it_is_used():
    """Everything else works without torchattacks: our packages, imported anew, do not ask for it."""
    ours = ("iqa_attacks", "iqa_models", "torchattacks")
    before = {name: module for name, module in sys.modules.items() if name.startswith(ours)}
    try:
        for name in before:
            del sys.modules[name]
        assert "iqa_attacks" not in sys.modules
        importlib.import_module("iqa_attacks")
        assert "iqa_attacks.adapters.torchattacks" in sys.modules
        assert not [name for name in sys.modules if name.partition(".")[0] == "torchattacks"]
    finally:
        for name in [name for name in sys.modules if name.startswith(ours)]:
            del sys.modules[name]
        sys.modules.update(before)


@pytest.mark.parametrize("objective", BOTH)
def test_pgd_that_keeps_its_last_iterate_is_torchattacks_pgd(objective):
    """Same model, same start, same steps: the same image to 1e-6 in float64."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 4)
    settings = {"objectives": (objective,)}
    ours = by_key(
        create_attack(
            "pgd", threat=ThreatModel("inf", 0.05), steps=10, step_size=0.01, random_start=False, keep="last",
            **settings,
        ).run(model, images, ids, mos)
    )  # fmt: skip
    options = {"steps": 10, "alpha": 0.01, "random_start": False}
    theirs = by_key(_attack("PGD", 0.05, options=options, **settings).run(model, images, ids, mos))
    for i in range(len(images)):
        a, b = ours[i, objective, 10].example.pixels, theirs[i, objective, 10].example.pixels
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", BOTH)
def test_momentum_is_torchattacks_mifgsm(objective):
    """The library divides by the mean absolute gradient, ours by the sum: the same signs, the same image."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 4)
    ours = by_key(
        create_attack(
            "mifgsm", threat=ThreatModel("inf", 0.05), objectives=(objective,), steps=10, step_size=0.01,
            random_start=False, keep="last",
        ).run(model, images, ids, mos)
    )  # fmt: skip
    theirs = by_key(
        _attack("MIFGSM", 0.05, objectives=(objective,), options={"steps": 10, "alpha": 0.01}).run(
            model, images, ids, mos
        )
    )
    for i in range(len(images)):
        a, b = ours[i, objective, 10].example.pixels, theirs[i, objective, 10].example.pixels
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_pgd_is_foolbox_pgd(norm):
    """Foolbox's own loop with the score as its loss gives the same image to 1e-6 in float64, both norms."""
    foolbox = pytest.importorskip("foolbox")
    import eagerpy

    base = {"inf": foolbox.attacks.LinfPGD, "2": foolbox.attacks.L2PGD}[norm]

    class OnScore(base):
        def get_loss_fn(self, model, labels):
            return lambda inputs: model(inputs)[:, 1].sum()

    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 4, low=0.2, high=0.8)
    epsilon = {"inf": 0.05, "2": 0.5}[norm]
    ours = by_key(
        create_attack(
            "pgd", threat=ThreatModel(norm, epsilon), objectives=("raise",), steps=10, step_size=epsilon / 5,
            random_start=False, keep="last",
        ).run(model, images, ids, mos)
    )  # fmt: skip
    wrapped = foolbox.PyTorchModel(TwoLogits(model, up=True), bounds=(0, 1), device="cpu")
    attack = OnScore(abs_stepsize=epsilon / 5, steps=10, random_start=False)
    inputs, labels = eagerpy.astensor(torch.stack(images)), torch.zeros(len(images), dtype=torch.long)
    theirs = attack.run(wrapped, inputs, foolbox.criteria.Misclassification(labels), epsilon=epsilon).raw
    for i in range(len(images)):
        assert torch.allclose(ours[i, "raise", 10].example.pixels, theirs[i], rtol=0, atol=1e-6)


def test_without_the_library_the_line_that_installs_it_is_said(monkeypatch):
    """Its own pins would take a current `requests` away, so it is an extra, installed without them."""
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    line = "pip install --no-deps 'torchattacks>=3.5.1,<4'"
    with pytest.raises(BadAttackOption, match=re.escape(line)):
        TorchAttack(attack="MIFGSM", threat=ThreatModel("inf", 4 / 255), objectives=("raise",))
    extras = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["torchattacks"] == [REQUIREMENT]
    assert not [line for line in extras["dependencies"] if "torchattacks" in line]
