"""The contract of a model under test, held against every registered model."""

import inspect

import pytest
import torch

from iqa_models import CHEATS, BadInput, ModelSpec, create_model, list_models, registry
from iqa_models.index import ADAPTERS

CHEAP = {"pretrained": "none", "protocol": "centre", "crop": 64, "shorter_side": 64}
"""Options that spare a download, large crops, and all but one of them, to models that have them."""

WHOLE = {"protocol": "native", "dynamic_size": True}
"""Options by which the large hyper-networks take whole images of 64 pixels."""

SMALL = {"backbone": "test_efficientnet"}
"""What the models of any trunk are built on: `hyper` scores a crop of 224 pixels of a resized image."""

LARGER_SIBLINGS = ("smart_iqa_base", "smart_iqa_small")
"""The code of smart_iqa_tiny in more and wider layers: scored once below, all else costs half a minute."""


HELD = [name for name in list_models() if name not in {*LARGER_SIBLINGS, *CHEATS, *ADAPTERS}]
"""The planted cheats break the contract on purpose; tests/harness/test_cheats.py says how. Ways to name
somebody else's model have none of their own: tests/models/test_adapters.py."""


def build(name):
    """Build a model from random weights that scores one crop an image at most."""
    known = inspect.signature(registry.find_builder(name)).parameters
    cheap = CHEAP | SMALL | ({"resize": "512x384"} if name == "hyper" else {})
    if name.startswith(("hyperiqa", "smart")):
        cheap |= WHOLE
    return create_model(name, **{option: value for option, value in cheap.items() if option in known})


@pytest.fixture(scope="module", params=HELD)
def model(request):
    """One model of every registered name; pytest keeps one alive at a time."""
    return build(request.param).requires_grad_(False)


def images(model, count, *, dtype=torch.float32):
    """Return smooth random images in the size the card asks for."""
    side = model.spec.fixed_size or max(model.spec.min_size, 64)
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(0, 1).to(dtype)


@pytest.fixture(scope="module")
def scores(model):
    """Scores of two images together, and of the first of them alone."""
    with torch.no_grad():
        return model(images(model, 2)), model(images(model, 2)[:1])


def score_span(model):
    """Return the length of the card's score range."""
    low, high = model.spec.score_range
    return high - low


def test_scores_are_one_finite_number_an_image(scores):
    """Two images give two finite scores, and one image gives a vector of length one."""
    two, one = scores
    assert two.shape == (2,)
    assert one.shape == (1,)
    assert torch.isfinite(two).all()


def test_a_model_is_born_in_eval_mode_and_repeats_itself(model, scores):
    """A created model is in eval mode and, unless it says otherwise, gives equal scores twice."""
    assert not model.training
    if not model.is_stochastic:
        with torch.no_grad():
            assert torch.equal(model(images(model, 2)[:1]), scores[1])


def test_a_score_does_not_depend_on_the_batch(model, scores):
    """An image scores in a batch as it scores alone, within float32 rounding."""
    if model.is_stochastic:
        pytest.skip("two evaluations of one image differ by design")
    together, first = scores
    with torch.no_grad():
        alone = torch.cat([first, model(images(model, 2)[1:])])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * score_span(model))


def test_every_image_has_a_gradient(model):
    """The gradient of the scores at the pixels is finite, and not zero for any image."""
    batch = images(model, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(model(batch).sum(), batch)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().flatten(1).sum(1) > 0).all()


def test_a_constant_image_has_a_finite_gradient(model):
    """Black, grey and white images give finite scores and finite gradients."""
    levels = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    flat = levels.expand(3, *images(model, 1).shape[1:]).clone().requires_grad_()
    scores = model(flat)
    (gradient,) = torch.autograd.grad(scores.sum(), flat)
    assert torch.isfinite(scores).all()
    assert torch.isfinite(gradient).all()


def test_the_gradient_is_the_slope_of_the_score(model):
    """In float64 the gradient along a direction equals the central difference quotient."""
    if model.is_stochastic:
        pytest.skip("two evaluations of one image differ by design")
    model.double()
    try:
        image = (0.2 + 0.6 * images(model, 1, dtype=torch.float64)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(image).sum(), image)
        direction = gradient.detach() / gradient.norm()
        step = 1e-5
        with torch.no_grad():
            quotient = (model(image + step * direction) - model(image - step * direction)) / (2 * step)
        torch.testing.assert_close(quotient, gradient.norm().reshape(1), rtol=1e-3, atol=0)
    finally:
        model.float()


def test_images_outside_the_contract_are_refused(model):
    """Wrong rank, channels, dtype, range, NaN and size each raise BadInput."""
    good = images(model, 1)
    side = model.spec.fixed_size or model.spec.min_size
    bad = {
        "shape": [good[0], good[:, :1]],
        "floating point": [(good * 255).to(torch.uint8)],
        "pixel values": [good + 1, good - 1, torch.full_like(good, torch.nan)],
    }
    for words, batches in bad.items():
        for batch in batches:
            with pytest.raises(BadInput, match=words):
                model(batch)
    if side > 1:
        with pytest.raises(BadInput, match="pixels"):
            model(good[:, :, : side - 1])


def test_name_and_options_make_the_model_again(model):
    """The card's name and options rebuild equal weights; torch's global generator is left as it was."""
    before = torch.get_rng_state()
    again = create_model(model.spec.name, **model.spec.options)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.spec == model.spec
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


def test_the_card_survives_json(model):
    """The card read back from its own JSON is equal to it."""
    assert ModelSpec.model_validate_json(model.spec.model_dump_json()) == model.spec


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LARGER_SIBLINGS if name in list_models()])
def test_a_larger_sibling_scores_and_has_a_gradient(name):
    """A model left out above gives one finite score and a finite gradient that is not zero."""
    model = build(name).requires_grad_(False)
    image = images(model, 1).requires_grad_()
    score = model(image)
    (gradient,) = torch.autograd.grad(score.sum(), image)
    assert score.shape == (1,)
    assert torch.isfinite(score).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
