"""Live objects as models: the same scores and gradients, a card, a hash of all they are, clear refusals."""

import pytest
import torch
from torch import nn

from iqa_models import BadModelOption, ModelError, QualityModel, create_model, weights_sha256, wrap
from iqa_models.identity import makers_of


class Net(nn.Module):
    def __init__(self, bias=0.25):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)
        with torch.no_grad():
            self.conv.weight.fill_(0.1)
            self.conv.bias.fill_(bias)

    def forward(self, images):
        return self.conv(images).mean((2, 3))  # (B, 1)

    def score(self, images):
        return self(images).squeeze(1)


def brightness(images):
    return images.mean((1, 2, 3))


IMAGES = torch.rand(3, 3, 8, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scorer", [Net(), Net().score, brightness, lambda x: x.mean((1, 2, 3))[:, None]])
def test_scores_and_gradients_are_the_objects_own(scorer):
    """Bit for bit, whatever its form."""
    model = wrap(scorer, name="mine", score_range=(0, 1))
    assert isinstance(model, QualityModel)
    assert not model.training
    images = IMAGES.clone().requires_grad_()
    (ours,) = torch.autograd.grad(model(images).sum(), images)
    (theirs,) = torch.autograd.grad(scorer(images).sum(), images)
    assert torch.equal(ours, theirs)
    assert torch.equal(model(images), scorer(images).reshape(3))


def test_the_card_says_what_was_given():
    """Names come from the object; an output that falls with quality is negated, and its range with it."""
    model = wrap(Net(), score_range=(0, 100), higher_is_better=False, min_size=4, notes=("a note",))
    spec = model.spec
    assert (spec.name, spec.score_range, spec.min_size) == ("Net", (-100, 0), 4)
    assert (spec.initial_weights, spec.notes) == ("given", ("a note",))
    assert torch.equal(model(IMAGES), -Net()(IMAGES).squeeze(1))
    assert wrap(brightness, score_range=(0, 1)).spec.name == "brightness"
    card = spec.replace(name="other")
    assert wrap(Net(), card=card).spec is card


def test_a_quality_model_passes_through():
    """It has a card."""
    model = create_model("linear")
    assert wrap(model) is model
    with pytest.raises(BadModelOption, match="'linear' is a QualityModel and has a card"):
        wrap(model, name="mine")


@pytest.mark.parametrize(
    ("obj", "given", "words"),
    [
        (Net(), {}, r"'Net': give score_range=\(low, high\)"),
        (Net, {"score_range": (0, 1)}, "the class Net; give an instance"),
        (3, {"score_range": (0, 1)}, "not 3"),
        (lambda x: x, {"score_range": (0, 1)}, "a lambda has no name"),
        (Net(), {"score_range": (1, 0)}, "score_range must be"),
        (Net(), {"score_range": (0, float("inf"))}, "score_range must be finite"),
        (Net(), {"score_range": (-1e308, 1e308)}, "score_range must be finite"),
        (Net(), {"score_range": 5}, r"score_range must be \(low, high\), not 5"),
        (Net(), {"score_range": (0, 1), "min_siez": 3}, "min_siez: Extra inputs"),
        (Net(), {"card": create_model("linear").spec, "name": "x"}, "a card or its fields, not both"),
    ],
)
def test_what_cannot_be_wrapped_is_told(obj, given, words):
    """One error that says what to give."""
    with pytest.raises(BadModelOption, match=words):
        wrap(obj, **given)


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (lambda x: x.mean((2, 3)), r"shape \(3,\) or \(3, 1\) for 3 images, not \(3, 3\)"),
        (lambda x: x.mean(), r"not \(\)"),
        (lambda x: (x.mean((1, 2, 3)),), "floating-point tensor of scores, not tuple"),
        (lambda x: x.mean((1, 2, 3)) > 0, "not a tensor of torch.bool"),
    ],
)
def test_an_output_of_another_form_is_told(scorer, words):
    """At the first score."""
    with pytest.raises(ModelError, match=words):
        wrap(scorer, name="m", score_range=(0, 1))(IMAGES)


def test_the_hash_is_of_weights_state_and_code():
    """Each of them changed makes another model; so do a lambda's default and a method's module."""

    def hashed(obj):
        return weights_sha256(wrap(obj, name="m", score_range=(0, 1)))

    assert hashed(Net()) == hashed(Net())
    assert hashed(Net()) != hashed(Net(bias=0.3))
    assert hashed(Net().score) == hashed(Net().score) != hashed(Net(bias=0.3).score)
    gains = [(lambda x, gain=gain: gain * brightness(x)) for gain in (1, 1, 2)]
    assert hashed(gains[0]) == hashed(gains[1]) != hashed(gains[2])
    assert {Net, brightness} <= {
        *makers_of(wrap(Net(), score_range=(0, 1))),
        *makers_of(wrap(brightness, score_range=(0, 1))),
    }
