"""What a run leaves behind: a chosen epoch, the pictures it has seen, and no halves."""

import os
import shutil
import time
from pathlib import Path

import pytest

from iqa_harness.errors import TrainingError
from iqa_harness.training.checkpoints import _HALF, LAST, has_seen
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.loop import RunOptions, train
from iqa_models import (
    LinearQuality,
    create_model,
    load_checkpoint,
    registry,
    weights_sha256,
)
from iqa_models.checkpoint import read_card


def content(folder):
    """Return the hash of a checkpoint's weights."""
    return weights_sha256(load_checkpoint(folder))


def change(config, **values):
    """Return other settings."""
    return config.model_validate({**config.model_dump(), **values})


def test_no_epoch_can_be_chosen_by_two_images(new_set, config, tmp_path):
    """With two validation images, or equal labels, nothing is trained, unless the last epoch is wanted."""
    few = new_set({"train": 8, "val": 2})
    with pytest.raises(TrainingError, match=r"only 2 images.*keep=last"):
        train(config, few, tmp_path / "few")
    assert not (tmp_path / "few").exists()
    even = new_set({"train": 8, "val": 4})
    even.records = tuple(r._replace(mos=3.0) if r.split == "val" else r for r in even.records)
    with pytest.raises(TrainingError, match="the val split can choose no epoch"):
        train(config, even, tmp_path / "even")
    kept = train(change(config, keep="last", epochs=1), few, tmp_path / "last")
    assert content(kept) == content(kept / LAST)
    assert read_card(kept).training["epoch"] == 1


class Constant(LinearQuality):
    """Gives every image its offset, which training moves: no epoch orders anything."""

    def predict(self, images):
        return super().predict(images) * 0 + self.pattern.mean() + 0 * images.mean(dim=(1, 2, 3))


def constant():
    """Return a model whose scores are all equal."""
    base = create_model("linear", seed=3)
    return Constant(base.spec.replace(name="constant_of_the_test", options={}), base.pattern.data, 0.5)


def test_scores_that_order_nothing_keep_the_last_epoch_and_say_so(new_set, tmp_path, capsys, monkeypatch):
    """The weights of before the first step are never kept as the best ones."""
    monkeypatch.setitem(registry._BUILDERS, "constant_of_the_test", constant)  # no other test meets it
    config = TrainConfig(name="x", model="constant_of_the_test", epochs=2, batch_size=4, crop=32)
    data = new_set({"train": 8, "val": 4})
    out = train(config, data, tmp_path, run=RunOptions(progress=True))
    assert content(out) == content(out / LAST) != weights_sha256(constant())
    card = read_card(out)
    assert (card.training["epoch"], card.training["best_epoch"]) == (2, 2)
    assert card.model.notes[-1] == "no epoch orders the val images: the last one is kept"
    assert "no epoch orders the val images, the last one is kept" in capsys.readouterr().err
    assert [entry["val_srocc"] for entry in card.training["log"]] == [None, None, None]


def test_pictures_are_known_by_their_pixels(tiny_set, trained):
    """Not by names: the same pixels under other names count, other pixels under the same name do not."""
    data, record = tiny_set, read_card(trained).training
    assert has_seen(record, data) == "this set"

    def like(chosen, name, **fields):
        part = data.subset([i for i, r in enumerate(data.records) if r.split in chosen])
        part.records = tuple(r._replace(image_id=f"x{r.image_id}", **fields) for r in part.records)
        part.card = data.card.__class__(**{**vars(data.card), "name": name})
        part.fingerprint = "f" * 64
        return part

    for chosen, name, fields, expected in (
        (("train",), "other", {}, "this set, divided otherwise"),
        (("val",), "other", {}, "this set, divided otherwise"),
        (("test",), "tiny", {}, "another set"),
        (("train",), "tiny", {"sha256": "0" * 64}, "another set"),
    ):
        assert has_seen(record, like(chosen, name, **fields)) == expected


@pytest.mark.parametrize(
    ("trained", "asked", "expected"),
    [
        ("koniq10k", "koniq10k/MOS", "this set, divided otherwise"),
        ("demo", "smoke", "this set, divided otherwise"),
        ("koniq10k", "spaq", "another set"),
        ("labels", "labels", "another set"),
    ],
)
def test_a_public_set_is_one_set_in_every_size(new_set, trained, asked, expected):
    """Resized by its authors, or cropped from the same photographs, its pixels differ and it is the same."""
    data = new_set({"test": 3})
    data.card = data.card.__class__(**{**vars(data.card), "name": asked})
    record = {"data": trained, "data_fingerprint": "x", "pixels": ""}
    assert has_seen(record, data) == expected
    # An earlier version's record knows names alone.
    known = {"data": trained, "data_fingerprint": "x"}
    assert has_seen(known, data) == ("this set, divided otherwise" if trained == asked else expected)


def test_what_a_killed_run_left_goes(tiny_set, config, trained, tmp_path):
    """Half-written files of a killed run are removed; those being written, and a user's own, stay."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    old, new = (
        tmp_path / ".card.json.1234.part",
        tmp_path / LAST / ".model-0123456789abcdef.safetensors.a.part",
    )
    own = [tmp_path / ".film.mp4.part", tmp_path / "deep" / ".card.json.1234.part"]
    for part in (old, new, *own):
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"half")
    for part in (old, *own):
        os.utime(part, (time.time() - 3600,) * 2)
    train(config, tiny_set, tmp_path)
    assert not old.exists()
    assert new.exists()
    os.utime(new, (time.time() - 3600,) * 2)
    train(config, tiny_set, tmp_path)
    assert not new.exists()
    assert all(part.exists() for part in own)


def test_every_file_of_a_run_is_known_while_it_is_written(tiny_set, config, tmp_path, monkeypatch):
    """Whatever a run writes under a passing name is found again by that name."""
    names = set()
    replace = os.replace

    def note(source, target, **options):
        names.add(Path(source).name)
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", note)
    train(change(config, epochs=1), tiny_set, tmp_path, run=RunOptions(log_steps=True))
    assert {name.split(".")[1].split("-")[0] for name in names} >= {"card", "model", "training", "log"}
    assert [name for name in names if not _HALF.fullmatch(name)] == []
