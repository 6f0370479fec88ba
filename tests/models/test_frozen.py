"""A frozen copy is the same function: equal scores and gradients; the model it was made of is untouched."""

import copy
import functools
import inspect
import math

import pytest
import torch
from torch import nn

from iqa_models import BadInput, QualityModel, create_model, registry
from iqa_models.frozen import frozen
from iqa_models.graphs import Graphs

CHEAP = {"pretrained": "none", "protocol": "centre", "crop": 64, "shorter_side": 64}
"""Random weights, and one small crop an image where the model has such options."""

WHOLE = {"protocol": "native", "dynamic_size": True}
"""Options by which the large hyper-networks take small images whole."""

FAMILIES = (
    "demo_lite0",
    "demo_resnet10t",
    "hyperiqa",
    "linear",
    "smart_iqa_tiny",
    "srm",
    "srm_convnext_tiny",
    "srm_mobilenetv3_large",
    "srm_pvt_v2_b2",
    "srm_swin_tiny",
)
"""One model of every family of trunks: EfficientNet, ResNets, Swin, ConvNeXt, MobileNet, PVT, none."""

NORMED = ("demo_lite0", "demo_resnet10t", "hyperiqa", "srm", "srm_mobilenetv3_large")
"""Those whose trunk has batch norms, each after a convolution."""


def with_statistics(model):
    """Give every batch norm statistics and weights as training would leave, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return model


@functools.lru_cache(maxsize=4)
def build(name, **options):
    """Return a model, one for all tests in a row that ask for it: none may change it."""
    known = inspect.signature(registry.find_builder(name)).parameters
    cheap = CHEAP | WHOLE if name in ("hyperiqa", "hyper", "smart_iqa_tiny") else CHEAP
    cheap = {option: value for option, value in cheap.items() if option in known}
    return with_statistics(create_model(name, **{**cheap, **options}))


def images(model, count=2):
    side = model.spec.fixed_size or max(model.spec.min_size, 64)
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def score_and_gradient(model, batch):
    leaf = batch.clone().requires_grad_()
    scores = model(leaf)
    scale = model.gradient_scale  # as `iqa_attacks.gradients` does
    (gradient,) = torch.autograd.grad(scores.sum() * scale, leaf)
    return scores.detach(), gradient


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def assert_same(model, other, batch):
    """Scores agree to 1e-5 of the score range, signs of gradients in 99.9 % of all pixel values."""
    low, high = model.spec.score_range
    (scores, gradient), (scores2, gradient2) = (score_and_gradient(m, batch) for m in (model, other))
    assert (scores2 - scores).abs().max() <= 1e-5 * max(high - low, float(scores.abs().max()))
    assert (gradient2.sign() == gradient.sign()).float().mean() >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hyper", {"backbone": "test_resnet", "resize": "240x256"}),
        ("srm_mobilenetv3_large", {"shorter_side": 72, "crop": 64}),
    ],
)
def test_the_copy_scores_and_slopes_as_its_model_over_many_crops(name, options):
    """With crops taken together and their gradients ahead."""
    model = build(name, protocol="random_crops:3:0", **options)
    made = frozen(model)
    assert made.crops_ahead and not model.crops_ahead
    assert_same(model, made, images(model, 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_copy_scores_and_slopes_as_its_model(name):
    """Folded, with channels last, the copy is the model up to rounding, and has nothing to train.

    No batch norm is left in the copy, and all are still in the model.
    """
    model = build(name)
    before = len(norms(model))
    assert (before > 0) == (name in NORMED)
    made = frozen(model)
    assert norms(made) == []
    assert len(norms(model)) == before
    assert_same(model, made, images(model))
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert not made.training
    assert made.spec == model.spec


def test_batch_norms_stay_if_they_are_not_to_be_folded():
    """All of them are in the copy."""
    model = build("demo_resnet10t")
    assert len(norms(frozen(model, fold=False))) == len(norms(model)) > 0


@pytest.mark.parametrize("name", ["hyper", "srm_mobilenetv3_large"])
def test_the_model_is_untouched(name):
    """Weights, statistics, layout, flags, modes and hooks are what they were, whatever copy is made."""
    model = build.__wrapped__(name)
    model.trunk.train()
    next(model.parameters()).requires_grad_(False)
    state = copy.deepcopy(model.state_dict())

    def facts():
        tensors = [*model.parameters(), *model.buffers()]
        return (
            [(t.stride(), t.requires_grad, t.dtype, id(t)) for t in tensors],
            [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
            [type(m) for m in model.modules()],
            sorted(model.__dict__),
        )

    before = facts()
    frozen(model)
    frozen(model, channels_last=False, precision="bfloat16")
    assert facts() == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_channels_last_is_a_matter_of_layout():
    """The weights are equal; only their strides differ."""
    model = build("hyper")
    plain, last = (frozen(model, fold=False, channels_last=way) for way in (False, True))
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.equal(a, b)
    kernels = [p for p in last.trunk.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_the_copy_checks_its_input():
    """What the model refuses, the copy refuses."""
    made = frozen(build("demo_resnet10t"), precision="bfloat16")
    with pytest.raises(BadInput, match="pixel values"):
        made(torch.full((1, 3, 64, 64), 1.5))
    with pytest.raises(BadInput, match="shape"):
        made(torch.zeros(3, 64, 64))


def test_float16_rounds_finer_than_bfloat16():
    """Its gradient is nearer to the model's; the score is scaled by a power of two on the way back only."""
    model = build("demo_resnet10t")
    wanted, plain = score_and_gradient(model, images(model))
    far = {}
    for precision in ("float16", "bfloat16"):
        made = frozen(model, precision=precision)
        scores, gradient = score_and_gradient(made, images(model))
        far[precision] = float((gradient / made.gradient_scale - plain).abs().sum() / plain.abs().sum())
        assert torch.allclose(scores, wanted, rtol=0, atol=1e-4)
        assert (made.gradient_scale == 1) == (precision == "bfloat16")
        assert math.frexp(made.gradient_scale)[0] == 0.5
    assert 0 < far["float16"] < far["bfloat16"] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo_resnet10t", "hyper", "smart_iqa_tiny", "srm_pvt_v2_b2", "linear"])
def test_bfloat16_keeps_a_fine_score(name):
    """The score is within 2 % of the model's and finer than bfloat16; gradients are finite, in float32."""
    model = build(name)
    batch = images(model)
    scores, gradient = score_and_gradient(model, batch)
    halved, slope = score_and_gradient(frozen(model, precision="bfloat16"), batch)
    low, high = model.spec.score_range
    assert halved.dtype == slope.dtype == torch.float32
    assert (halved - scores).abs().max() <= 0.02 * (high - low)
    assert slope.isfinite().all()
    assert (gradient * slope).sum() > 0.5 * gradient.norm() * slope.norm()
    assert not torch.equal(halved, halved.bfloat16().float())


class Small(QualityModel):
    """One convolution, one batch norm, and a way from one to the other."""

    def __init__(self, convolution=None, forked=False):
        super().__init__(create_model("linear").spec.replace(name="small"))
        torch.manual_seed(0)
        self.convolution = convolution or nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.forked = forked
        with_statistics(self).eval()

    def predict(self, images):
        maps = self.convolution(images)
        out = self.norm(maps).relu()
        return (out + maps if self.forked else out).mean((1, 2, 3))


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised when it is called: a factor on them is lost."""

    def forward(self, images):
        weight = self.weight / self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return nn.functional.conv2d(images, weight, self.bias)


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (Small(), 0),
        (Small(nn.Conv2d(3, 6, 3)), 0),
        (Small(forked=True), 1),
        (Small(Standardised(3, 6, 3)), 1),
        (Small(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())), 1),
        (Small(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))), 1),
    ],
    ids=["plain", "bias", "forked", "standardised", "behind a ReLU", "parametrised"],
)
def test_a_batch_norm_is_folded_only_where_that_is_the_same_function(model, left):
    """A convolution that something else reads, or that makes its weights anew, keeps its batch norm."""
    made = frozen(model)
    assert len(norms(made)) == left
    assert_same(model, made, images(model))


def test_weights_of_five_axes_are_left_in_their_layout():
    """A convolution over time beside one over an image: only the latter's weights can have channels last."""

    class Clip(Small):
        def __init__(self):
            super().__init__()
            self.over_time = nn.Conv3d(3, 6, (1, 3, 3), bias=False)

        def predict(self, images):
            return super().predict(images) + self.over_time(images[:, :, None]).relu().mean((1, 2, 3, 4))

    model = Clip().eval()
    made = frozen(model)
    assert_same(model, made, images(model))
    assert made.convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_writes_into_its_input_is_folded_and_scaled():
    """The probe is a copy, as everywhere: a leaf could not be written into."""

    class InPlace(Small):
        def predict(self, images):
            return super().predict(images.sub_(0.5))

    model = InPlace().eval()
    made = frozen(model, precision="float16")
    assert norms(made) == []
    assert made.gradient_scale > 1


def test_a_batch_norm_two_convolutions_share_stays():
    """Folding it into either would be wrong for the other."""

    class Shared(Small):
        def __init__(self):
            super().__init__()
            self.second = nn.Conv2d(3, 6, 3)

        def predict(self, images):
            first, second = self.norm(self.convolution(images)), self.norm(self.second(images))
            return (first.relu() - second.relu()).mean((1, 2, 3))

    model = Shared().eval()
    assert len(norms(frozen(model))) == 1
    assert_same(model, frozen(model), images(model))


def test_a_model_that_reads_its_batch_norm_still_works():
    """It is copied unfolded, and scores as before."""

    class Reading(Small):
        def predict(self, images):
            return super().predict(images) * self.norm.weight.mean()

    model = Reading()
    assert len(norms(frozen(model))) == 1
    assert_same(model, frozen(model), images(model))


def test_what_cannot_be_copied_is_used_as_it_is():
    """A model that holds a generator of Python's is returned itself."""
    model = Small()
    model.stream = (number for number in range(3))
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert frozen(model, precision="bfloat16") is model
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_a_stochastic_model_draws_the_same_in_its_copy():
    """Equal seeds give equal scores, model and copy; torch's generator is left where it was."""
    model = build("srm", backbone="test_efficientnet", kv_pooling="always", kv_pooling_probability=0.5)
    assert model.is_stochastic
    before = torch.get_rng_state()
    made = frozen(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert norms(made) == []
    for seed in range(6):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            expected = model(images(model))
            torch.manual_seed(seed)
            torch.testing.assert_close(made(images(model)), expected, rtol=0, atol=1e-5)


def test_without_cuda_nothing_is_recorded_and_products_stay_what_they_are():
    """Bit for bit the same copy; of a stochastic model there are no recordings at all."""
    model = Small()
    batch = images(model)
    plain, made = frozen(model), frozen(model, precision="tf32", graphed=True)
    assert made.tensor_float32 and not plain.tensor_float32
    assert isinstance(made.graphs, Graphs) and plain.graphs is None and model.graphs is None
    for own, other in zip(score_and_gradient(plain, batch), score_and_gradient(made, batch), strict=True):
        assert torch.equal(own, other)
    assert (
        frozen(build("srm", backbone="test_efficientnet", kv_pooling="always"), graphed=True).graphs is None
    )


@pytest.mark.slow
def test_a_compiled_copy_is_the_same_function():
    """Compiled when first called, equal up to rounding; the model is not."""
    model = Small()
    made = frozen(model, compiled=True)
    assert_same(model, made, images(model))
    assert "predict" not in model.__dict__
