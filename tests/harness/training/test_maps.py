"""Training behind a frozen trunk on maps computed once: the steps through the trunk, and what is refused."""

import copy

import pytest
import torch

from iqa_harness.errors import TrainingError
from iqa_harness.training import loop
from iqa_harness.training.batches import epoch_order, train_batches, unit_labels
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.figures import split_srocc
from iqa_harness.training.logs import LOG
from iqa_harness.training.loop import RunOptions, train
from iqa_harness.training.maps import StoredMaps
from iqa_harness.training.optimisers import create_optimiser
from iqa_harness.training.prepare import freeze_trunk, training_mode
from iqa_harness.training.state import EpochLog, Training
from iqa_harness.training.step import Stepper
from iqa_harness.training.trunks import encode
from iqa_models import create_model, load_checkpoint, weights_sha256

MODELS = {
    "timm_regressor": {"backbone": "test_efficientnet", "hidden": 8},
    "srm_efficientnet_lite0": {"protocol": "native", "width": 16, "heads": 2, "pretrained": "none"},
    "hyperiqa_efficientnet_lite0": {"fusion": "afa", "protocol": "native"},
}
"""Registered models with a trunk, one a family."""


def frozen(model, **more):
    """Return settings that train a head behind a frozen trunk."""
    fixed = {"name": "head", "epochs": 2, "batch_size": 4, "crop": 32, "trunk": "frozen"}
    return TrainConfig(model=model, options=MODELS[model], **fixed, **more)


def one_step(config, model, data, *, cached):
    """Take one step on the first batch; return the gradients of everything that learns."""
    freeze_trunk(config, model)
    device = torch.device("cpu")
    training = Training(model, create_optimiser(model, config), best={}, average={}, device=device)
    stepper = Stepper(config, model, training)
    train_set = data.split("train")
    order = epoch_order(train_set.records, 0, 0, 4)
    (batch,) = train_batches(train_set, order, seed=0, epoch=0, batch_size=4, crop=32, flip=True)
    crops = batch.crops
    if cached:
        model.eval()
        stored = StoredMaps(4)
        with torch.no_grad():
            stored.add(encode(model, crops))
        crops = stored.take(range(4))
    training_mode(model, live_batch_norm=False, frozen_trunk=True)
    torch.manual_seed(0)  # dropout
    stepper(crops, unit_labels(train_set)[batch.indices], ["a", "b", "c", "d"])
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_maps_is_the_step_through_the_trunk(tiny_set, name):
    """Equal gradients of the head, equal weights after the step, and a trunk that is what it was."""
    config = frozen(name)
    through = create_model(name, **MODELS[name])
    on_maps, before = copy.deepcopy(through), copy.deepcopy(through.trunk.state_dict())
    slopes = one_step(config, through, tiny_set, cached=False)
    cached = one_step(config, on_maps, tiny_set, cached=True)
    assert slopes.keys() == cached.keys()
    assert slopes
    assert not any(parameter.startswith("trunk.") for parameter in slopes)
    for parameter, slope in slopes.items():
        torch.testing.assert_close(cached[parameter], slope, rtol=1e-6, atol=1e-7)
    for key, value in through.state_dict().items():
        torch.testing.assert_close(on_maps.state_dict()[key], value, rtol=1e-6, atol=1e-7)
    for key, value in before.items():
        assert torch.equal(on_maps.trunk.state_dict()[key], value)
        assert torch.equal(through.trunk.state_dict()[key], value)


@pytest.mark.parametrize("name", MODELS)
def test_every_epoch_has_the_same_crops_in_another_order(new_set, tmp_path, monkeypatch, name):
    """The trunk sees each crop once; epochs shuffle them; a second training gives the same weights."""
    data = new_set({"train": 8, "val": 3}, side=64)
    seen = []
    real = Stepper.__call__

    def watched(self, crops, labels, ids):
        assert isinstance(crops, tuple)
        seen.extend(ids)
        return real(self, crops, labels, ids)

    monkeypatch.setattr(Stepper, "__call__", watched)
    config = frozen(name, cache_maps=True, images_per_epoch=6)
    first = train(config, data, tmp_path / "a")
    epochs = [[i.partition("/")[2] for i in seen if i.startswith(f"{epoch}/")] for epoch in (1, 2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    assert len(epochs[0]) == 6
    second = train(config, data, tmp_path / "b")
    assert weights_sha256(load_checkpoint(first)) == weights_sha256(load_checkpoint(second))


def test_the_epoch_is_chosen_by_the_scores_of_the_model(tiny_set, tmp_path):
    """SROCC on val from stored maps is that of the whole model on the whole images."""
    config = frozen("timm_regressor", cache_maps=True, head_start="ridge", keep="last")
    out = train(config, tiny_set, tmp_path / "a")
    last = EpochLog.model_validate_json((out / LOG).read_text().splitlines()[-1])
    assert last.val_srocc == split_srocc(load_checkpoint(out), tiny_set.split("val"))


def test_an_interrupted_run_ends_with_the_same_weights(tiny_set, tmp_path, monkeypatch):
    """Maps are made again, steps go on where they were."""
    config = frozen("timm_regressor", cache_maps=True)
    whole = train(config, tiny_set, tmp_path / "whole")
    real = Stepper.__call__
    calls = []

    def broken(self, *step):
        calls.append(step)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, *step)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", broken)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, tmp_path / "broken", run=RunOptions(save_every=1))
    again = train(config, tiny_set, tmp_path / "broken")
    assert weights_sha256(load_checkpoint(again)) == weights_sha256(load_checkpoint(whole))


def test_the_temporary_file_goes_with_the_maps():
    """Nothing is left of them, and what comes back is what went in, layout included."""
    stored = StoredMaps(2)
    maps = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    flat = torch.randn(2, 7)
    stored.add((maps, flat))
    found = stored.take([1, 0])
    assert torch.equal(found[0], maps.flip(0))
    assert torch.equal(found[1], flat.flip(0))
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    folder = stored._folder
    assert folder.exists()
    del stored
    assert not folder.exists()


def test_images_of_several_sizes_are_kept_apart():
    """Neighbours of one size come together."""
    stored = StoredMaps(3)
    stored.add((torch.ones(2, 1, 2, 2),))
    stored.add((torch.ones(1, 1, 3, 3),))
    assert [batch[0].shape for batch in stored.batches(8)] == [(2, 1, 2, 2), (1, 1, 3, 3)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trunk": "trained", "cache_maps": True}, "cache_maps: goes with trunk 'frozen'"),
        ({"batch_norm": "live"}, "a frozen trunk keeps its statistics"),
        ({"cache_maps": True, "robust": {"kind": "fgsm"}}, "needs the pixels of every step"),
    ],
)
def test_settings_that_contradict_each_other(changes, words):
    """They are refused before anything is read."""
    with pytest.raises(ValueError, match=words):
        TrainConfig.model_validate({**frozen("timm_regressor").model_dump(), **changes})


@pytest.mark.parametrize(
    ("model", "options", "cached", "words"),
    [
        ("linear", {}, False, "'linear' has none apart from its head"),
        ("hyperiqa_efficientnet_lite0", {"protocol": "random_crops:2"}, True, "one crop an image"),
        (
            "srm_efficientnet_lite0",
            {"protocol": "native", "kv_pooling": "always"},
            True,
            "stochastic in evaluation",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(tiny_set, tmp_path, model, options, cached, words):
    """The message says what to change; no folder is made."""
    fixed = {"name": "head", "epochs": 1, "batch_size": 4, "crop": 32, "trunk": "frozen"}
    config = TrainConfig(model=model, options=options, cache_maps=cached, **fixed)
    with pytest.raises(TrainingError, match=words):
        train(config, tiny_set, tmp_path / "a")


def test_maps_that_do_not_fit_on_the_disk_are_refused(monkeypatch):
    """Before the first is written, with both sizes."""
    stored = StoredMaps(10**13)
    with pytest.raises(TrainingError, match="point TMPDIR elsewhere"):
        stored.add((torch.ones(1, 1000),))
    assert loop.PROTOCOL == 1  # settings without these keys give the weights they gave


def test_the_identity_of_other_settings_is_what_it_was():
    """The new settings stand in it only where they differ from what was before them."""
    plain = TrainConfig(name="x", model="linear", epochs=1)
    assert not {"trunk", "cache_maps"} & plain.identity().keys()
    assert frozen("timm_regressor", cache_maps=True).identity()["trunk"] == "frozen"
