"""The shared head: gradients, shapes, pooling, dropout, and options that would have no effect."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from iqa_models import BadModelOption
from iqa_models.hyper import HyperHead, LocalDistortionAware, target_network
from iqa_models.hyper.lda import pool_to

SMALL = (2, 3, 4, 5)


def small_head(**options):
    """A head on few channels, in float64 and eval mode."""
    torch.manual_seed(0)
    return HyperHead(SMALL, (6, 5), **options).double().eval()


def small_maps(count, sides=(8, 4, 2, 1), seed=1):
    """Stage maps of a 32x32 image, unless other sides are given."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand(count, c, side, side, generator=generator, dtype=torch.float64)
        for c, side in zip(SMALL, sides, strict=True)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "last"},
        {"fusion": "afa"},
        {"fusion": "attention"},
        {"fusion": "attention", "afa": "project512", "attention_activation": "sigmoid"},
    ],
)
def test_gradients_at_the_maps_are_the_slopes_of_the_score(options):
    """Gradcheck in float64 over all four stage maps, in every fusion."""
    head = small_head(**options).requires_grad_(False)
    maps = [stage.requires_grad_() for stage in small_maps(1, sides=(3, 2, 2, 1))]
    assert torch.autograd.gradcheck(lambda *m: head(m), maps, fast_mode=options.get("afa") == "project512")


def test_gradients_at_every_parameter_are_the_slopes_of_the_score():
    """Gradcheck in float64 along random directions of each parameter, generators included."""
    head = small_head(fusion="attention")
    maps = small_maps(2)
    names = [name for name, _ in head.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in head.parameters()]

    def score(*values):
        return torch.func.functional_call(head, dict(zip(names, values, strict=True)), (maps,))

    assert torch.autograd.gradcheck(score, values, fast_mode=True)


def test_gradients_flow_through_the_generated_weights_and_the_vector():
    """Cutting either path changes the gradient at the last stage: both carry one."""
    head = small_head().requires_grad_(False)
    maps = small_maps(1)
    maps[3].requires_grad_()
    vector, made = head.lda(maps), head.hyper(head.fusion(maps).maps)
    whole = target_network(vector, made.weights, made.biases)
    no_vector = target_network(vector.detach(), made.weights, made.biases)
    no_weights = target_network(vector, [w.detach() for w in made.weights], [b.detach() for b in made.biases])
    grads = [
        torch.autograd.grad(y.sum(), maps[3], retain_graph=True)[0] for y in (whole, no_vector, no_weights)
    ]
    assert all(grad.abs().sum() > 0 for grad in grads)
    torch.testing.assert_close(grads[0], grads[1] + grads[2])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_target_network_is_the_grouped_convolution(reference, count):
    """Batched matrix products give the numbers of grouped 1x1 convolutions, and shape (B,) at B = 1."""
    head = small_head()
    trace = head.trace(small_maps(count))
    assert trace.score.shape == (count,)
    wanted = reference.grouped(trace.lda, trace.made.weights, trace.made.biases)
    torch.testing.assert_close(trace.score, wanted, rtol=0, atol=1e-12)


def test_a_score_does_not_depend_on_the_batch():
    """Each image's score and gradient are what they are alone."""
    head = small_head(fusion="attention")
    maps = small_maps(4)
    alone = torch.cat([head([stage[i : i + 1] for stage in maps]) for i in range(4)])
    torch.testing.assert_close(head(maps), alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("side", "grid"), [(56, 8), (28, 4), (14, 2), (7, 1), (7, 7), (56, 7), (28, 7)])
def test_pooling_at_224_pixels_is_the_authors_window(side, grid):
    """At the original sizes pooling to a grid equals an average window, and adaptive pooling, bit by bit."""
    maps = torch.rand(2, 3, side, side, dtype=torch.float64)
    window = side // grid
    assert torch.equal(pool_to(maps, grid), F.avg_pool2d(maps, window, stride=window))
    torch.testing.assert_close(pool_to(maps, grid), F.adaptive_avg_pool2d(maps, grid), rtol=0, atol=1e-14)


@pytest.mark.parametrize("side", [1, 3, 6, 10, 16])
def test_pooling_takes_any_size(side):
    """Where the grid does not divide the map, pooling is adaptive."""
    maps = torch.rand(1, 2, side, side + 2, dtype=torch.float64)
    torch.testing.assert_close(pool_to(maps, 7), F.adaptive_avg_pool2d(maps, 7), rtol=0, atol=1e-14)


def test_the_vector_keeps_the_order_of_the_stages():
    """A change in stage s moves its own part of the LDA vector only."""
    lda = LocalDistortionAware(SMALL).double()
    maps = small_maps(1, sides=(56, 28, 14, 7))
    before = lda(maps)
    assert before.shape == (1, 224)
    bounds = (0, 16, 32, 48, 224)
    for s in range(4):
        changed = list(maps)
        changed[s] = maps[s] + 1
        moved = (lda(changed) != before)[0].nonzero().flatten()
        assert bounds[s] <= moved.min()
        assert moved.max() < bounds[s + 1]


def test_attention_begins_near_equal_weights():
    """Fresh attention weights are close to a quarter each and sum to one."""
    torch.manual_seed(0)
    head = HyperHead((96, 192, 384, 768), (512, 256), fusion="attention").eval()
    attention = head.fusion.attention(torch.rand(3, 768, 7, 7))
    torch.testing.assert_close(attention.sum(1), torch.ones(3))
    torch.testing.assert_close(attention, torch.full((3, 4), 0.25), rtol=0, atol=0.01)


def test_initial_weights_are_the_authors():
    """He et al. in LDA and generators, N(0, 0.01) in the attention with zero biases, else torch's default."""
    torch.manual_seed(0)
    head = HyperHead((96, 192, 384, 768), (512, 256), fusion="attention")
    for weight, fan_in in (
        (head.lda.project[0].weight, 1024),
        (head.lda.reduce[2].weight, 384),
        (head.hyper.weights[0].weight, 112 * 9),
        (head.hyper.biases[0].weight, 112),
    ):
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    squeeze = head.hyper.squeeze[0].weight
    assert squeeze.abs().max().item() <= 1440**-0.5
    assert squeeze.std().item() == pytest.approx((3 * 1440) ** -0.5, rel=0.05)
    for index in (0, 3):
        layer = head.fusion.attention.net[index]
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not layer.bias.any()
    assert head.hyper.weights[0].bias.abs().max().item() <= (112 * 9) ** -0.5


def test_dropout_acts_in_training_only():
    """With dropout, training scores vary and eval scores are those of a head without dropout."""
    plain, dropping = small_head(), small_head(dropout=0.4)
    dropping.load_state_dict(plain.state_dict())
    maps = small_maps(2)
    assert torch.equal(plain(maps), dropping(maps))
    dropping.train()
    assert not torch.equal(dropping(maps), dropping(maps))


def test_dropout_follows_the_first_three_layers():
    """Four matrix layers, dropout after three: with probability near one only the fourth survives."""
    torch.manual_seed(0)
    weights = [torch.rand(1, out, given) for given, out in ((4, 3), (3, 3), (3, 3), (3, 2), (2, 1))]
    biases = [torch.rand(1, w.shape[1]) for w in weights]
    # Everything before layer 4 is dropped, so it sees zeros: sigmoid of its bias, undropped.
    dropped = target_network(torch.rand(1, 4), weights, biases, dropout=1.0)
    wanted = biases[4][0] + weights[4][0] @ biases[3][0].sigmoid()
    torch.testing.assert_close(dropped, wanted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fusion": "all"}, "fusion must be one of last, afa, attention"),
        ({"fusion": "afa", "afa": "project"}, "afa must be one of concat, project512"),
        ({"fusion": "attention", "attention_activation": "tanh"}, "must be one of softmax, sigmoid"),
        ({"fusion": "attention", "attention_hidden": 0}, "attention_hidden must be a whole number from 1"),
        ({"fusion": "attention", "attention_hidden": True}, "attention_hidden must be a whole number"),
        ({"afa": "project512"}, "no effect with fusion='last'"),
        ({"fusion": "afa", "attention_activation": "sigmoid"}, "no effect with fusion='afa'"),
        ({"fusion": "last", "attention_hidden": 128}, "no effect with fusion='last'"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_options_that_are_wrong_or_without_effect_are_refused(options, words):
    """A value out of range, or an option the chosen fusion ignores, raises BadModelOption."""
    with pytest.raises(BadModelOption, match=re.escape(words)):
        partial(HyperHead, SMALL, (6, 5))(**options)
