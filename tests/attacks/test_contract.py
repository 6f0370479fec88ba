"""What holds of every attack there is: the specification of one, over the table of `attack_cases`."""

from functools import cache

import pytest
import torch
from torch import Tensor

from helpers.attack_cases import CASES, EPSILON, Counting, Wavy, by_key, run, same, targets
from iqa_attacks import (
    HIGHEST_SEEN,
    LOWEST_SEEN,
    AttackError,
    AttackFailed,
    list_attacks,
    nearest_levels,
)

NORMS = [(name, norm) for name, case in CASES.items() for norm in case.norms]
FEW = [(8, 8)] * 3
"""Sizes of the images where nothing asked hangs on a second batch."""
BATCH = 3
"""Images in a batch of a batch-level objective: five images are a whole batch and a short one."""
every_case = pytest.mark.parametrize("name", CASES)
every_norm = pytest.mark.parametrize(("name", "norm"), NORMS)


def _attack(name, norm=None, **changes):
    return CASES[name].attack(norm or CASES[name].norms[0], batch=BATCH, **changes)


def _on(sizes=((8, 8),) * 5, seed=21):
    """Targets on grey levels, which every threat model takes; each of five has a pair left to turn round."""
    images, ids, mos = targets(list(sizes), seed=seed)
    return [nearest_levels(image) for image in images], ids, mos


def _part(on, part):
    return tuple(values[part] for values in on)


@cache
def _plain(name, norm=None):
    """What a case finds on five images; nobody may change it."""
    return by_key(run(_attack(name, norm), Wavy().eval(), _on()))


def test_the_table_holds_every_attack_of_the_catalogue():
    assert {case.kind for case in CASES.values()} == set(list_attacks())


@every_norm
def test_what_is_found_is_inside_scored_as_stored_and_complete(name, norm):
    """In ball and box and what else is asked, its score the model's own; one entry an image and objective."""
    attack, model, on, found = _attack(name, norm), Wavy().eval(), _on(), _plain(name, norm)
    wanted = {*(o.name for o in attack.create_objectives()), LOWEST_SEEN, HIGHEST_SEEN}
    reported = {*getattr(attack, "report_steps", ()), attack.effort.steps}
    assert set(found) == {(i, o, s) for i in range(len(on[0])) for o in wanted for s in reported}
    for (i, objective, steps), each in found.items():
        pixels, clean = each.example.pixels.unsqueeze(0), on[0][i].unsqueeze(0)
        assert attack.threat.violation(pixels, clean) is None
        # What is best for a set may be an image as it is.
        assert attack.whole_set or float((pixels - clean).abs().max()) > 0
        assert each.example.score == model(pixels).item()
        low, high = found[i, LOWEST_SEEN, steps], found[i, HIGHEST_SEEN, steps]
        assert low.example.score <= each.example.score <= high.example.score
        assert (each.loss is None) == (objective in (LOWEST_SEEN, HIGHEST_SEEN))


class Coarse(Wavy):
    """Scores as a copy in half precision gives them."""

    def predict(self, images):
        scores = super().predict(images)
        return scores + ((scores * 16).round() / 16 - scores).detach()


def _ends_hold(found):
    return [
        found[i, LOWEST_SEEN, steps].example.score
        <= each.example.score
        <= found[i, HIGHEST_SEEN, steps].example.score
        for (i, _, steps), each in found.items()
    ]


@pytest.mark.parametrize("seed", [1, 6, 9, 11])
def test_the_ends_are_of_the_scores_that_are_reported(seed):
    """Also where the attack followed others: through JPEG, or those of a copy in less precision."""
    on = _on(seed=seed)
    through = by_key(run(_attack("pgd through jpeg"), Wavy().eval(), on))
    copied = by_key(run(_attack("pgd"), Wavy().eval(), on, gradients=Coarse().eval()))
    assert all(_ends_hold(through))
    assert all(_ends_hold(copied))


@every_norm
def test_results_repeat_in_any_chunk(name, norm):
    """Images in a pass, and with them the restarts run together, change nothing, bit for bit."""
    attack, model, on = _attack(name, norm), Wavy().eval(), _on()
    for chunk in (1, 5, 64):
        other = by_key(run(attack, model, on, chunk=chunk))
        assert all(same(each, other[key]) for key, each in _plain(name, norm).items())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind != "closed_loop"])
def test_a_batch_is_attacked_alike_in_any_company(name):
    """The second batch alone is what it is behind the first."""
    attack, model, on = _attack(name), Wavy().eval(), _on([(8, 8)] * 2 * BATCH)
    whole = by_key(run(attack, model, on))
    second = by_key(run(attack, model, _part(on, slice(BATCH, 2 * BATCH))))
    assert all(same(each, whole[i + BATCH, o, s]) for (i, o, s), each in second.items())


@every_norm
def test_objectives_that_share_gradients_find_what_each_finds_alone(name, norm):
    model, on, together = Wavy().eval(), _on(), _plain(name, norm)
    for objective in CASES[name].objectives:
        alone = by_key(run(_attack(name, norm, objectives=(objective,)), model, on))
        assert all(same(each, together[key]) for key, each in alone.items() if key[1] == objective)


@every_case
def test_image_sizes_may_differ(name):
    """Images of several sizes, in any order, give what they give alone, under objectives of one image."""
    sizes = [(8, 8), (6, 9), (8, 8), (10, 5), (6, 9)]
    if CASES[name].kind in ("universal", "closed_loop"):
        pytest.skip("one change fits images of one size; a set has no image alone")
    norm = CASES[name].norms[0]
    alike = [o.name for o in _attack(name, norm).create_objectives() if not o.batch_level]
    attack, model, on = _attack(name, norm, objectives=tuple(alike)), Wavy().eval(), _on(sizes)
    mixed = by_key(run(attack, model, on))
    for i in range(len(sizes)):
        alone = by_key(run(attack, model, _part(on, slice(i, i + 1))))
        assert all(same(each, mixed[i, o, s]) for (_, o, s), each in alone.items())


@pytest.mark.parametrize("objective", ["raise", "lower"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.best_kept])
def test_the_best_point_met_is_the_one_found(name, objective):
    """Of all scores the model gave while one image was attacked, the end that was asked for."""
    model, on = Counting().eval(), _on([(8, 8)])
    attack = _attack(name, objectives=(objective,))
    found = by_key(run(attack, model, on))[0, objective, attack.effort.steps]
    met = model.seen[1:]  # the first is the clean image, which is no result of an attack
    assert found.example.score == (max(met) if objective == "raise" else min(met))


@pytest.mark.parametrize(
    "name", [n for n, c in CASES.items() if {"report_steps", "steps"} <= c.settings.keys()]
)
def test_a_prefix_is_the_shorter_run(name):
    """What is reported after T steps, and what it cost, is what a run of T steps gives."""
    case, on = CASES[name], _on()
    long = run(case.attack(), Wavy().eval(), on)
    found = by_key(long)
    for steps in case.settings["report_steps"]:
        model = Counting().eval()
        short = run(case.attack(steps=steps, report_steps=()), model, on)
        assert all(same(each, found[key]) for key, each in by_key(short).items())
        assert {k: c for k, c in long.cost.items() if k[1] == steps} == short.cost
        assert sum(c.forwards for c in short.cost.values()) == model.forwards - len(on[0])


@pytest.mark.parametrize("draws", [None, 2])
@every_norm
def test_the_cost_is_what_the_model_saw(name, norm, draws):
    """Forwards and gradients, but for the clean scores, which have rows of their own; EOT by the draw."""
    case = CASES[name]
    if draws and not case.eot:
        pytest.skip("it attacks no stochastic model")
    model = Counting(is_stochastic=draws is not None).eval()
    on = _on(
        [(8, 8)] * 2 if case.kind == "universal" else [(8, 8), (6, 9)] if draws else [(8, 8), (8, 8), (6, 9)]
    )
    attack = case.attack(norm, eot_samples=draws, objectives=case.objectives[: 2 if draws else None])
    if case.kind == "universal":
        attack = attack.trained(model, *_on([(8, 8)] * 4, seed=9)[:2])
        spent = model.forwards, model.backwards
        assert attack.training == (*spent, 0)
        model.forwards = model.backwards = 0
    result = run(attack, model, on)
    clean, last = len(on[0]) * (draws or 1), attack.effort.steps
    total = [sum(c[k] for (_, s), c in result.cost.items() if s == last) for k in range(2)]
    assert total == [model.forwards - clean, model.backwards]


class Stateful(Wavy):
    """Has all a model can keep: weights frozen and not, batch norm, dropout, buffers of both sorts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = torch.nn.BatchNorm2d(3).double(), torch.nn.Dropout(0.5)
        self.norm.weight.requires_grad_(False)
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("made", torch.ones(3), persistent=False)

    def predict(self, images: Tensor) -> Tensor:
        return super().predict(images) + 0.1 * self.drop(self.norm(images)).sin().mean((1, 2, 3))


def _state(model):
    return (
        [(n, m.training) for n, m in model.named_modules()],
        [(n, p.requires_grad, p.grad, p.detach().tolist()) for n, p in model.named_parameters()],
        [(n, b.tolist()) for n, b in model.named_buffers()],
        [len(hooks) for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks,
                                                           m._backward_hooks)],
    )  # fmt: skip


@every_case
def test_nothing_of_the_caller_s_is_changed(name):
    """Modes, weights, slopes, buffers, hooks, the images, torch's generators and gradient mode stay."""
    model, on = Stateful().eval(), _on(FEW)
    before, images = _state(model), [image.clone() for image in on[0]]
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    run(_attack(name), model, on)
    assert _state(model) == before
    assert all(torch.equal(a, b) for a, b in zip(on[0], images, strict=True))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@every_case
def test_the_caller_s_gradient_mode_changes_nothing(name, mode):
    """Gradients switched off, as a script for inference has them, do not switch the attack off."""
    attack, model, on = _attack(name), Wavy().eval(), _on()
    with mode():
        inside = ([image.clone() for image in on[0]], *on[1:])
        again = by_key(run(attack, model, inside))
    assert all(same(each, again[key]) for key, each in _plain(name).items())


def _strided(image):
    return torch.stack([image, image], dim=-1)[..., 0]


def _channels_last(image):
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


@pytest.mark.parametrize("lay", [_strided, _channels_last, lambda image: image.clone().requires_grad_()])
@every_case
def test_equal_images_are_attacked_alike_however_they_are_held(name, lay):
    """Memory layout and a wish for gradients are not in the pixels, and no graph is in the results."""
    attack, model, on = _attack(name), Wavy().eval(), _on()
    again = by_key(run(attack, model, ([lay(image) for image in on[0]], *on[1:])))
    assert all(same(each, again[key]) for key, each in _plain(name).items())
    assert not any(each.example.pixels.requires_grad for each in again.values())


class Overwriting(Wavy):
    """Writes into what it is shown, in ways that autograd sees (`sub_`) and does not (`data`)."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def predict(self, images: Tensor) -> Tensor:
        if self.how == "in place":
            return super().predict(images.sub_(0.25).clamp_(0, 1))
        images.data[:, :, :2] = 0.5
        return super().predict(images)


@pytest.mark.parametrize("how", ["in place", "data"])
@every_case
def test_a_model_that_writes_into_its_input_writes_into_nobody_s_images(name, how):
    """The images stay, and all that is kept is in the ball around them."""
    attack, on = _attack(name), _on(FEW)
    images = [image.clone() for image in on[0]]
    found = run(attack, Overwriting(how).eval(), on).found
    assert all(torch.equal(a, b) for a, b in zip(on[0], images, strict=True))
    for each in found:
        pixels, clean = each.example.pixels.unsqueeze(0), images[each.image].unsqueeze(0)
        assert attack.threat.violation(pixels, clean) is None
        assert each.example.score == Overwriting(how).eval()(pixels.clone()).item()


class Half(Wavy):
    """Scores in float64 of images of any precision, so that the images alone are coarse."""

    def predict(self, images: Tensor) -> Tensor:
        return super().predict(images.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@every_norm
def test_images_of_every_precision_stay_in_the_ball(name, norm, dtype):
    """Measured in float64, whatever rounding the images' own numbers need."""
    attack = _attack(name, norm, objectives=CASES[name].objectives[:3])
    if attack.threat.pixels == "8bit" and dtype != torch.float32:
        pytest.skip("refused: half precision holds no grey levels")
    on = _on(FEW)
    coarse = [image.to(dtype) for image in on[0]]
    for each in run(attack, Half().eval(), (coarse, *on[1:])).found:
        pixels = each.example.pixels.unsqueeze(0)
        assert pixels.dtype == dtype
        assert attack.threat.violation(pixels, coarse[each.image].unsqueeze(0)) is None


@every_case
def test_a_model_that_learns_while_it_is_attacked_is_refused(name):
    """A part in training mode before the attack, or put there by the model itself, is named."""

    class Relapsing(Stateful):
        def predict(self, images: Tensor) -> Tensor:
            self.norm.train()
            return super().predict(images)

    attack, on, model = _attack(name), _on(), Stateful().eval()
    model.norm.train()
    before = _state(model)
    with pytest.raises(AttackError, match=r"its part 'norm' \(BatchNorm2d\) is in training mode"):
        run(attack, model, on)
    assert _state(model) == before
    with pytest.raises(AttackFailed, match=r"changes itself while it scores .*norm"):
        run(attack, Relapsing().eval(), on)


class Contrast(Wavy):
    """Adds the root of the variance: its slope has no value at a flat image."""

    def predict(self, images: Tensor) -> Tensor:
        change = images - images.mean((1, 2, 3), keepdim=True)
        return super().predict(images) + 0.01 * change.square().sum((1, 2, 3)).sqrt()


@pytest.mark.parametrize("kind", ["fgsm", "pgd", "mifgsm"])
def test_the_image_without_a_finite_gradient_is_named(kind):
    """Of many in one pass the flat one, at which these start."""
    settings = {} if kind == "fgsm" else {"random_start": False, "restarts": 1}
    on = _on()
    on[0][3] = torch.full_like(on[0][3], 128 / 255)
    with pytest.raises(AttackFailed, match="image 'image-3': wavy: the input gradient is not finite"):
        run(CASES[kind].attack(**settings), Contrast().eval(), on)


@pytest.mark.parametrize("name", [n for n in CASES if n != "universal"])
def test_an_image_too_small_for_the_model_is_named_before_the_attack(name):
    model, on = Counting(min_size=8).eval(), _on([(8, 8), (8, 8), (7, 9), (8, 8)])
    attack = _attack(name)
    with pytest.raises(AttackError, match="image 'image-2': wavy: needs at least 8 pixels a side, not 7x9"):
        run(attack, model, on)
    assert model.forwards == 2


def test_the_radii_of_the_table_are_of_the_same_order():
    """Of 8 x 8 images a norm of .5 is .036 a pixel, so a case means the same in every norm."""
    assert EPSILON["2"] / (3 * 64) ** 0.5 == pytest.approx(EPSILON["rmse"], rel=0.25)
