"""`attack`, `plan`, `load_run` and what a run can be asked: the same as the command line's, to the row."""

import html
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

import iqa_harness as iqa
from iqa_harness.cli.printing import code_of
from iqa_harness.errors import ExitCode, RunError
from iqa_models import create_model
from iqa_results import ResultStore

MODELS = ["linear", "other=linear?seed=3"]
TIMINGS = ["seconds"]


def rows(store, run):
    """All rows of a run but the one column that is a timing, in one order."""
    found = iqa.load_run(run, store).rows().drop(columns=TIMINGS)
    order = ["model", "attack", "epsilon", "objective", "steps", "position", "split"]
    return found.sort_values(order).reset_index(drop=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder, cache):
    """A run of two named models on six images, made in Python."""
    return iqa.attack("smoke", MODELS, limit=6, run="r", store=folder / "store", cache=cache, progress=False)


@pytest.mark.slow
def test_the_command_line_makes_the_same_rows(run, cli, folder):
    """Equal rows, equal table, equal verdicts; the console only adds words."""
    store = str(folder / "by-command")
    code, _, _ = cli(
        "attack", "-s", "smoke", *(word for m in MODELS for word in ("-m", m)), "--limit", "6", "--run", "r",
        "--store", store,
    )  # fmt: skip
    assert code == 0
    pd.testing.assert_frame_equal(rows(store, "r"), rows(run.store, "r"))
    pd.testing.assert_frame_equal(iqa.load_run("r", store).table, run.table)


def test_a_run_says_what_it_found(run):
    """The repr is the leaderboard, its HTML has a table, and the values are those of its rows."""
    assert run.models == ["linear", "other"]
    assert "Leaderboard in SROCC" in repr(run)
    assert run._repr_html_().count("<table") == 2  # SROCC and PLCC
    clean = run.rows().query("attack == 'clean' and split == 'test' and model == 'linear'")
    stored = run.table.query("row == 'clean' and metric == 'srocc' and model == 'linear'")["value"].item()
    assert stored == pytest.approx(spearmanr(clean["clean_score"], clean["mos"]).statistic, abs=1e-12)
    assert set(run.verdicts) == {"linear", "other"}
    assert set(run.flags["model"]) == {"linear", "other"}
    assert run.complete
    assert run.failed == []
    assert run.dataset().count_rows() == len(run.rows(["model"]))
    with pytest.raises(RunError, match="rows have no column 'score'; they have cell, model, "):
        run.rows(["score"])


def test_two_models_are_compared_in_both_directions(run):
    """A difference and its interval change sign with the order of the models."""
    forth, back = run.compare("linear", "other"), run.compare("other", "linear")
    values = run.table.query("row == 'clean' and metric == 'srocc'").set_index("model")["value"]
    clean = forth.query("row == 'clean' and metric == 'srocc'")["difference"].item()
    assert clean == pytest.approx(values["linear"] - values["other"], abs=1e-12)
    np.testing.assert_array_equal(forth["difference"], -back["difference"])
    np.testing.assert_array_equal(forth["low"], -back["high"])
    assert set(back["model_a"]) == {"other"}
    with pytest.raises(RunError, match="no model 'others'"):
        run.compare("linear", "others")
    with pytest.raises(RunError, match="with itself"):
        run.compare("linear", "linear")


def test_what_is_there_is_not_computed_again(run, folder, cache):
    """A second plan finds every cell; with another model only that one's are missing."""
    again = iqa.plan("smoke", MODELS, limit=6, run="r", store=folder / "store", cache=cache, progress=False)
    assert again.missing == ()
    more = [*MODELS, "third=linear?seed=9"]
    planned = iqa.plan("smoke", more, limit=6, run="r", store=folder / "store", cache=cache, progress=False)
    assert {cell.label for cell in planned.todo} == {"third"}


def test_nothing_is_said_without_progress(folder, cache, capfd):
    """Neither stream has a word; with progress standard error has."""
    options = {"limit": 4, "only": ["clean"], "store": folder / "quiet", "cache": cache}
    iqa.attack("smoke", "linear", run="a", progress=False, **options)
    assert capfd.readouterr() == ("", "")
    iqa.attack("smoke", "other=linear?seed=5", run="b", **options)
    out, err = capfd.readouterr()
    assert out == ""
    assert "attacking" in err


class Forgetful(torch.nn.Module):
    """A user's own module whose score depends on the images beside an image."""

    def forward(self, images):
        return images.mean(dim=(1, 2, 3)) + 0.1 * len(images)


@pytest.mark.slow
def test_a_model_without_usable_numbers_costs_its_own_rows(folder, cache, cli):
    """From Python: the other is scored, the bad one is invalid with the reason; alone it is an error."""
    from iqa_models import wrap

    bad = wrap(Forgetful(), name="forgetful", score_range=(0, 2))
    options = {"limit": 4, "run": "mixed", "store": folder / "mixed", "cache": cache, "progress": False}
    with pytest.raises(RunError, match="fails the check 'batch_independent'"):
        iqa.attack("smoke", {"bad": bad}, **options)
    run = iqa.attack("smoke", {"bad": bad, "good": create_model("linear")}, **options)
    assert not run.complete
    assert code_of(run) == ExitCode.PARTIAL == 4
    assert run.verdicts["bad"] == "invalid"
    lost, good = (run.table.query(f"model == '{name}'") for name in ("bad", "good"))
    assert lost["value"].isna().all()
    assert lost["undefined"].str.contains("fails the check 'batch_independent'").all()
    assert good.query("metric == 'srocc'")["value"].notna().all()
    assert set(run.rows()["model"]) == {"good"}
    flag = run.flags.query("model == 'bad' and flag == 'batch_dependence'")
    assert flag["raised"].item()
    code, out, _ = cli("report", "mixed", "--store", str(folder / "mixed"), "--format", "html")
    assert code == 0
    assert "invalid" in out
    page = html.unescape((folder / "mixed/runs/mixed/report/index.html").read_text())
    assert "bad: invalid, fails the check 'batch_independent'" in page
    found = run.verify()
    assert [finding for finding in found.findings if finding.what == "check"] == []


class Brightness(torch.nn.Module):
    """A user's own module: the mean of the image, times ten."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))

    def forward(self, images):
        return self.scale * images.mean(dim=(1, 2, 3))


@pytest.mark.slow
def test_a_live_module_stands_beside_a_named_model(folder, images, suite):
    """A module, a suite and images that exist in this process only; scores are the module's own."""
    from iqa_models import wrap

    module = Brightness()
    models = {"mine": wrap(module, name="brightness", score_range=(0, 10)), "yours": create_model("linear")}
    run = iqa.attack(suite, models, data=images, store=folder / "live", progress=False)
    assert run.models == ["mine", "yours"]
    clean = run.rows().query("attack == 'clean' and split == 'test' and model == 'mine'")
    pixels = {r.image_id: images.read(i) for i, r in enumerate(images.records)}
    for image_id, score in zip(clean["image_id"], clean["clean_score"], strict=True):
        assert score == pytest.approx(10 * pixels[image_id].mean() / 255, abs=1e-5)
    found = run.verify(sample=1, progress=False)
    assert [str(f) for f in found.findings] == []


def test_wrong_arguments_are_one_error(folder, cache):
    """A runtime and its fields together, an unknown attack, a model that is none."""
    common = {"store": folder / "wrong", "cache": cache, "progress": False}
    with pytest.raises(RunError, match="not both: chunk"):
        iqa.plan("smoke", "linear", runtime=iqa.Runtime(), chunk=4, **common)
    with pytest.raises(RunError, match="--only fgms"):
        iqa.plan("smoke", "linear", only=["fgms"], **common)
    with pytest.raises(iqa.HarnessError, match="--mos-range goes with"):
        iqa.plan("smoke", "linear", mos_range=(1, 5), **common)
    assert not (folder / "wrong").exists()


def test_the_package_is_imported_lazily():
    """`import iqa_harness` loads none of the heavy libraries; its names are found when they are used."""
    code = (
        "import sys, iqa_harness\n"
        "heavy = {'torch', 'timm', 'pandas', 'pyarrow', 'scipy', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(iqa_harness.__all__) <= set(dir(iqa_harness))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in iqa.__all__:
        assert getattr(iqa, name) is not None
    # A module of that name would take the function's place once it is imported.
    assert not {path.stem for path in Path(iqa.__file__).parent.iterdir()} & set(iqa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        _ = iqa.atack


def test_a_store_is_taken_as_folder_or_object(run):
    """Both give the same run."""
    by_path = iqa.load_run("r", run.store.root)
    by_object = iqa.load_run("r", ResultStore(run.store.root))
    pd.testing.assert_frame_equal(by_path.table, by_object.table)


def test_every_exported_name_is_documented():
    """python.md has a row for each, with the first sentence of its docstring, and no other."""
    page = (Path(__file__).resolve().parents[3] / "harness" / "python.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert sorted(rows) == iqa.__all__
    for name, words in rows.items():
        first = (inspect.getdoc(getattr(iqa, name)) or "").split("\n\n")[0].replace("\n", " ")
        assert words == first.replace("|", "\\|"), name
