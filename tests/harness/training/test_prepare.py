"""Before the first step: ridge in closed form, batch norm's statistics."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from iqa_harness.training.batches import whole_batches
from iqa_harness.training.prepare import batch_norms, calibrate_batch_norm, ridge, start_head, training_mode
from iqa_models import create_model


def test_ridge_is_the_minimum_of_its_objective():
    """At the solution the gradient of ||Zw + b - y||^2 + alpha ||w||^2 is zero in w and b."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(30, 5, generator=generator, dtype=torch.float64) + 2
    y = torch.rand(30, generator=generator, dtype=torch.float64)
    weight, bias = ridge(z, y, 3.0)
    residual = z @ weight + bias - y
    torch.testing.assert_close(z.T @ residual + 3.0 * weight, torch.zeros_like(weight), atol=1e-10, rtol=0)
    assert residual.sum().item() == pytest.approx(0, abs=1e-10)


def test_a_small_penalty_recovers_a_line():
    """Labels that are linear in the features are met when the penalty vanishes."""
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    weight, bias = ridge(z, z @ truth + 0.25, 1e-9)
    torch.testing.assert_close(weight, truth)
    assert bias.item() == pytest.approx(0.25)


def test_ridge_stays_on_the_device_of_the_features():
    """On a card nothing of the solution is made elsewhere, which a mixture of devices would refuse."""
    with FakeTensorMode():
        weight, bias = ridge(torch.rand(6, 3, device="cuda"), torch.rand(6, device="cuda"), 1.0)
    assert (weight.device.type, weight.dtype, bias.device.type) == ("cuda", torch.float32, "cuda")


def test_the_started_head_predicts_the_labels_on_average(tiny_set):
    """After a ridge start the mean score of the training images is their mean label."""
    data = tiny_set.split("train")
    model = create_model("timm_regressor", backbone="test_efficientnet")
    labels = torch.linspace(0, 1, len(data))
    start_head(model, whole_batches(data, 4), labels, ridge_alpha=1.0)
    with torch.no_grad():
        scores = torch.cat([model(images) for images in whole_batches(data, 4)])
    assert scores.mean().item() == pytest.approx(0.5, abs=1e-4)
    assert np.corrcoef(scores, labels)[0, 1] > 0.9


def test_calibration_gives_batch_norm_the_statistics_of_the_data(tiny_set):
    """On one batch, the first layer's output in eval mode is what batch statistics would give."""
    model = create_model("timm_regressor", backbone="test_efficientnet")
    images = next(whole_batches(tiny_set.split("train"), 12))
    calibrate_batch_norm(model, [images])
    layer = batch_norms(model)[0]
    seen = {}
    hook = layer.register_forward_pre_hook(lambda _module, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        model(images)
    hook.remove()
    torch.testing.assert_close(layer.running_mean, seen["x"].mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert layer.momentum == pytest.approx(0.1, abs=0.1)
    assert not model.training


def test_frozen_batch_norm_stays_as_it_is():
    """In training mode with frozen statistics a forward pass changes no buffer; live ones change."""
    model = create_model("timm_regressor", backbone="test_efficientnet")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training_mode(model, live_batch_norm=False)
    model(torch.rand(2, 3, 32, 32))
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    training_mode(model, live_batch_norm=True)
    model(torch.rand(2, 3, 32, 32))
    assert not all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
