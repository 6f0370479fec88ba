"""A store that the first edition wrote opens, reports and goes on as before.

`first_edition/` is the store of `attack -s smoke -m linear -m 'other=linear?seed=3' --limit 6 --run first`,
computed by version 0.1.0 at commit 33c8083.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import iqa_harness as iqa
from iqa_harness.cli.printing import speed_lines
from iqa_harness.running.model_records import measured_as_first
from iqa_models import wrap
from iqa_results import ResultStore

STORE = Path(__file__).with_name("first_edition")
MODELS = ["linear", "other=linear?seed=3"]


@pytest.fixture
def store(tmp_path):
    """A copy that may be written to."""
    return ResultStore(shutil.copytree(STORE, tmp_path / "store"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run with its tables made by this edition, only to be read."""
    store = ResultStore(shutil.copytree(STORE, tmp_path_factory.mktemp("first") / "store"))
    return iqa.load_run("first", store)


def test_its_table_is_made_again_to_the_last_bit(run):
    """Values, intervals, ties and verdicts from its rows are those that were stored."""
    stored = ResultStore(STORE).read_table("first").to_pandas()
    pd.testing.assert_frame_equal(run.refresh().table, stored)


@pytest.mark.slow
def test_its_page_is_written(run, tmp_path):
    """The leaderboard names both models with their values."""
    written = iqa.report("first", store=run.store, out=tmp_path / "out", formats=["html"])
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
def test_it_is_verified(run, cache):
    """Rows, checks, scores and a sample of attacks made again are those that were stored."""
    found = iqa.verify("first", store=run.store, cache=cache, sample=2, progress=False)
    assert [f"{f.what} {f.where}: {f.detail}" for f in found.findings] == []
    assert found.sound


def test_its_speed_is_shown_without_a_share_of_a_peak(run, tmp_path):
    """It counted no operations: gradients over the seconds of its cells, on the page and from Python."""
    tables = iqa.report("first", store=run.store, out=tmp_path, formats=["csv"]).report.all_tables()
    table = next(t for t in tables if t.name == "throughput")
    assert [group.label for group in table.groups] == ["a second", "peak memory"]
    cells = [c for c in run.manifest.cells if c.model == "linear" and c.backwards and c.attack != "clean"]
    speed = sum(c.backwards for c in cells) / sum(c.seconds for c in cells)
    assert run.throughput[0].gradients == pytest.approx(speed)
    assert [(row[0].text, row[2].number) for row in table.rows] == [
        (each.model, each.gradients) for each in run.throughput
    ]
    lines = speed_lines(run)
    assert len(lines) == 2
    assert lines[0].startswith(f"speed: linear on {run.throughput[0].device}: {speed:,.1f} gradients/s")
    assert not any("peak" in line for line in lines)


def edited(store, model, change):
    """Write the manifest with one model's checks changed."""
    manifest = store.read_manifest("first")
    models = [
        m.model_copy(update={"checks": change({n: dict(c) for n, c in m.checks.items()})})
        if m.name == model
        else m
        for m in manifest.models
    ]
    store.write_manifest(manifest.model_copy(update={"models": tuple(models)}))


def test_an_edited_check_is_found_under_the_first_editions_words(store, cache):
    """Its value is measured again as the first edition measured it, not only held to its bound."""
    names = ["score_range", "gradient_agrees", "noise_weaker"]

    def change(checks):
        for name in names:
            checks[name]["value"] = 0.45  # on the right side of its bound
        return checks

    edited(store, "other", change)
    found = iqa.verify("first", store=store, cache=cache, sample=1, progress=False)
    findings = [f for f in found.findings if f.what == "check"]
    assert sorted(finding.where for finding in findings) == sorted(f"other, {name}" for name in names)
    assert all("value: 0.45 is stored" in finding.detail for finding in findings)


class MasksTheLast(torch.nn.Module):
    """The mean of an image; of the last two of six it hands out no gradient."""

    def __init__(self, means):
        super().__init__()
        self.register_buffer("means", torch.tensor(means))

    def forward(self, images):
        scores = images.mean(dim=(1, 2, 3))
        nearest = (scores.detach()[:, None] - self.means).abs().argmin(dim=1)
        return torch.where(nearest < 4, scores, scores.detach())


def test_the_first_editions_words_hide_nothing_of_a_run_of_now(tmp_path, cache):
    """Checks of the first images only, under the old words, are true and pass; those of now are asked too."""
    where = {"limit": 6, "run": "first", "store": tmp_path / "now", "cache": cache, "progress": False}
    images = iqa.plan("smoke", "linear", **where).work.images
    module = MasksTheLast([float(images.read(i).mean() / 255) for i in range(6)])
    model = wrap(module, name="masked", score_range=(0, 1))
    run = iqa.attack("smoke", {"masked": model}, **where)
    assert not run.manifest.models[0].checks["gradient_alive"]["passed"]
    planned = iqa.plan("smoke", {"masked": model}, **where)
    first = measured_as_first(planned.entrants[0], planned.work, planned.runtime)
    assert first["gradient_alive"].passed
    edited(run.store, "masked", lambda _: {name: check._asdict() for name, check in first.items()})
    found = iqa.verify(
        "first", models={"masked": model}, store=run.store, cache=cache, sample=1, progress=False
    )
    (finding,) = [f for f in found.findings if f.where == "masked, gradient_alive"]
    assert "passed: True is stored, measured again it is False" in finding.detail
