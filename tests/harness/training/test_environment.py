"""Device and precision: what is refused, what is set and put back, and that low precision trains."""

from contextlib import nullcontext

import pytest
import torch

from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.environment import autocast, check_device, create_scaler, repeatable, reseed
from iqa_harness.training.loop import train
from iqa_harness.training.optimisers import create_optimiser
from iqa_harness.training.state import Partway, Progress, Training, load_state, save_state
from iqa_harness.training.step import NotFinite, Stepper
from iqa_models import create_model, load_checkpoint

CPU = torch.device("cpu")


def make(**values):
    """Return settings of one epoch."""
    return TrainConfig(name="x", model="linear", epochs=1, **values)


def test_fp16_needs_cuda():
    """Without CUDA's loss scaling fp16 is refused with what to take instead."""
    with pytest.raises(TrainingError, match=r"fp16 needs CUDA .* take bf16 or fp32"):
        check_device(make(precision="fp16"), CPU)


@pytest.mark.parametrize(("index", "words"), [(0, "finds no CUDA device"), (3, "there are 2 CUDA devices")])
def test_a_device_that_is_not_there_is_told(monkeypatch, index, words):
    """No CUDA at all, and an index beyond the last device, are named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: index == 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match=words):
        check_device(make(), torch.device("cuda", index))


def test_a_device_without_bf16_is_told(monkeypatch):
    """A card that computes no bf16 is answered with fp16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(TrainingError, match="no bf16; take fp16"):
        check_device(make(precision="bf16"), torch.device("cuda"))
    check_device(make(precision="fp16"), torch.device("cuda"))


def test_only_fp16_scales_its_loss():
    """float32 and bfloat16 share their range of exponents and need no scaling."""
    assert create_scaler(make(), CPU) is None
    assert create_scaler(make(precision="bf16"), CPU) is None
    assert create_scaler(make(precision="fp16"), CPU).is_enabled()


def test_autocast_computes_in_the_precision_asked_for():
    """A product inside the context is bfloat16; with fp32 nothing changes."""
    a = torch.rand(2, 2)
    with autocast(make(precision="bf16"), CPU):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(make(), CPU):
        assert (a @ a).dtype == torch.float32


def test_what_is_set_for_a_run_is_put_back():
    """Threads, determinism, cuDNN's search and the generator are afterwards what they were."""

    def now():
        return (
            torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark, torch.get_rng_state().tolist(),
        )  # fmt: skip

    before = now()
    with repeatable(make(deterministic=False, threads=1), CPU):
        assert torch.backends.cudnn.benchmark
        assert not torch.are_deterministic_algorithms_enabled()
        reseed(5, CPU)
        first = torch.rand(1)
        reseed(5, CPU)
        assert torch.equal(torch.rand(1), first)
    with repeatable(make(), CPU):
        assert torch.are_deterministic_algorithms_enabled()
    assert now() == before


def test_bf16_trains_and_differs_from_fp32(tiny_set, config, tmp_path):
    """A run in bf16 gives finite weights in float32 that are near the ones of fp32 and not the same."""
    short = config.model_validate({**config.model_dump(), "epochs": 1, "keep": "last"})
    half = config.model_validate({**short.model_dump(), "precision": "bf16"})
    full, low = (load_checkpoint(train(c, tiny_set, tmp_path / c.precision)) for c in (short, half))
    a, b = full.trunk.net.conv_stem.weight, low.trunk.net.conv_stem.weight
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a - b).abs().max() < 0.05 * a.abs().max()


@pytest.mark.parametrize("robust", ["gradient_norm", "pgd"])
def test_robust_training_works_in_bf16(tiny_set, config, tmp_path, robust):
    """The penalty's second pass and the engine's gradients go with autocast; the weights stay finite."""
    half = {"precision": "bf16", "robust": robust, "epochs": 1}
    low = config.model_validate({**config.model_dump(), **half})
    model = load_checkpoint(train(low, tiny_set, tmp_path))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def stepper(precision="fp32", **options):
    """Return a stepper on a small model, with a loss scale of its own."""
    config = make(precision=precision, loss="l1", **options)
    model = create_model("timm_regressor", backbone="test_efficientnet", hidden=8)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10) if precision == "fp16" else None
    training = Training(model, create_optimiser(model, config), {}, {}, CPU, scaler)
    return Stepper(config, model, training)


def test_a_scaled_step_is_the_step(monkeypatch):
    """Loss scaling by a power of two changes neither the gradient norm nor the update."""
    crops, labels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.rand(4)
    # Both in float32: what is compared is the scaling.
    monkeypatch.setattr("iqa_harness.training.step.autocast", lambda config, device: nullcontext())
    plain, scaled = stepper(), stepper("fp16")
    results = [one(crops, labels, list("abcd")) for one in (plain, scaled)]
    assert results[0].gradient_norm == pytest.approx(results[1].gradient_norm, rel=1e-5)
    for a, b in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_an_overflow_leaves_the_step_out_and_lowers_the_scale():
    """A gradient not finite under loss scaling updates nothing; at a scale below one training ends."""
    one = stepper("fp16")
    scaler = one.training.scaler
    hook = one.model.head.linear.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = one.model.head.mlp[0].weight.clone()
    crops, labels = torch.rand(4, 3, 32, 32), torch.rand(4)
    one(crops, labels, list("abcd"))
    assert torch.equal(one.model.head.mlp[0].weight, before)
    assert scaler.get_scale() == 2.0**9
    with pytest.raises(NotFinite, match="overflow fp16"):
        for _ in range(12):
            one(crops, labels, list("abcd"))
    hook.remove()


def test_the_loss_scale_survives_a_saved_state(tmp_path):
    """Scale and growth count of the scaler come back with the state."""
    one = stepper("fp16")
    one(torch.rand(2, 3, 32, 32), torch.rand(2), ["a", "b"])
    one.training.scaler.update(2.0**7)
    progress = Progress(
        identity="x", log=({"epoch": 0, "loss": None, "val_srocc": None, "seconds": 0},), best_epoch=0
    )
    save_state(tmp_path / "state", progress, Partway(steps=1), one.training)
    other = stepper("fp16")
    load_state(tmp_path / "state", "x").restore(other.training)
    assert other.training.scaler.get_scale() == 2.0**7
    assert torch.equal(other.model.head.linear.weight, one.model.head.linear.weight)
