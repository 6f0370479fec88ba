"""`train` in Python: the weights, tables and refusals of the command."""

import functools

import pandas as pd
import pytest

from iqa_harness.api.train import show_training, train
from iqa_harness.errors import DataError, TrainingError
from iqa_harness.training.config import load_train_config
from iqa_models import load_checkpoint, weights_sha256

TINY = """
name = "tiny"
model = "timm_regressor"
options = { hidden = 8, backbone = "test_efficientnet" }
epochs = 1
batch_size = 3
crop = 32
"""
LINE = ("train", "tiny.toml", "--data", "own.csv", "--mos-range", "1", "5", "--set", "lr_head=1e-3")
DEEP = functools.reduce(lambda value, _: [value], range(300), 1)
SAME = {"data": "own.csv", "mos_range": (1.0, 5.0), "settings": {"lr_head": 1e-3}, "progress": False}


@pytest.fixture
def preset(own):
    """The settings beside the images."""
    (own / "tiny.toml").write_text(TINY)
    return own


def weights(folder):
    return weights_sha256(load_checkpoint(folder))


def table(path):
    return pd.read_parquet(path).drop(columns="seconds")


def test_the_command_and_the_function_train_the_same(cli, preset):
    """Equal weights and equal tables of seeds; an open set and settings as an object give them too."""
    code, out, err = cli(*LINE, "--seeds", "0,1", "--out", "a")
    assert code == 0, err
    found = train("tiny.toml", **SAME, seeds=[0, 1], out="b")
    assert [str(folder) for folder in found.folders] == ["b/seed-0", "b/seed-1"]
    assert out.splitlines()[:2] == ["a/seed-0", "a/seed-1"]
    for seed in (0, 1):
        assert weights(f"a/seed-{seed}") == weights(f"b/seed-{seed}")
    assert table("a/seeds.parquet").equals(table("b/seeds.parquet"))
    assert (preset / "a/seeds.csv").exists()
    config = load_train_config(preset / "tiny.toml")
    again = train(config, **{**SAME, "settings": ["lr_head=1e-3", "seed=1", "options.seed=1"]}, out="c")
    assert weights(again.folders[0]) == weights("a/seed-1")


def test_an_open_set_trains_as_its_name_does(preset, opened):
    """The object stands for the place; figures come with the checkpoint."""
    found = train("tiny.toml", data=opened, out="a", progress=False)
    named = train("tiny.toml", data="own.csv", mos_range=(1.0, 5.0), out="b", progress=False)
    assert weights(found.folders[0]) == weights(named.folders[0])
    (row,) = found.table.to_dict("records")
    assert (row["name"], row["seed"], row["folder"]) == ("tiny", 0, "a")
    (figures,) = named.figures
    assert row["test_srocc"] == figures.value("test", "srocc")
    assert "  a" in repr(found)
    assert "<table" in found._repr_html_()


def test_silence_is_silent(preset, capfd):
    """Without progress nothing is written to either stream."""
    train("tiny.toml", **SAME)
    assert capfd.readouterr() == ("", "")
    train("tiny.toml", **{**SAME, "data": pd.read_csv("own.csv")}, out="of-a-table")
    assert capfd.readouterr() == ("", "")


def test_what_is_shown_is_the_commands(cli, preset):
    """The same text, changes included."""
    shown = show_training("tiny.toml", data="own.csv", settings={"epochs": 3})
    assert cli("train", "tiny.toml", "--data", "own.csv", "--set", "epochs=3", "--show")[1] == shown
    assert "epochs = 3" in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"los": "l1"}}, "did you mean 'loss'"),
        ({"settings": {"options.x": DEEP}}, "nested too deeply"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": []}, "different whole numbers"),
        ({"size": "tiny"}, "for SMART-IQA"),
        ({"resume": True}, "no unfinished run"),
    ],
)
def test_mistakes_are_the_commands(preset, changes, words):
    """Python's mistakes are the exceptions behind exit code 3."""
    with pytest.raises(TrainingError, match=words):
        train("tiny.toml", **{**SAME, **changes})
    assert not (preset / "iqa-store/models/tiny/card.json").exists()


def test_a_range_for_an_open_set_is_refused(preset, opened):
    """It has one."""
    with pytest.raises(DataError, match="its own MOS range"):
        train("tiny.toml", data=opened, mos_range=(0.0, 1.0), progress=False)
