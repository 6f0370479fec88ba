"""MI-FGSM, APGD, noise, list-wise and own objectives: the engine's properties hold for all of them."""

import itertools
import math

import pytest
import torch

from helpers import attack_cases
from helpers.attack_cases import Wavy, by_key, targets
from iqa_attacks import BadAttackOption, Objective, ThreatModel, create_attack, measure
from iqa_attacks.engine.updates import IN_CACHE, AutoStep, Momentum, Now, Plain, checkpoints, moved
from iqa_models import create_model

ALL = (*attack_cases.ALL, "soft_spearman")
EPSILON = {"inf": 0.05, "2": 0.5}
FEW = [(8, 8)] * 4


def _attack(kind, norm="inf", epsilon=None, **settings):
    epsilon = epsilon or EPSILON[norm]
    defaults = {
        "pgd": {"steps": 12, "step_size": epsilon / 3, "restarts": 2},
        "falling": {"steps": 12, "step_size": epsilon, "restarts": 2, "falling": True},
        "mifgsm": {"steps": 12, "step_size": epsilon / 3, "restarts": 2},
        "apgd": {"steps": 12, "restarts": 2},
        "noise": {"samples": 3},
    }[kind]
    threat = ThreatModel(norm, epsilon)
    kind = "pgd" if kind == "falling" else kind
    return create_attack(kind, threat=threat, **{"objectives": ALL, "seed": 7, **defaults, **settings})


@pytest.mark.parametrize("box", ["inactive", "active"])
@pytest.mark.parametrize("kind", ["mifgsm", "apgd", "falling"])
def test_the_inf_optimum_of_a_linear_model_is_reached(kind, box):
    """Raise and lower end at the score of clip(x +- eps sign(w), 0, 1)."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = targets(FEW, low=0.2, high=0.8) if box == "inactive" else targets(FEW)
    epsilon = 8 / 255
    attack = _attack(kind, epsilon=epsilon, objectives=("raise", "lower"), steps=20)
    found = by_key(attack.run(model, images, ids, mos))
    weight = model.weight(8, 8).detach()
    for (i, image), (objective, side) in itertools.product(enumerate(images), (("raise", 1), ("lower", -1))):
        best = (image + side * epsilon * weight.sign()).clamp(0, 1)
        assert found[i, objective, 20].example.score == pytest.approx(
            model(best.unsqueeze(0)).item(), abs=1e-12
        )


@pytest.mark.parametrize("box", ["inactive", "active"])
@pytest.mark.parametrize("kind", ["pgd", "mifgsm", "apgd", "falling"])
def test_the_2_norm_optimum_of_a_linear_model_is_reached(kind, box):
    """The optimum is clip(s w, -x, 1 - x) for the s that uses up the radius, found here by bisection."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = targets(FEW, low=0.4, high=0.6) if box == "inactive" else targets(FEW)
    epsilon = 0.2 if box == "inactive" else 1.5
    attack = _attack(kind, "2", epsilon, objectives=("raise", "lower"), steps=60, restarts=1)
    found = by_key(attack.run(model, images, ids, mos))
    weight = model.weight(8, 8).detach()
    for (i, image), (objective, side) in itertools.product(enumerate(images), (("raise", 1), ("lower", -1))):

        def change(s, image=image, side=side):
            return (image + side * s * weight).clamp(0, 1) - image

        short, long = 0.0, 10.0
        for _ in range(100):
            middle = (short + long) / 2
            short, long = (middle, long) if float(change(middle).norm()) < epsilon else (short, middle)
        optimum = model((image + change(short)).unsqueeze(0)).item()
        clean = model(image.unsqueeze(0)).item()
        assert found[i, objective, 60].example.score == pytest.approx(
            optimum, abs=1e-3 * abs(optimum - clean)
        )


def test_momentum_equals_its_formula():
    """A replay of g <- mu g + grad / ||grad||_1, x <- clip(x + alpha sign g), written here, agrees."""
    model, (images, ids, mos) = Wavy().eval(), targets(FEW, seed=3)
    attack = _attack("mifgsm", objectives=("mse",), random_start=False, restarts=1, keep="last", decay=0.7)
    found = by_key(attack.run(model, images, ids, mos))
    for i, image in enumerate(images):
        x, velocity = image.clone(), torch.zeros_like(image)
        for _ in range(12):
            x = x.detach().requires_grad_()
            loss = (model(x.unsqueeze(0)).squeeze() - mos[i]) ** 2
            (gradient,) = torch.autograd.grad(loss, x)
            velocity = 0.7 * velocity + gradient / gradient.abs().sum()
            x = x + EPSILON["inf"] / 3 * velocity.sign()
            x = torch.minimum(torch.maximum(x, image - EPSILON["inf"]), image + EPSILON["inf"]).clamp(0, 1)
        assert torch.allclose(found[i, "mse", 12].example.pixels, x, atol=1e-12)


def test_falling_steps_equal_their_formula():
    """A replay of x <- clip(x + alpha (1 - k / K) sign grad), written here, agrees."""
    model, (images, ids, mos) = Wavy().eval(), targets(FEW, seed=3)
    attack = _attack("falling", objectives=("raise",), random_start=False, restarts=1, keep="last")
    found = by_key(attack.run(model, images, ids, mos))
    for i, image in enumerate(images):
        x = image.clone()
        for k in range(12):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(x.unsqueeze(0)).squeeze(), x)
            x = x + EPSILON["inf"] * (1 - k / 12) * gradient.sign()
            x = torch.minimum(torch.maximum(x, image - EPSILON["inf"]), image + EPSILON["inf"]).clamp(0, 1)
        assert torch.allclose(found[i, "raise", 12].example.pixels, x, atol=1e-12)


def test_falling_steps_beat_fixed_ones_at_equal_cost():
    """On a model with curvature the mean reach of 10 steps is larger."""
    model, on = Wavy().eval(), targets([(8, 8)] * 16, seed=2)
    settings = {"epsilon": 0.1, "steps": 10, "restarts": 1, "objectives": ("raise", "lower")}
    falling = by_key(_attack("falling", step_size=0.1, **settings).run(model, *on))
    fixed = by_key(_attack("pgd", step_size=2.5 * 0.1 / 10, **settings).run(model, *on))
    reach = [sum(f.loss for f in r.values() if f.loss is not None) for r in (falling, fixed)]
    assert reach[0] > reach[1]


def test_checkpoints_are_the_published_ones():
    """22, 41, 57, 70, 80, 87, 93, 99 % of the steps, rounded up (Croce & Hein 2020, section 3.1)."""
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    shares = [0.0, 0.22]
    while shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06) < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    for steps in (7, 10, 33, 250):
        assert checkpoints(steps) == tuple(sorted({math.ceil(p * steps - 1e-9) for p in shares[1:]}))


def _apgd_by_hand(loss_and_gradient, clean, start, epsilon, steps):
    """Algorithm 1 of Croce & Hein 2020 for one image in the inf ball, straight from the paper."""

    def project(x):
        return torch.minimum(torch.maximum(x, clean - epsilon), clean + epsilon).clamp(0, 1)

    size, at = 2 * epsilon, checkpoints(steps)
    before = x = start
    loss, gradient = loss_and_gradient(x)
    best, best_x, best_gradient = loss, x, gradient
    losses, moved_to_best = [loss], False
    last, best_then, halved, sizes = 0, best, False, [size]
    for k in range(steps):
        z = project(x + size * gradient.sign())
        new = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, new
        value, gradient = loss_and_gradient(x)
        gain = value > (best if moved_to_best else loss)
        moved_to_best = False
        losses.append(gain)
        loss = value
        if value > best:
            best, best_x, best_gradient = value, x, gradient
        if k + 1 in at:
            poor = sum(losses[last + 1 :]) < 0.75 * (k + 1 - last)
            stuck = not halved and best == best_then
            halved = poor or stuck
            if halved:
                size, x, gradient, moved_to_best = size / 2, best_x, best_gradient, True
            last, best_then = k + 1, best
            sizes.append(size)
    return best, best_x, sizes


@pytest.mark.parametrize("objective", ["drift", "raise", "lower"])
def test_apgd_equals_the_published_algorithm(objective):
    """An independent replay of algorithm 1 finds the same point; its step sizes do get halved."""
    model, (images, ids, mos) = Wavy().eval(), targets(seed=5)
    epsilon, steps = 0.3, 30
    found = by_key(
        _attack("apgd", epsilon=epsilon, steps=steps, restarts=1, objectives=(objective,)).run(
            model, images, ids, mos
        )
    )
    starts = by_key(
        _attack("pgd", epsilon=epsilon, steps=1, step_size=1e-300, restarts=1, objectives=("raise",)).run(
            model, images, ids, mos
        )
    )
    ends = set()
    for i, image in enumerate(images):
        clean = model(image.unsqueeze(0)).item()

        def loss_and_gradient(x, clean=clean):
            x = x.detach().requires_grad_()
            value = model(x.unsqueeze(0)).squeeze()
            loss = {"drift": (value - clean) ** 2, "raise": value, "lower": -value}[objective]
            (gradient,) = torch.autograd.grad(loss, x)
            return float(loss.detach()), gradient

        start = starts[i, "raise", 1].example.pixels
        best, pixels, sizes = _apgd_by_hand(loss_and_gradient, image, start, epsilon, steps)
        assert found[i, objective, steps].loss == pytest.approx(best, rel=1e-9)
        assert torch.allclose(found[i, objective, steps].example.pixels, pixels, atol=1e-12)
        ends.add(sizes[-1])
    assert len(ends) > 1  # image by image


def test_apgd_beats_pgd_at_equal_cost():
    """On a model with curvature the mean reach of 30 steps is at least that of PGD at 2.5 eps / steps."""
    model, on = Wavy().eval(), targets([(8, 8)] * 16, seed=2)
    settings = {"epsilon": 0.1, "steps": 30, "restarts": 1, "objectives": ("raise", "lower")}
    ours = by_key(_attack("apgd", **settings).run(model, *on))
    pgd = by_key(_attack("pgd", step_size=2.5 * 0.1 / 30, **settings).run(model, *on))
    reach = [sum(f.loss for f in r.values() if f.loss is not None) / 32 for r in (ours, pgd)]
    assert reach[0] > reach[1]


class Total(Objective):
    """The mean score of a batch: list-wise in form, but every image's part is `raise`."""

    name = "total"
    batch_level = True

    def loss(self, scores, mos, clean):
        return scores.mean().expand(len(scores))


def test_apgd_decides_image_by_image_for_a_batch_too():
    """Under the mean score of a batch every image moves as under `raise`: not one point more."""
    model, on = Wavy().eval(), targets(seed=5)
    settings = {"epsilon": 0.3, "steps": 30, "restarts": 1}
    alone = _attack("apgd", objectives=("raise",), **settings).run(model, *on)
    together = _attack("apgd", objectives=("raise", Total()), **settings).run(model, *on)
    assert all(together.cost[i, 30] == alone.cost[i, 30] for i in range(len(on[0])))
    found = by_key(together)
    for batch in (range(8), range(8, 11)):
        moments = {found[i, "total", 30].example.step for i in batch}
        assert len(moments) == 1  # the batch's best moment, its images' own bests being others
        best = sum(found[i, "raise", 30].example.score for i in batch) / len(batch)
        assert found[batch[0], "total", 30].loss <= best


class Least(Objective):
    """The smallest shift of a batch: at any time it hangs on one image alone."""

    name = "least"
    batch_level = True

    def loss(self, scores, mos, clean):
        return (scores - clean).abs().amin().expand(len(scores))


@pytest.mark.parametrize("steps", [10, 30])
def test_apgd_holds_where_one_image_alone_decides(steps):
    """Images that make no difference go with the batch: the least shift is no smaller than PGD's."""
    model, on = Wavy().eval(), targets([(8, 8)] * 8, seed=2)
    settings = {"epsilon": 0.1, "steps": steps, "restarts": 1, "objectives": (Least(),)}
    reached = by_key(_attack("apgd", **settings).run(model, *on))[0, "least", steps].loss
    pgd = by_key(_attack("pgd", step_size=2.5 * 0.1 / steps, **settings).run(model, *on))
    assert reached >= pgd[0, "least", steps].loss


def _apgd_on_a_batch_by_hand(model, clean, starts, loss, epsilon, steps):
    """Algorithm 1 for a batch of one loss: every image compares the loss with its own score set back."""

    def project(x):
        return torch.minimum(torch.maximum(x, clean - epsilon), clean + epsilon).clamp(0, 1)

    def evaluate(x):
        x = x.detach().requires_grad_()
        scores = model(x)
        (weight,) = torch.autograd.grad(loss(leaf := scores.detach().requires_grad_()), leaf)
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        return scores.detach(), weight.sign().view(-1, 1, 1, 1) * gradient.sign()

    def gains(now, former):
        changed = [torch.where(torch.arange(len(now)) == i, former, now) for i in range(len(now))]
        return torch.stack([loss(now) > loss(c) for c in changed])  # no score is met twice here

    n = len(clean)
    size, at = torch.full((n,), 2 * epsilon, dtype=clean.dtype), checkpoints(steps)
    before = x = starts
    previous, direction = evaluate(x)
    best = [previous, x, direction]
    kept = float(loss(previous))
    rose, halved, count, last = [torch.zeros(n, dtype=torch.bool)] * 2 + [torch.zeros(n), 0]
    for k in range(steps):
        z = project(x + size.view(-1, 1, 1, 1) * direction)
        new = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, new
        scores, direction = evaluate(x)
        kept = max(kept, float(loss(scores)))
        count = count + gains(scores, previous)
        better = gains(scores, best[0])
        wide = better.view(-1, 1, 1, 1)
        best = [
            torch.where(better, scores, best[0]),
            torch.where(wide, x, best[1]),
            torch.where(wide, direction, best[2]),
        ]
        rose, previous = rose | better, scores
        if k + 1 in at:
            halved = (count < 0.75 * (k + 1 - last)) | (~halved & ~rose)
            wide = halved.view(-1, 1, 1, 1)
            size = torch.where(halved, size / 2, size)
            x, direction = torch.where(wide, best[1], x), torch.where(wide, best[2], direction)
            previous = torch.where(halved, best[0], previous)
            rose, count, last = torch.zeros(n, dtype=torch.bool), torch.zeros(n), k + 1
    return kept, size


def test_apgd_of_pairs_equals_a_replay():
    """A replay of algorithm 1 on a batch of eight finds the same loss; its images halve apart."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 8, seed=5)
    clean, epsilon, steps = torch.stack(images), 0.3, 30
    pgd = {"steps": 1, "step_size": 1e-300, "restarts": 1, "objectives": ("raise",)}
    drawn = by_key(_attack("pgd", epsilon=epsilon, **pgd).run(model, images, ids, mos))
    starts = torch.stack([drawn[i, "raise", 1].example.pixels for i in range(8)])
    above = [(i, j) for i, j in itertools.permutations(range(8), 2) if mos[i] > mos[j]]

    def loss(scores):
        gaps = torch.stack([scores[i] - scores[j] for i, j in above])
        return torch.nn.functional.softplus(-gaps / 0.1).mean()

    kept, sizes = _apgd_on_a_batch_by_hand(model, clean, starts, loss, epsilon, steps)
    settings = {"epsilon": epsilon, "steps": steps, "restarts": 1, "objectives": ("pairwise_inversion",)}
    found = by_key(_attack("apgd", **settings).run(model, images, ids, mos))
    assert found[0, "pairwise_inversion", steps].loss == pytest.approx(kept, rel=1e-9)
    assert len(set(sizes.tolist())) > 1


def test_noise_has_the_size_it_says_and_more_draws_never_hurt():
    """Noise moves every pixel by epsilon, or has length epsilon, away from the box; no gradient is spent."""
    model, (images, ids, mos) = Wavy().eval(), targets(FEW, low=0.4, high=0.6)
    for norm in ("inf", "2"):
        attack = _attack("noise", norm)
        result = attack.run(model, images, ids, mos)
        assert result.cost[0, 0] == (3, 0, 0)
        for found in result.found:
            budget = measure(found.example.pixels.unsqueeze(0), images[found.image].unsqueeze(0))
            assert float(budget.linf if norm == "inf" else budget.l2) == pytest.approx(EPSILON[norm])
        more = by_key(_attack("noise", norm, samples=9).run(model, images, ids, mos))
        for key, found in by_key(result).items():
            assert found.loss is None or found.loss <= more[key].loss


class Cubic(Objective):
    """(f - f_clean)^3: one-sided without being `raise`."""

    name = "cubic"

    def loss(self, scores, mos, clean):
        return (scores - clean) ** 3


def test_an_objective_may_be_an_object():
    """An attack takes an objective of a user's own beside named ones, and shares gradients with them."""
    model, on = Wavy().eval(), targets()
    result = _attack("pgd", objectives=("raise", Cubic())).run(model, *on)
    found = by_key(result)
    assert {f.objective for f in result.found} >= {"raise", "cubic"}
    assert all(found[i, "cubic", 12].loss > 0 for i in range(len(on[0])))
    assert result.cost[0, 12].backwards == 24  # two restarts: the same signs all the way
    with pytest.raises(BadAttackOption, match="named twice"):
        _attack("pgd", objectives=(Cubic(), Cubic()))


def test_soft_spearman_lowers_the_order_of_a_whole_batch():
    """List-wise over 32 images it brings their SROCC below the clean one, and below pairs of 8."""
    from scipy.stats import spearmanr

    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 32)
    clean = [model(x.unsqueeze(0)).item() for x in images]
    reached = {}
    for objective, batch in (("soft_spearman", 32), ("pairwise_inversion", 8)):
        found = by_key(_attack("apgd", objectives=(objective,), batch=batch).run(model, images, ids, mos))
        scores = [found[i, objective, 12].example.score for i in range(32)]
        reached[objective] = spearmanr(scores, mos).statistic
    assert reached["soft_spearman"] < spearmanr(clean, mos).statistic - 0.5
    assert reached["soft_spearman"] < reached["pairwise_inversion"]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("apgd", {"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ("apgd", {"step_size": 0.1}, "no setting 'step_size'"),
        ("mifgsm", {"decay": -1}, "decay"),
        ("pgd", {"falling": True, "report_steps": (1,)}, "fixed step size"),
        ("mifgsm", {"keep": "first"}, "mifgsm: keep"),
        ("noise", {"samples": 0}, "samples"),
        ("pgd", {"eot_samples": 0}, "eot_samples"),
        ("pgd", {"rank_temperature": 0}, "rank_temperature"),
    ],
)
def test_bad_settings_are_refused(kind, settings, message):
    """A setting that makes no sense is refused with the reason."""
    with pytest.raises(BadAttackOption, match=message):
        _attack(kind, **settings)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("update", [Plain(), Momentum(0.9), AutoStep(9)], ids=["plain", "momentum", "apgd"])
def test_iterates_that_move_a_few_at_a_time_go_where_they_go_together(update, norm):
    """Five of .9 MB move two at a time, each by its own sign, length, memory and centre: equal bits."""
    generator = torch.Generator().manual_seed(0)
    clean, pixels, memory, slope = torch.rand(4, 5, 3, 270, 270, generator=generator)
    assert 1 < IN_CACHE // clean[0].nbytes < len(clean)
    sign = torch.tensor([1.0, -1.0, 1.0, 0.0, -1.0]).view(-1, 1, 1, 1)
    now = Now(pixels, memory, slope - 0.5, sign, torch.linspace(0.01, 0.05, 5).view(-1, 1, 1, 1), clean, 3)
    threat = ThreatModel(norm, EPSILON[norm])
    for together, apart in zip(update.move(now, threat), moved(update, now, threat), strict=True):
        assert torch.equal(together, apart)
