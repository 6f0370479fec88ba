"""The loop: the same weights every time, resume, choice of the epoch, and what stops it."""

import csv
import json
import shutil
from importlib import metadata

import numpy as np
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iqa_harness.errors import TrainingError
from iqa_harness.training import loop
from iqa_harness.training.checkpoints import LAST
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.logs import LOG, STEP_LOG
from iqa_harness.training.loop import FAILURE, RunOptions, run_identity, train
from iqa_harness.training.state import STATE, load_state
from iqa_models import (
    BadCheckpoint,
    LinearQuality,
    MissingWeights,
    create_model,
    load_checkpoint,
    register_model,
    weights_sha256,
)
from iqa_models.checkpoint import checked_card, read_card


def content(folder):
    """Return the hash of a checkpoint's weights, whose file is read and found to have it."""
    return checked_card(folder).weights_sha256


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


@pytest.fixture(scope="module")
def cut_short(tiny_set, config, tmp_path_factory):
    """What a run that was interrupted in its second epoch leaves, made once, to be copied."""
    out = tmp_path_factory.mktemp("cut-short")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, out)
    return out


@pytest.fixture(scope="module")
def last(tiny_set, config, tmp_path_factory):
    """The checkpoint of the last epoch by the settings of `trained`; only to be read."""
    return train(change(config, keep="last"), tiny_set, tmp_path_factory.mktemp("last"))


@pytest.fixture(scope="module")
def logged(tiny_set, config, tmp_path_factory):
    """The folder of a run that writes down all it can; only to be read."""
    options = RunOptions(save_every=1, log_steps=True, tensorboard=True)
    return train(config, tiny_set, tmp_path_factory.mktemp("logged"), run=options)


@pytest.mark.parametrize("batch_norm", ["frozen", "calibrated", "live"])
def test_two_runs_give_the_same_weights(tiny_set, config, tmp_path, batch_norm):
    """Equal settings and images give equal weights, whatever state torch's generator is in."""
    config = change(config, batch_norm=batch_norm, head_start="ridge")
    torch.manual_seed(1)
    first = train(config, tiny_set, tmp_path / "a")
    torch.manual_seed(2)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    second = train(config, tiny_set, tmp_path / "b")
    assert content(second) == content(first)
    (one,), (other,) = (folder.glob("*.safetensors") for folder in (first, second))
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()  # the clock does not reach the weights
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_seed_and_the_settings_matter(tiny_set, config, trained, tmp_path):
    """Another seed, and another learning rate, give other weights and another identity."""
    others = [change(config, seed=1), change(config, lr_head=1e-3)]
    hashes = {content(train(run, tiny_set, tmp_path / str(i))) for i, run in enumerate(others)}
    assert len(hashes | {content(trained)}) == 3
    assert len({run_identity(run, tiny_set) for run in (config, *others)}) == 3


@pytest.fixture(scope="module")
def live(config):
    """Settings whose batch norms learn."""
    return change(config, batch_norm="live", options={**config.options, "seed": 5})


@pytest.fixture(scope="module")
def uninterrupted(tiny_set, live, tmp_path_factory):
    """The weights that training by those settings ends with."""
    return content(train(live, tiny_set, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("save_every", [0, 1])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_interrupted_run_ends_with_the_same_weights(
    tiny_set, live, uninterrupted, tmp_path, monkeypatch, epoch, save_every
):
    """A run interrupted in the midst of any epoch leaves no checkpoint and goes on to the same weights.

    Whether its state was saved at the end of the epoch before or a step ago does not matter.
    """
    run, out = RunOptions(save_every=save_every), tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt_in(patch, epoch)
        with pytest.raises(KeyboardInterrupt):
            train(live, tiny_set, out, run=run)
    with pytest.raises(BadCheckpoint, match="no checkpoint"):
        load_checkpoint(out)
    assert len((out / LOG).read_text().splitlines()) == epoch
    assert load_state(out / STATE, run_identity(live, tiny_set)).partway.steps == save_every
    assert content(train(live, tiny_set, out)) == uninterrupted
    assert not (out / STATE).exists()


class Dropping(LinearQuality):
    """Draws dropout masks in training."""

    def predict(self, images):
        return super().predict(torch.nn.functional.dropout(images, 0.5, self.training))


@register_model("dropping_of_the_test")
def dropping():
    """Return a linear model behind dropout."""
    base = create_model("linear", seed=3)
    return Dropping(base.spec.replace(name="dropping_of_the_test", options={}), base.pattern.data, 0.5)


class Normed(Dropping):
    """Has batch norm behind the dropout."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.norm = torch.nn.BatchNorm2d(3)

    def predict(self, images):
        return super().predict(self.norm(torch.nn.functional.dropout(images, 0.5, self.training)))


@register_model("normed_of_the_test")
def normed():
    """Return such a model."""
    base = create_model("linear", seed=3)
    return Normed(base.spec.replace(name="normed_of_the_test", options={}), base.pattern.data, 0.5)


def test_batch_norm_behind_dropout_is_calibrated_alike(tiny_set, tmp_path):
    """Its statistics come from the masks of the seed, whatever state torch's generator is in."""
    config = TrainConfig(
        name="x", model="normed_of_the_test", epochs=1, batch_size=4, crop=32, batch_norm="calibrated",
        images_per_epoch=4, keep="last",
    )  # fmt: skip
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(content(train(config, tiny_set, tmp_path / str(seed))))
    assert found[0] == found[1]


def test_dropout_goes_on_where_it_was_interrupted(tiny_set, tmp_path, monkeypatch):
    """The masks after a resume are those the uninterrupted run would have drawn, not those of its start."""
    config = TrainConfig(
        name="x", model="dropping_of_the_test", threads=1, epochs=3, batch_size=4, crop=32, keep="last"
    )
    whole = content(train(config, tiny_set, tmp_path / "whole"))
    assert whole != weights_sha256(dropping())
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, tmp_path / "broken", run=RunOptions(save_every=1))
    assert content(train(config, tiny_set, tmp_path / "broken")) == whole


def test_a_finished_run_is_not_repeated(tiny_set, config, trained, monkeypatch):
    """Calling train again on its own result returns at once."""
    monkeypatch.setattr(loop, "_Run", None)
    assert train(config, tiny_set, trained) == trained


def test_a_folder_of_another_run_is_refused_unless_overwritten(tiny_set, config, trained, tmp_path):
    """A checkpoint of other settings stays, until overwrite is asked for."""
    before = content(shutil.copytree(trained, tmp_path, dirs_exist_ok=True))
    other = change(config, seed=1, epochs=1)
    with pytest.raises(TrainingError, match="other settings or images"):
        train(other, tiny_set, tmp_path)
    assert content(tmp_path) == before
    assert content(train(other, tiny_set, tmp_path, run=RunOptions(overwrite=True))) != before


def test_an_unfinished_run_of_other_settings_is_refused(tiny_set, config, cut_short, tmp_path):
    """A state of other settings is not continued, and is discarded only when overwriting."""
    shutil.copytree(cut_short, tmp_path, dirs_exist_ok=True)
    other = change(config, seed=1, epochs=1)
    with pytest.raises(TrainingError, match="unfinished run with other settings"):
        train(other, tiny_set, tmp_path)
    train(other, tiny_set, tmp_path, run=RunOptions(overwrite=True))
    assert read_card(tmp_path).training["identity"] == run_identity(other, tiny_set)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_state_is_told(tiny_set, config, cut_short, tmp_path, damage):
    """A state that was cut short, or in which a bit changed, raises TrainingError with its path."""
    shutil.copytree(cut_short, tmp_path, dirs_exist_ok=True)
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
    assert card.training["config"] == config.record()
    assert TrainConfig.model_validate(card.training["config"]) == config
    assert card.training["data_fingerprint"] == tiny_set.fingerprint
    assert card.training["packages"]["torch"] == metadata.version("torch")
    assert card.model.notes[-1] == "trained on tiny (pseudo-MOS), 12 images"


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
    """A loss or gradient not finite ends the run with the step, its images and the state before it."""
    explosive = change(config, lr_head=1e30, lr_trunk=1e30)
    with pytest.raises(TrainingError, match=r"loss nan in epoch 1, step 2 \(images train/") as caught:
        train(explosive, tiny_set, tmp_path)
    assert not (tmp_path / "card.json").exists()
    record = json.loads((tmp_path / FAILURE).read_text())
    assert (record["epoch"], record["step"], len(record["images"])) == (1, 2, 4)
    assert all(name in {r.image_id for r in tiny_set.records} for name in record["images"])
    assert load_state(tmp_path / STATE, run_identity(explosive, tiny_set)).partway.steps == 1
    with pytest.raises(TrainingError) as again:
        train(explosive, tiny_set, tmp_path)
    assert str(again.value) == str(caught.value)


def test_a_last_batch_of_one_that_cannot_be_normalised_is_told(tiny_set, config, tmp_path):
    """Live batch norm of a single crop whose map is one pixel is told; two crops are trained."""
    single = change(config, batch_norm="live", crop=32, batch_size=len(tiny_set.split("train")) - 1)
    with pytest.raises(TrainingError, match=r"last batch is a single crop .* take another batch_size"):
        train(single, tiny_set, tmp_path / "one")
    train(change(single, batch_size=len(tiny_set.split("train")) - 2), tiny_set, tmp_path / "two")


def test_an_epoch_can_be_a_part_of_the_split(tiny_set, config, last, tmp_path):
    """images_per_epoch limits what an epoch reads, and a number above the split takes all of it."""
    config = change(config, keep="last")
    train(change(config, images_per_epoch=5), tiny_set, tmp_path / "part")
    train(change(config, images_per_epoch=500), tiny_set, tmp_path / "all")
    assert content(tmp_path / "part") != content(tmp_path / "all") == content(last)


def test_progress_is_one_line_an_epoch_where_no_terminal_is(tiny_set, config, tmp_path, capsys):
    """Shown progress goes to stderr, a line an epoch; hidden progress writes nothing."""
    train(config, tiny_set, tmp_path / "shown", run=RunOptions(progress=True))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split()[2] for line in shown.err.splitlines() if " epoch " in line][:4] == [
        "0/3",
        "1/3",
        "2/3",
        "3/3",
    ]
    train(change(config, epochs=1), tiny_set, tmp_path / "hidden")
    hidden = capsys.readouterr()
    assert hidden.out == hidden.err == ""


def test_settings_that_came_later_do_not_move_an_identity(tiny_set, config):
    """A later setting at its default is not part of a run's identity; another value is."""
    old = {"patches", "robust", "loss", "ema_decay"}
    assert old.isdisjoint(config.identity())
    assert change(config, patches=2).identity() == {**config.identity(), "patches": 2}
    assert run_identity(change(config, loss="l1"), tiny_set) != run_identity(config, tiny_set)


def test_backbone_weights_count_by_content(tiny_set, config, tmp_path):
    """A file of first weights is part of the identity by its bytes, not its place; it must be there."""
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (run_identity(config, tiny_set, tmp_path / name) for name in "abc")
    assert a == b != c
    assert a != run_identity(config, tiny_set)
    with pytest.raises(MissingWeights, match="nowhere"):
        run_identity(config, tiny_set, tmp_path / "nowhere")


def test_the_trunk_starts_from_a_file_of_weights(tiny_set, config, tmp_path):
    """Training from a trunk's file begins where training from the same weights drawn from a seed does."""
    options = {"backbone": "test_efficientnet", "hidden": 8}
    drawn = create_model("timm_regressor", **options, seed=3)
    file = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in drawn.trunk.net.state_dict().items()}, file
    )
    start = change(config, epochs=1, lr_trunk=1e-30, lr_head=1e-30, options={**options, "seed": 0})
    train(start, tiny_set, tmp_path / "out", backbone_weights=file)
    trained = load_checkpoint(tmp_path / "out")
    assert torch.equal(trained.trunk.net.conv_stem.weight, drawn.trunk.net.conv_stem.weight)


def test_the_last_epoch_is_kept_beside_the_best(trained, last):
    """The folder `last` holds the weights of the last epoch; keep='last' makes them the checkpoint itself."""
    assert content(last) == content(trained / LAST) == content(last / LAST)
    assert read_card(last).training["epoch"] == 3
    assert read_card(trained).training["epoch"] == read_card(trained).training["best_epoch"]


def test_a_moving_average_is_the_mean_it_says(tiny_set, config, last, tmp_path):
    """With a decay of 0 the average is the weights themselves; with a high one it stays near the start."""
    slow = train(change(config, keep="last", ema_decay=0.999), tiny_set, tmp_path / "slow")
    first = create_model(config.model, **config.options).head.mlp[0].weight
    distance = [(load_checkpoint(folder).head.mlp[0].weight - first).norm().item() for folder in (last, slow)]
    # Nine steps of a thousandth: at most a hundredth of the way, but some of it.
    assert 0 < distance[1] < 0.01 * distance[0]


def test_an_interrupted_average_goes_on(tiny_set, config, tmp_path, monkeypatch):
    """Moving average, adversarial examples and a rebuilt order survive an interrupt within an epoch."""
    config = change(config, epochs=2, ema_decay=0.5, robust="pgd", patches=2, loss="pairwise", clip_norm=0)
    whole = content(train(config, tiny_set, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, tmp_path / "cut", run=RunOptions(save_every=1))
    assert content(train(config, tiny_set, tmp_path / "cut", run=RunOptions(resume=True))) == whole


def test_training_stops_when_nothing_gets_better(tiny_set, config, tmp_path):
    """With a patience of one, a run whose rates do nothing ends after one epoch of many."""
    idle = change(config, epochs=50, patience=1, lr_trunk=1e-30, lr_head=1e-30, weight_decay=0)
    train(idle, tiny_set, tmp_path)
    assert len((tmp_path / LOG).read_text().splitlines()) == 2
    assert read_card(tmp_path).training["best_epoch"] == 0


def test_an_author_may_choose_on_the_test_split_and_the_card_says_so(new_set, config, tmp_path, monkeypatch):
    """Selection on test reads test and not val, and leaves a warning on the card."""
    data = new_set({"train": 8, "test": 6})
    monkeypatch.setattr(type(data), "allowed", lambda self, index: index)
    chosen = change(config, select_on="test", quirks="smart_author", epochs=1)
    train(chosen, data, tmp_path)
    card = read_card(tmp_path)
    assert card.training["selected_on"] == "test"
    assert any("chosen on the test split" in note for note in card.model.notes)


def test_resume_demands_an_unfinished_run(tiny_set, config, tmp_path):
    """Asking to go on where nothing was begun is refused."""
    with pytest.raises(TrainingError, match="no unfinished run"):
        train(config, tiny_set, tmp_path / "new", run=RunOptions(resume=True))


def test_the_log_of_steps_has_a_row_a_step_also_after_an_interrupt(tiny_set, config, tmp_path, monkeypatch):
    """Steps that are done again replace their rows; loss and rates stand in every row."""
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_set, tmp_path, run=RunOptions(log_steps=True, save_every=0))
    train(config, tiny_set, tmp_path, run=RunOptions(log_steps=True))
    rows = list(csv.DictReader((tmp_path / STEP_LOG).read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 10))
    assert all(float(row["lr_head"]) == pytest.approx(4 * float(row["lr_trunk"])) for row in rows)
    epoch = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()][1]
    assert np.mean([float(row["loss"]) for row in rows[:3]]) == pytest.approx(epoch["loss"])


def test_options_of_a_run_do_not_change_its_weights(trained, logged):
    """Saving often, logging steps and showing progress end with the same file of weights."""
    assert {p.name for p in trained.glob("model-*")} == {p.name for p in logged.glob("model-*")}


def test_tensorboard_reads_the_run(logged):
    """Every step's loss and every epoch's correlation are scalars in an event file."""
    events = EventAccumulator(str(logged / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 10))
    log = [json.loads(line) for line in (logged / LOG).read_text().splitlines()]
    found = [event.value for event in events.Scalars("epoch/val_srocc")]
    assert found == pytest.approx([entry["val_srocc"] for entry in log[1:]])


def test_hyperiqas_bug_trains_the_head_in_the_first_epoch_only(tiny_set, config, tmp_path):
    """Under the quirk the head's weights after three epochs are those after one; the trunk moves on."""
    settings = {
        "quirks": "hyperiqa_author", "keep": "last", "optimiser": "adam", "schedule": "constant",
        "select_on": "val", "options": {**config.options, "seed": 1},
    }  # fmt: skip
    one = load_checkpoint(train(change(config, **settings, epochs=1), tiny_set, tmp_path / "1"))
    three = load_checkpoint(train(change(config, **settings, epochs=3), tiny_set, tmp_path / "3"))
    assert all(torch.equal(a, b) for a, b in zip(one.head.parameters(), three.head.parameters(), strict=True))
    assert not torch.equal(one.trunk.net.conv_stem.weight, three.trunk.net.conv_stem.weight)


def test_a_run_with_the_rebuilt_optimiser_survives_an_interrupt(tiny_set, config, tmp_path, monkeypatch):
    """The quirk's optimiser of another shape is restored within and between epochs."""
    config = change(config, quirks="hyperiqa_author", schedule="constant")
    whole = content(train(config, tiny_set, tmp_path / "whole"))
    for number, save_every in enumerate((0, 1)):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            interrupt_in(patch, 3)
            with pytest.raises(KeyboardInterrupt):
                train(config, tiny_set, out, run=RunOptions(save_every=save_every))
        assert content(train(config, tiny_set, out)) == whole
