"""`report`, `leaderboard`, `verify`, `gate`, baselines, stores: Python and the command line say the same."""

import json
import shutil

import pandas as pd
import pytest

import iqa_harness as iqa
from iqa_harness.errors import NotComparable, RunError
from iqa_results import ResultStore


@pytest.fixture
def store(tmp_path, first_store):
    """A store with the run `first` of two linear models on six images; it may be written to."""
    return ResultStore(shutil.copytree(first_store, tmp_path / "store"))


@pytest.mark.slow
def test_a_report_is_written_alike(store, cli, tmp_path):
    """Equal tables in CSV and Markdown from both; the object holds what the command prints."""
    code, out, _ = cli("report", "first", "--store", str(store.root), "--out", str(tmp_path / "a"))
    assert code == 0
    written = iqa.report("first", store=store, out=tmp_path / "b")
    names = {
        p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.suffix in (".csv", ".md")
    }
    assert len(names) > 3
    for name in names:
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert written.page == tmp_path / "b" / "index.html"
    for line in written.text().splitlines():
        assert line.rstrip() in [said.rstrip() for said in out.splitlines()]
    only = iqa.report("first", store=store, out=tmp_path / "c", formats=["csv"])
    assert only.page is None
    assert {path.suffix for path in only.files} == {".csv"}
    with pytest.raises(RunError, match="no such format"):
        iqa.report("first", store=store, formats=["pdf"])
    with pytest.raises(RunError, match="nothing to report"):
        iqa.report(store=store)


def test_a_leaderboard_is_written_alike(store, cli, tmp_path):
    """The same page from the same stores."""
    code, _, _ = cli("leaderboard", str(store.root), "--out", str(tmp_path / "a"))
    assert code == 0
    written = iqa.leaderboard([store.root], out=tmp_path / "b")
    assert written.unread == ()
    page = "leaderboard.md"
    assert (tmp_path / "a" / page).read_text() == (tmp_path / "b" / page).read_text()
    alone = iqa.leaderboard(str(store.root), out=tmp_path / "c")  # a name is no list of its letters
    assert [path.name for path in alone.files] == [path.name for path in written.files]
    assert (tmp_path / "c" / page).read_text() == (tmp_path / "b" / page).read_text()


def test_a_run_is_verified_alike(store, cli):
    """Verdicts and findings are the command's lines; its exit code is `sound`."""
    code, out, _ = cli("verify", "first", "--store", str(store.root), "--sample", "0")
    found = iqa.verify("first", store=store, sample=0, progress=False)
    assert (code == 0) is found.sound
    assert "pyarrow" not in repr(found)  # what a notebook shows can be read
    for judged in found.judged:
        for line in judged.lines():
            assert line in out.splitlines()
    assert iqa.explain("constant_predictor") in cli("verify", "--explain", "constant_predictor")[1]


def test_a_gate_passes_and_fails_alike(store, cli, tmp_path):
    """A run against its own baseline passes; other data are not comparable; the exit codes say the same."""
    where, record = iqa.save_baseline("base", "first", store=store, folder=tmp_path)
    assert where == tmp_path / "base"
    assert [m.name for m in record.models] == ["linear", "other"]
    outcome = iqa.gate(where, "first", store=store)
    assert outcome.passed
    assert outcome.headline() in repr(outcome)
    file = tmp_path / "gate.json"
    arguments = (
        "gate",
        "-b",
        str(where),
        "-r",
        "first",
        "--store",
        str(store.root),
        "--json-file",
        str(file),
    )
    code, out, _ = cli(*arguments)
    assert code == 0
    assert outcome.headline() in out
    assert json.loads(file.read_text()) == json.loads(outcome.json())
    with pytest.raises(RunError, match="exists"):
        iqa.save_baseline("base", "first", store=store, folder=tmp_path)
    with pytest.raises(NotComparable, match="at least two runs"):
        iqa.calibrate(where, ["first"], store=store)
    assert iqa.diff_baselines(where, where).passed
    assert iqa.show_baseline(where).before.record.models == record.models


def test_stores_are_listed_exported_merged_and_tidied_alike(store, cli, tmp_path):
    """Names, counts and exported rows are the command's."""
    (manifest,) = iqa.list_runs(store).runs
    assert manifest.run == "first"
    listed = json.loads(cli("runs", "list", "--store", str(store.root), "--json")[1])
    assert [run["done"] for run in listed] == [sum(c.status == "done" for c in manifest.cells)]
    assert iqa.show_run("first", store) == manifest
    assert iqa.check_store(store) == (["first"], [])
    count = iqa.export_run("first", tmp_path / "a.parquet", store)
    code, out, _ = cli("runs", "export", "first", str(tmp_path / "b.parquet"), "--store", str(store.root))
    assert (code, f"{count} rows" in out) == (0, True)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "a.parquet"), pd.read_parquet(tmp_path / "b.parquet")
    )
    other = ResultStore(tmp_path / "other")
    ((merged, new),) = iqa.merge_runs(str(store.root), other)
    assert (merged.run, new) == ("first", len(manifest.cells))
    assert iqa.collect_garbage(other).cells == {}
    shutil.rmtree(tmp_path / "other" / "runs")
    waste = iqa.collect_garbage(other, delete=True)
    assert set(waste.cells) == {cell.key for cell in manifest.cells}
    assert other.cell_sizes() == {}
