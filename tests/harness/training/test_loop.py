"""The loop: the same weights every time, resume, choice of the epoch, and what stops it."""

import json
from importlib import metadata

import pytest
import torch

from iqa_harness.errors import TrainingError
from iqa_harness.training import loop
from iqa_harness.training.loop import LOG, run_identity, train
from iqa_harness.training.state import STATE
from iqa_models import BadCheckpoint, create_model, load_checkpoint, weights_sha256
from iqa_models.checkpoint import read_card


def content(folder):
    """Return the hash of a checkpoint's weights."""
    return weights_sha256(load_checkpoint(folder))


def change(config, **values):
    """Return other settings."""
    return config.model_validate({**config.model_dump(), **values})


def interrupt_in(monkeypatch, epoch):
    """Raise KeyboardInterrupt in the second step of an epoch."""
    real = loop.train_batches

    def batches(*args, **options):
        for number, batch in enumerate(real(*args, **options)):
            if options["epoch"] == epoch and number == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loop, "train_batches", batches)


@pytest.mark.parametrize("batch_norm", ["frozen", "calibrated", "live"])
def test_two_runs_give_the_same_weights(tiny_set, config, tmp_path, batch_norm):
    """Equal settings and images give equal weights, whatever state torch's generator is in."""
    config = change(config, batch_norm=batch_norm, head_start="ridge")
    torch.manual_seed(1)
    first = content(train(config, tiny_set, tmp_path / "a"))
    torch.manual_seed(2)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    assert content(train(config, tiny_set, tmp_path / "b")) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_models_own_losses_are_trained_with():
    """The auxiliary losses of an SRM neck come with its scores; a model without any adds nothing."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    srm = create_model("srm_efficientnet_lite0", protocol="native").train()
    scores, losses = loop._forward(srm, images)
    assert scores.shape == (2,)
    assert len(losses) == len(srm.forward_with_losses(images).losses) > 0
    assert all(value.requires_grad for value in losses)
    assert loop._forward(create_model("linear"), images)[1] == []


def test_the_seed_and_the_settings_matter(tiny_set, config, tmp_path):
    """Another seed, and another learning rate, give other weights and another identity."""
    runs = [config, change(config, seed=1), change(config, lr_head=1e-3)]
    hashes = {content(train(run, tiny_set, tmp_path / str(i))) for i, run in enumerate(runs)}
    assert len(hashes) == 3
    assert len({run_identity(run, tiny_set) for run in runs}) == 3


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_interrupted_run_ends_with_the_same_weights(tiny_set, config, tmp_path, monkeypatch, epoch):
    """A run interrupted in the midst of any epoch leaves no checkpoint and goes on to the same weights."""
    config = change(config, batch_norm="live", options={**config.options, "seed": 5})
    whole = content(train(config, tiny_set, tmp_path / "whole"))
    out = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt_in(patch, epoch)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, out)
    with pytest.raises(BadCheckpoint, match="no checkpoint"):
        load_checkpoint(out)
    assert len((out / LOG).read_text().splitlines()) == epoch
    assert content(train(config, tiny_set, out)) == whole
    assert not (out / STATE).exists()


def test_a_finished_run_is_not_repeated(tiny_set, config, tmp_path, monkeypatch):
    """Calling train again on its own result returns at once."""
    train(config, tiny_set, tmp_path)
    monkeypatch.setattr(loop, "_Run", None)
    assert train(config, tiny_set, tmp_path) == tmp_path


def test_a_folder_of_another_run_is_refused_unless_overwritten(tiny_set, config, tmp_path):
    """A checkpoint of other settings stays, until overwrite is asked for."""
    before = content(train(config, tiny_set, tmp_path))
    other = change(config, seed=1)
    with pytest.raises(TrainingError, match="other settings or images"):
        train(other, tiny_set, tmp_path)
    assert content(tmp_path) == before
    assert content(train(other, tiny_set, tmp_path, overwrite=True)) != before


def test_an_unfinished_run_of_other_settings_is_refused(tiny_set, config, tmp_path, monkeypatch):
    """A state of other settings is not continued, and is discarded only when overwriting."""
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, tmp_path)
    other = change(config, seed=1)
    with pytest.raises(TrainingError, match="unfinished run with other settings"):
        train(other, tiny_set, tmp_path)
    train(other, tiny_set, tmp_path, overwrite=True)
    assert read_card(tmp_path).training["identity"] == run_identity(other, tiny_set)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_state_is_told(tiny_set, config, tmp_path, monkeypatch, damage):
    """A state that was cut short, or in which a bit changed, raises TrainingError with its path."""
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, tmp_path)
    state = tmp_path / STATE
    raw = bytearray(state.read_bytes())
    raw[-1] ^= 1
    state.write_bytes(raw[:100] if damage == "cut" else raw)
    with pytest.raises(TrainingError, match=STATE):
        train(config, tiny_set, tmp_path)


def test_training_learns_and_says_how(tiny_set, config, tmp_path):
    """The model orders the validation images; card and log record settings, data, epochs and versions."""
    config = change(config, epochs=6, batch_norm="calibrated")
    train(config, tiny_set, tmp_path)
    card = read_card(tmp_path)
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == list(range(7))
    best = max(log, key=lambda entry: (entry["val_srocc"], -entry["epoch"]))
    assert best["val_srocc"] > 0.7
    assert card.training["best_epoch"] == best["epoch"]
    assert card.training["config"] == config.model_dump(mode="json")
    assert card.training["data_fingerprint"] == tiny_set.fingerprint
    assert card.training["packages"]["torch"] == metadata.version("torch")
    assert card.model.notes[-1] == "trained on tiny (pseudo-MOS), 12 images"


def test_the_clock_does_not_reach_the_weights(tiny_set, config, tmp_path):
    """The files of weights of two runs are equal bytes, though their logs hold other times."""
    files = []
    for name in ("a", "b"):
        files += train(config, tiny_set, tmp_path / name).glob("*.safetensors")
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()


def test_any_registered_model_can_be_trained(tiny_set, config, tmp_path):
    """A model without a trunk trains at the head's rate; a ridge start without a pooled head is refused."""
    config = change(config, model="linear", options={})
    train(config, tiny_set, tmp_path / "linear")
    assert load_checkpoint(tmp_path / "linear", expect="linear")
    with pytest.raises(TrainingError, match="'linear' has no pooled head"):
        train(change(config, head_start="ridge"), tiny_set, tmp_path / "ridge")


@pytest.mark.parametrize("missing", ["train", "val"])
def test_an_empty_split_is_told(new_set, config, tmp_path, missing):
    """Without training or validation images there is nothing to learn or choose from."""
    data = new_set({split: 4 for split in ("train", "val") if split != missing})
    with pytest.raises(TrainingError, match=f"'tiny' has no {missing} split"):
        train(config, data, tmp_path)


def test_a_loss_that_explodes_stops_the_run(tiny_set, config, tmp_path):
    """A loss or gradient that is not finite raises TrainingError instead of a useless checkpoint."""
    with pytest.raises(TrainingError, match="gradient norm"):
        train(change(config, lr_head=1e30, lr_trunk=1e30), tiny_set, tmp_path)
    assert not (tmp_path / "card.json").exists()


def test_an_epoch_can_be_a_part_of_the_split(tiny_set, config, tmp_path):
    """images_per_epoch limits what an epoch reads, and a number above the split takes all of it."""
    train(change(config, images_per_epoch=5), tiny_set, tmp_path / "part")
    train(change(config, images_per_epoch=500), tiny_set, tmp_path / "all")
    assert content(tmp_path / "part") != content(tmp_path / "all")


def test_progress_is_one_line_an_epoch_where_no_terminal_is(tiny_set, config, tmp_path, capsys):
    """Shown progress goes to stderr, a line an epoch; hidden progress writes nothing."""
    train(config, tiny_set, tmp_path / "shown", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split()[2] for line in shown.err.splitlines() if " epoch " in line][:4] == [
        "0/3",
        "1/3",
        "2/3",
        "3/3",
    ]
    train(config, tiny_set, tmp_path / "hidden")
    hidden = capsys.readouterr()
    assert hidden.out == hidden.err == ""
