"""A store that the first edition wrote opens, reports and goes on as before.

`first_edition/` is the store of `attack -s smoke -m linear -m 'other=linear?seed=3' --limit 6 --run first`,
computed by version 0.1.0 at commit 33c8083.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import iqa_harness as iqa
from iqa_results import ResultStore

STORE = Path(__file__).with_name("first_edition")
MODELS = ["linear", "other=linear?seed=3"]


@pytest.fixture
def store(tmp_path):
    """A copy that may be written to."""
    return ResultStore(shutil.copytree(STORE, tmp_path / "store"))


def test_its_table_is_made_again_to_the_last_bit(store):
    """Values, intervals, ties and verdicts from its rows are those that were stored."""
    stored = store.read_table("first").to_pandas()
    made = iqa.load_run("first", store).refresh().table
    pd.testing.assert_frame_equal(made, stored)


@pytest.mark.slow
def test_its_page_is_written(store, tmp_path):
    """The leaderboard names both models with their values."""
    written = iqa.report("first", store=store, out=tmp_path / "out")
    assert written.page == tmp_path / "out" / "index.html"
    text = written.text()
    assert "linear" in text
    assert "0.257" in text  # clean SROCC of linear, as the first edition printed it


def test_a_run_goes_on_without_computing_a_cell(store, cache):
    """The same command finds every cell under its key; nothing is left to compute."""
    planned = iqa.plan("smoke", MODELS, limit=6, run="first", store=store, cache=cache, progress=False)
    assert len(planned.work.cells) == 12
    assert planned.missing == ()


@pytest.mark.slow
def test_it_is_verified(store, cache):
    """Rows, checks, scores and a sample of attacks made again are those that were stored."""
    iqa.load_run("first", store).refresh()
    found = iqa.verify("first", store=store, cache=cache, sample=2, progress=False)
    assert [f"{f.what} {f.where}: {f.detail}" for f in found.findings] == []
    assert found.sound
