"""The registered models: options, cards, determinism, sizes, explanations."""

import json
import re

import pytest
import torch

from iqa_models import BadInput, BadModelOption, create_model, load_checkpoint, save_checkpoint
from iqa_models.hyper import HyperQuality

NAMES = ("hyperiqa", "smart_iqa_tiny", "smart_iqa_small", "smart_iqa_base")


def pixels(count, height=224, width=224, seed=0):
    """Random images in [0, 1], smooth enough to differ as photographs do."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").clamp(0, 1)


def small(**options):
    """The head of both families on a trunk of a few thousand weights."""
    return create_model("hyper", backbone="test_efficientnet", **options).requires_grad_(False)


@pytest.fixture(scope="module")
def hyperiqa():
    """HyperIQA on whole images, random weights."""
    return create_model("hyperiqa", protocol="native").requires_grad_(False)


@pytest.fixture(scope="module")
def tiny():
    """SMART-IQA tiny on whole images, random weights."""
    return create_model("smart_iqa_tiny", protocol="native").requires_grad_(False)


@pytest.fixture(params=["hyperiqa", "tiny"])
def model(request):
    """Each of the two models that are small enough to run here."""
    return request.getfixturevalue(request.param)


def test_scores_are_repeated_to_the_bit_and_do_not_depend_on_the_batch(model):
    """A fresh model is in eval mode; B = 1 gives shape (1,), and an image scores in a batch as alone."""
    images = pixels(2)
    assert not model.training
    assert not model.is_stochastic
    alone = model(images[:1])
    assert alone.shape == (1,)
    assert torch.equal(model(images[:1]), alone)
    torch.testing.assert_close(model(images)[:1], alone, rtol=1e-4, atol=1e-4)


def test_every_image_has_a_gradient(model):
    """The gradient at the pixels is finite and not zero."""
    images = pixels(1).requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().flatten(1).sum(1) > 0).all()


def test_the_head_takes_the_trunks_maps(model):
    """model.head scores four maps (B, C_s, H_s, W_s) of strides 4 to 32: (B,)."""
    maps = model.trunk(model.normalise(pixels(1)))
    assert [tuple(stage.shape[2:]) for stage in maps] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert [stage.shape[1] for stage in maps] == list(model.trunk.channels)
    assert torch.equal(model.head(maps), model(pixels(1)))


def test_smart_varies_in_training_and_hyperiqa_updates_its_statistics(hyperiqa, tiny):
    """Drop-path and dropout act in training; HyperIQA has neither, but batch norm learns."""
    images = pixels(2, 64, 64)
    try:
        tiny.train()
        assert not torch.equal(tiny(pixels(1)), tiny(pixels(1)))
        before = hyperiqa.trunk.net.bn1.running_mean.clone()
        hyperiqa.train()
        assert torch.equal(hyperiqa(images), hyperiqa(images))
        assert not torch.equal(hyperiqa.trunk.net.bn1.running_mean, before)
        hyperiqa.trunk.net.bn1.running_mean.copy_(before)
    finally:
        tiny.eval()
        hyperiqa.eval()


@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 96), (256, 64)])
def test_hyperiqa_takes_multiples_of_32(hyperiqa, height, width):
    """Whole images with sides that are multiples of 32 score and have a gradient."""
    images = pixels(1, height, width).requires_grad_()
    (gradient,) = torch.autograd.grad(hyperiqa(images).sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize(("height", "width"), [(230, 224), (224, 250)])
def test_hyperiqa_refuses_other_sides(hyperiqa, height, width):
    """A side that is no multiple of 32 raises BadInput."""
    with pytest.raises(BadInput, match="multiples of 32"):
        hyperiqa(pixels(1, height, width))


def test_swin_takes_224_unless_asked(tiny):
    """Swin refuses other sizes; with dynamic_size it scores them, and 224 as before."""
    with pytest.raises(BadInput, match="224x224 pixels only, not 256x256"):
        tiny(pixels(1, 256, 256))
    dynamic = create_model("smart_iqa_tiny", protocol="native", dynamic_size=True).requires_grad_(False)
    dynamic.load_state_dict(tiny.state_dict())
    torch.testing.assert_close(dynamic(pixels(1)), tiny(pixels(1)), rtol=0, atol=1e-6)
    for height, width in ((256, 192), (64, 64)):
        assert torch.isfinite(dynamic(pixels(1, height, width))).all()
    with pytest.raises(BadInput, match="multiples of 32"):
        dynamic(pixels(1, 250, 224))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_it_must(skeleton, name):
    """The card names an explicit timm tag, range, protocol and paper, and its options are JSON."""
    spec = skeleton(name, fusion="last" if name == "hyperiqa" else "attention").spec
    trunks = {
        "hyperiqa": "resnet50.tv_in1k",
        "smart_iqa_tiny": "swin_tiny_patch4_window7_224.ms_in1k",
        "smart_iqa_small": "swin_small_patch4_window7_224.ms_in22k_ft_in1k",
        "smart_iqa_base": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    }
    assert spec.trunk == trunks[name]
    assert spec.initial_weights == "random"
    assert spec.score_range == (0.0, 100.0)
    assert not spec.is_stochastic
    assert spec.options["pretrained"] == "none"
    count = 25 if name == "hyperiqa" else 20
    assert f"mean of {count} fixed random 224x224 crops, seed 0" in spec.input_protocol
    assert "512 high x 384 wide" in spec.input_protocol
    assert "IQA" in spec.source or "CVPR" in spec.source
    with torch.device("meta"):
        again = create_model(name, **json.loads(json.dumps(spec.options))).spec
    assert again == spec


def test_the_options_on_the_card_make_the_model_again():
    """A model with options of its own is rebuilt from its card, weights and all."""
    options = {
        "fusion": "attention",
        "afa": "project512",
        "attention_activation": "sigmoid",
        "attention_hidden": 128,
        "weights": "ms_in22k_ft_in1k",
        "protocol": "grid:2x3",
        "resize": "keep_aspect",
        "score_range": (1, 5),
        "seed": 7,
    }
    model = create_model("smart_iqa_tiny", **options)
    again = create_model(model.spec.name, **model.spec.options)
    assert again.spec == model.spec
    assert again.spec.trunk == "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k"
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_depend_on_the_seed_alone():
    """One seed makes one model whatever the global generator, which is not moved; another seed another."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = small(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, third = small(seed=3), small(seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    for name in ("trunk.net.conv_stem.weight", "head.hyper.squeeze.0.weight"):
        assert not torch.equal(first.state_dict()[name], third.state_dict()[name])


def test_random_crops_score_an_image_alike_in_every_batch():
    """A multi-crop score is bit-equal alone and in a batch, and is the mean of the crops' scores."""
    model = small(protocol="random_crops:3:5", crop_batch=2)
    images = pixels(2, 240, 260)
    scores = model(images)
    assert torch.equal(torch.cat([model(images[1:]), model(images[:1])]).flip(0), scores)
    crops = [
        model.score_patches(model.protocol.patches(images, [corner]))
        for corner in model.protocol.corners(240, 260)
    ]
    torch.testing.assert_close(torch.stack(crops).mean(0), scores, rtol=1e-4, atol=1e-4)


def test_an_explanation_is_the_score_taken_apart():
    """Explain gives crops, attention, LDA vector and maps of the very pass that scores; no hook stays."""
    model = small(fusion="attention", protocol="random_crops:2:1", resize="512x384", crop_batch=1)
    images = pixels(2, 100, 120)
    seen = model.explain(images)
    assert torch.equal(seen.scores.mean(1), model(images))
    assert seen.resized == (512, 384)
    assert seen.corners == tuple(model.protocol.corners(512, 384))
    assert seen.lda.shape == (2, 2, 224)
    assert seen.hyper.shape == (2, 2, 112, 7, 7)
    assert seen.fused.shape == (2, 2, 24 + 32 + 48 + 64, 7, 7)
    assert seen.attention is not None
    torch.testing.assert_close(seen.attention.sum(-1), torch.ones(2, 2))
    hooks = [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert hooks == []
    with pytest.raises(BadInput, match="pixel values"):
        model.explain(images + 1)


def test_a_model_without_attention_explains_the_rest(hyperiqa):
    """HyperIQA has no attention weights; its LDA vector and maps can be read."""
    seen = hyperiqa.explain(pixels(1))
    assert seen.attention is None
    assert seen.fused.shape == (1, 1, 2048, 7, 7)


def test_a_checkpoint_gives_the_model_back(tmp_path):
    """Saved and loaded, a model has the same card and weights to the bit."""
    model = small(fusion="attention", seed=2)
    folder = save_checkpoint(model, tmp_path / "saved", training={})
    again = load_checkpoint(folder)
    for file in folder.iterdir():
        file.unlink()
    assert isinstance(again, HyperQuality)
    assert again.spec == model.spec
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hyperiqa", {"protocol": "middle"}, "protocol must be one of native, centre"),
        ("hyperiqa", {"resize": "100x384"}, "smaller than the 224x224 crops"),
        ("hyperiqa", {"crop_batch": 0}, "crop_batch must be a whole number from 1"),
        ("hyperiqa", {"seed": -1}, "seed must be a whole number from 0"),
        ("hyperiqa", {"pretrained": "yes"}, "pretrained must be True ('hub') or False ('none')"),
        ("hyperiqa", {"score_range": (5, 1)}, "score_range must be (low, high)"),
        ("hyperiqa", {"score_range": 5}, "score_range must be (low, high)"),
        ("hyperiqa", {"dropout": 0.1}, "has no option 'dropout'"),
        ("smart_iqa_tiny", {"drop_path": 1.0}, "drop_path must lie in [0, 1)"),
        ("smart_iqa_tiny", {"weights": "in21k"}, "timm has no weights 'swin_tiny_patch4_window7_224.in21k'"),
    ],
)
def test_a_refused_option_says_why(name, options, words):
    """A wrong option raises BadModelOption with its name and what is allowed."""
    with pytest.raises(BadModelOption, match=re.escape(words)), torch.device("meta"):
        create_model(name, **options)


def test_the_head_on_any_backbone_is_the_registered_one():
    """``hyper`` on EfficientNet-Lite0 is ``hyperiqa_efficientnet_lite0``: one seed, one score to the bit."""
    options = {"protocol": "native", "fusion": "afa", "seed": 3}
    any_backbone = create_model("hyper", backbone="tf_efficientnet_lite0", **options)
    images = pixels(2, 96, 128)
    assert torch.equal(any_backbone(images), create_model("hyperiqa_efficientnet_lite0", **options)(images))
    assert any_backbone.spec.mean == (0.5, 0.5, 0.5)


def test_the_head_takes_a_transformer_pyramid(tmp_path):
    """A backbone of another family is scored, saved and found again with its options."""
    model = create_model("hyper", backbone="efficientvit_b0", protocol="native", hidden=(16, 8))
    save_checkpoint(model, tmp_path / "saved", training={})
    again = load_checkpoint(tmp_path / "saved", expect="hyper")
    assert again.spec.options["hidden"] == [16, 8]
    assert torch.equal(again(pixels(1, 64, 96)), model(pixels(1, 64, 96)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "swin_tiny_patch4_window7_224"}, "built for one input size"),
        ({"backbone": "efficientvit_b9"}, "no backbone 'efficientvit_b9'"),
        ({"hidden": (16, 0)}, "hidden must be two whole numbers from 1"),
        ({"hidden": 16}, "hidden must be two whole numbers from 1"),
    ],
)
def test_a_backbone_or_width_that_does_not_fit_is_refused(options, words):
    """Named in one error."""
    with pytest.raises(BadModelOption, match=words):
        create_model("hyper", protocol="native", **options)
