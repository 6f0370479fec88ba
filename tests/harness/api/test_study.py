"""`study` in Python: the rows of the command."""

import pandas as pd
import pytest

from helpers import tiny
from iqa_harness.api.study import list_studies, show_study, study
from iqa_harness.errors import TrainingError

STUDY = """
name = "small"
summary = "two losses"
preset = "tiny.toml"
base = { epochs = 1 }
suite = "one.toml"

[grid]
loss = ["l1", "rank"]
"""
TINY = """
name = "tiny"
model = "timm_regressor"
options = { hidden = 8, backbone = "test_efficientnet" }
epochs = 5
batch_size = 3
crop = 32
"""
SAME = {"data": "own.csv", "mos_range": (1.0, 5.0), "seeds": "0", "progress": False}


@pytest.fixture
def folder(own):
    """A study, its preset and its suite beside the images."""
    for name, text in (("small", STUDY), ("one", tiny.ONE_PGD), ("tiny", TINY)):
        (own / f"{name}.toml").write_text(text)
    return own


@pytest.mark.slow
def test_the_command_and_the_function_end_in_one_table(cli, folder, opened):
    """Equal rows, worst cases included, and equal frames of the suite's results; an open set is its name."""
    line = ("study", "small.toml", "--data", "own.csv", "--mos-range", "1", "5", "--seeds", "0")
    assert cli(*line, "--store", "a")[0] == 0
    found = study("small.toml", **SAME, store="b")
    tables = [pd.read_parquet(f"{s}/studies/small/small.parquet").drop(columns="seconds") for s in "ab"]
    assert tables[0].equals(tables[1])
    assert tables[0]["composed inf 1/255"].notna().all()
    assert tables[0].equals(found.table.drop(columns="seconds"))
    assert found.failures == {}
    assert [path.suffix for path in found.files] == [".csv", ".parquet", ".md"]
    worst = [pd.read_parquet(f"{s}/studies/small/small-worst.parquet") for s in "ab"]
    assert worst[0].equals(worst[1])
    assert "small: two losses" in repr(found)
    assert "<table" in found._repr_html_()
    held = study("small.toml", data=opened, store="c", seeds="0", progress=False)
    assert held.table.drop(columns="seconds").equals(tables[1])


def test_a_run_that_fails_is_told(folder):
    """Its row says why, the other one stands."""
    (folder / "small.toml").write_text(STUDY + "lr_head = [1e-3, 1e30]\n")
    found = study("small.toml", **SAME, no_attack=True, settings={"patches": 2})
    assert {row for row, _ in found.failures} == {"loss=l1-lr_head=1e+30", "loss=rank-lr_head=1e+30"}
    assert found.table["test_srocc"].isna().tolist() == [False, True, False, True]


def test_studies_are_listed_and_shown(cli, folder):
    """The command prints what the functions return."""
    assert cli("study", "--list")[1].splitlines() == [f"{n}: {s}" for n, s in list_studies().items()]
    shown = show_study("small.toml", data="own.csv", seeds="4")
    assert cli("study", "small.toml", "--data", "own.csv", "--seeds", "4", "--show")[1] == f"{shown}\n"
    assert "# 2 row(s), seeds 4" in shown


def test_a_file_nested_too_deeply_is_one_line(folder):
    """No recursion error."""
    (folder / "small.toml").write_text(f"name = {'[' * 5000}{']' * 5000}")
    with pytest.raises(TrainingError, match=r"small\.toml: values are nested too deeply"):
        show_study("small.toml")
