"""Robust training: the penalty is the gradient's norm, the examples are the engine's."""

import pytest
import torch

from iqa_attacks import ThreatModel, create_attack
from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.forward import Draws, score_crops, statistics_kept
from iqa_harness.training.loop import train
from iqa_harness.training.prepare import batch_norms
from iqa_harness.training.robust import (
    create_adversary,
    damage,
    gradient_norm_penalty,
    gradient_sign,
)
from iqa_harness.training.robust_settings import GradientNorm
from iqa_harness.training.state import Training
from iqa_harness.training.step import Stepper
from iqa_models import LinearQuality, create_model, load_checkpoint

CPU = torch.device("cpu")


def make(**values):
    """Return settings of robust training."""
    return TrainConfig(name="x", model="linear", epochs=1, **values)


def grey(count=3, side=16, seed=0):
    """Return images (count, 3, side, side) whose pixels lie away from both ends of their range."""
    return 0.3 + 0.4 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def input_gradients(model, images):
    """Return d score / d image by automatic differentiation."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).sum(), leaf)[0]


def penalty(model, images, step=0.01):
    """Return the penalty of a model's own pass."""
    draws = Draws(CPU)
    scores = score_crops(model, images).scores
    return gradient_norm_penalty(model, images, scores, GradientNorm(step=step), draws=draws, span=1.0)


def test_on_a_linear_model_the_penalty_is_the_norm_of_its_weights():
    """The finite difference along the gradient's sign is the L1 norm exactly, and so is its slope."""
    model = create_model("linear").double()
    images = grey().double()
    norm = input_gradients(model, images).abs().sum(dim=(1, 2, 3)).mean()
    found = penalty(model, images)
    assert found.item() == pytest.approx(norm.item(), rel=1e-9)


@pytest.mark.parametrize("ends", [False, True])
def test_the_authors_penalty_on_a_linear_model(ends):
    """Half the squared norm of the gradient by normalised pixels, on 0..100: by hand from the weights.

    Black and white pixels are moved out of [0, 1], as their code moves them.
    """
    model = create_model("linear").double()
    model.spec = model.spec.replace(std=(0.5, 0.25, 0.125))
    images, draws = grey().double(), Draws(CPU)
    if ends:
        images = images.round()
    by_channel = input_gradients(model, images).abs().sum(dim=(2, 3))
    norm = 100 * (by_channel * torch.tensor([0.5, 0.25, 0.125])).sum(dim=1) / 4
    scores = score_crops(model, images).scores
    author = GradientNorm(step=0.01, form="author")
    found = gradient_norm_penalty(model, images, scores, author, draws=draws, span=4.0)
    assert found.item() == pytest.approx(norm.square().mean().item() / 2 / 100, rel=1e-9)


def test_on_a_network_the_penalty_tends_to_the_gradients_norm():
    """As h falls the finite difference approaches the exact L1 norm of the input gradient."""
    model = create_model("timm_regressor", backbone="test_efficientnet", hidden=8, seed=1).double()
    images = grey(2, 32).double()
    exact = input_gradients(model, images).abs().sum(dim=(1, 2, 3)).mean().item()
    errors = [abs(penalty(model, images, step).item() / exact - 1) for step in (1e-4, 1e-7)]
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] < 0.2


def test_the_penalty_sees_the_same_dropout_masks():
    """With dropout on, both passes draw the same masks: the difference is the images' alone."""
    model = create_model("smart_iqa_tiny", dropout=0.5, drop_path=0.5, protocol="native").train()
    crops = grey(1, 224)
    with torch.random.fork_rng():
        draws = Draws(CPU)
        scores = score_crops(model, crops).scores
        after = torch.get_rng_state()
        with draws.again():
            again = score_crops(model, crops).scores
        assert torch.equal(torch.get_rng_state(), after)
        other = score_crops(model, crops).scores
    assert torch.equal(again, scores)
    assert not torch.equal(other, scores)


def test_a_second_pass_moves_no_running_statistics():
    """Live batch norm counts the batch once, with or without the penalty."""
    model = create_model("timm_regressor", backbone="test_efficientnet", hidden=8).train()
    layer = batch_norms(model)[0]
    model(grey(2, 32))
    mean, count = layer.running_mean.clone(), layer.num_batches_tracked.clone()
    with statistics_kept(model):
        model(grey(2, 32, seed=5))
    assert torch.equal(layer.running_mean, mean)
    assert torch.equal(layer.num_batches_tracked, count)
    assert layer.momentum == 0.1
    gradient_sign(model, grey(2, 32))
    assert model.training
    assert layer.training
    assert torch.equal(layer.running_mean, mean)


class Counting(torch.nn.Module):
    """A layer that puts new tensors under its buffers' names in every pass, one of them empty at first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("last", None)

    def forward(self, images):
        """Count a pass."""
        self.passes.mul_(2)
        self.passes = self.passes + 1
        self.last = images.detach().mean()
        return images


def test_a_buffer_that_a_model_replaces_is_put_back():
    """By its name: the tensor from before is there again, with the value from before."""
    model = create_model("timm_regressor", backbone="test_efficientnet", hidden=8).train()
    layer = Counting()
    model.add_module("counting", layer)
    layer(grey())
    passes, last = layer.passes, layer.last
    for _ in range(2):
        with statistics_kept(model):
            layer(grey(seed=5))
            assert layer.passes == 3
    assert layer.passes is passes
    assert passes == 1
    assert layer.last is last
    fresh = Counting()
    model.add_module("counting", fresh)
    with statistics_kept(model):
        fresh(grey())
    assert fresh.last is None
    assert dict(fresh.named_buffers()) == {"passes": torch.zeros(())}


@pytest.mark.parametrize(
    ("name", "options", "side", "statistic"),
    [
        ("timm_regressor", {"backbone": "test_efficientnet", "hidden": 8}, 32, "running_mean"),
        ("srm_efficientnet_lite0", {"protocol": "native"}, 64, "ema"),
    ],
)
def test_a_step_with_the_penalty_moves_the_statistics_once(name, options, side, statistic):
    """Every buffer ends where the pass on the batch alone leaves it, and the loss has its gradient."""
    model = create_model(name, **options).train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    crops, draws = grey(2, side), Draws(CPU)
    scores, auxiliary = score_crops(model, crops)
    once = {key: value.clone() for key, value in model.named_buffers()}
    moved = [key for key in once if not torch.equal(once[key], before[key])]
    assert any(key.endswith(statistic) for key in moved)
    extra = gradient_norm_penalty(model, crops, scores, GradientNorm(), draws=draws, span=1.0)
    for key, value in model.named_buffers():
        assert torch.equal(value, once[key]), key
    (scores.sum() + extra + sum(auxiliary.values())).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert any(gradient.abs().max() > 0 for gradient in gradients)


class Dropping(LinearQuality):
    """Draws dropout masks in training."""

    def predict(self, images):
        return super().predict(torch.nn.functional.dropout(images, 0.5, self.training))


def test_the_penalty_draws_the_masks_of_the_scores():
    """A step too small to matter gives no penalty: any difference would be of other dropout masks."""
    base = create_model("linear", seed=3)
    model = Dropping(base.spec, base.pattern.data, 0.5).double().train()
    crops = grey(1, 32).double()
    with torch.random.fork_rng():
        draws = Draws(CPU)
        scores = score_crops(model, crops).scores
        small = GradientNorm(step=1e-9)
        found = gradient_norm_penalty(model, crops, scores, small, draws=draws, span=1e9)
        other = score_crops(model, crops).scores
    # |f(x + h s) - f(x)| itself, as h times the span is 1.
    assert found.item() < 1e-5 * (other - scores).abs().item()


def test_fgsm_examples_are_the_engines():
    """On a linear model the example is the image moved by epsilon along the weights' sign, in the box."""
    adversary = create_adversary(make(robust={"kind": "fgsm", "epsilon": "8/255", "objective": "raise"}))
    model = create_model("linear").train()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.linspace(0, 1, 4)
    examples, kept = adversary(model, images, labels, list("abcd"))
    expected = (images + 8 / 255 * input_gradients(model, images).sign()).clamp(0, 1)
    torch.testing.assert_close(examples, expected)
    assert torch.equal(kept, labels)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_pgd_examples_are_those_of_an_attack_of_its_own():
    """The same attack run by itself on the evaluated model ends at the same pixels."""
    config = make(robust={"kind": "pgd", "steps": 3, "epsilon": "2/255"}, seed=4)
    model = create_model("timm_regressor", backbone="test_efficientnet", hidden=8)
    images, labels, ids = grey(3, 32), torch.tensor([0.1, 0.5, 0.9]), ["1/a/0", "1/b/0", "1/c/0"]
    examples, _ = create_adversary(config)(model, images, labels, ids)
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 2 / 255), objectives=("mse",), steps=3, step_size=0.75 * 2 / 255,
        keep="last", seed=4,
    )  # fmt: skip
    result = attack.run(model, list(images), ids, labels.double(), chunk=16)
    for found in result.found:
        if found.objective == "mse":
            assert torch.equal(examples[found.image], found.example.pixels)


def test_random_starts_follow_the_ids():
    """The same ids give the same examples, another epoch's ids others."""
    adversary = create_adversary(make(robust={"kind": "pgd", "steps": 1, "step_size": 0.1}))
    model, images, labels = create_model("linear"), grey(2), torch.tensor([0.2, 0.8])
    first, again, other = (
        adversary(model, images, labels, [f"{epoch}/a/0", f"{epoch}/b/0"])[0] for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_share_of_the_batch_stays_clean_and_labels_fall_with_the_damage():
    """Half of the batch is attacked; its labels fall by the HaarPSI damage, those of clean images stay."""
    config = make(robust={"kind": "fgsm", "share": 0.5, "label_damage": 1.0, "epsilon": "16/255"})
    model, images, labels = create_model("linear"), grey(4, 32), torch.full((4,), 0.6)
    examples, lowered = create_adversary(config)(model, images, labels, list("abcd"))
    assert torch.equal(examples[2:], images[2:])
    assert torch.equal(lowered[2:], labels[2:])
    lost = damage(examples[:2], images[:2])
    assert (lost > 0.01).all()
    torch.testing.assert_close(lowered[:2], (0.6 - lost).clamp_min(0))
    assert damage(images, images).max() < 1e-5 < lost.min()


def test_a_stochastic_model_is_refused():
    """Adversarial training of a model that draws in evaluation would need averages it does not take."""
    config = make(robust="fgsm")
    model = create_model("srm_efficientnet_lite0", kv_pooling="always", protocol="native")
    optimiser = torch.optim.SGD(model.parameters(), lr=1)
    with pytest.raises(TrainingError, match="stochastic"):
        Stepper(config, model, Training(model, optimiser, {}, {}, CPU))


def test_a_radius_that_is_no_number_is_told():
    """The setting is named with what it may be."""
    with pytest.raises(TrainingError, match=r"robust\.epsilon: epsilon 'much'"):
        create_adversary(make(robust={"kind": "fgsm", "epsilon": "much"}))


def test_a_models_own_losses_are_trained_with():
    """The auxiliary losses of an SRM neck come with its scores; a model without any adds nothing."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    srm = create_model("srm_efficientnet_lite0", protocol="native").train()
    scores, losses = score_crops(srm, images)
    assert scores.shape == (2,)
    assert losses.keys() == srm.forward_with_losses(images).losses.keys()
    assert all(value.requires_grad for value in losses.values())
    assert score_crops(create_model("linear"), images).auxiliary == {}


def test_a_crop_is_not_put_through_the_protocol_of_evaluation():
    """Training a 25-crop model on a crop scores that crop once, as it is."""
    model = create_model("hyperiqa")
    crops = grey(1, 224)
    with torch.no_grad():
        assert torch.equal(score_crops(model, crops).scores, model.score_patches(crops))


def test_the_penalty_makes_the_gradient_smaller(tiny_set, config, tmp_path):
    """Trained alike, the model with the penalty ends with a smaller input gradient than the one without."""
    changes = {"epochs": 5, "keep": "last", "batch_norm": "calibrated"}
    plain = config.model_validate({**config.model_dump(), **changes})
    penalty = {"kind": "gradient_norm", "weight": 0.05}
    robust = plain.model_validate({**plain.model_dump(), "robust": penalty})
    images = torch.stack([torch.from_numpy(tiny_set.split("val").read(i)) for i in range(6)])
    images = images.permute(0, 3, 1, 2) / 255
    norms = [
        input_gradients(load_checkpoint(train(c, tiny_set, tmp_path / c.robust.kind)), images).abs().sum()
        for c in (plain, robust)
    ]
    assert norms[1] < 0.8 * norms[0]
