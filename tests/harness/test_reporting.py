"""What reports are made from: runs found, seeds put together, files of other commands, worst images."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_harness.api.inputs import entrants_of_run
from iqa_harness.cells.compute import craft, to_tensor
from iqa_harness.cells.examples import encode
from iqa_harness.cells.plan import plan
from iqa_harness.data import open_data
from iqa_harness.errors import RunError
from iqa_harness.evaluation.store import EVALUATION_SCHEMA
from iqa_harness.machine.runtime import Runtime
from iqa_harness.reporting.inputs import read_inputs
from iqa_harness.reporting.insights import by_quality
from iqa_harness.reporting.results import results_of
from iqa_harness.reporting.runs import FoundRun, find_runs, model_costs, read_run, read_runs
from iqa_harness.reporting.worst_images import check_count, picture, worst_images
from iqa_models import create_model, save_checkpoint
from iqa_reports import make_frame
from iqa_reports.inputs.frames import Cost, Epoch, Setting
from iqa_results import RUN_TABLES, Measure, ResultStore, Selection, write_parquet
from iqa_suites import load_suite

RUN = ("--suite", "smoke", "--model", "linear", "--threads", "1")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, cache):
    """A store with one run of two linear models on six images."""
    from iqa_harness.api.reading import aggregated
    from iqa_harness.entrants.naming import load_entrant, parse_model
    from iqa_harness.running.manifest import RunConfig
    from iqa_harness.running.run import run_suite

    store = ResultStore(tmp_path_factory.mktemp("lab") / "store")  # nothing else beside it
    loaded = load_suite("smoke")
    entrants = [
        load_entrant(parse_model(text)) for text in ("a_seed0=linear?seed=0", "a_seed1=linear?seed=5")
    ]
    work = plan(loaded.suite, entrants, open_data("smoke", cache_dir=cache), Selection(limit=6))
    run_suite(work, entrants, RunConfig("first", loaded.text), store)
    aggregated(store, "first")
    return store


# Runs ----------------------------------------------------------------------------------------------


def test_runs_are_found_in_stores_folders_and_by_their_own_folder(smoke):
    """A store, a folder above it and the run's own folder all lead to the run, once."""
    places = [smoke.root, smoke.root.parent, smoke.root / "runs" / "first"]
    (found,) = find_runs(places)
    assert (found.store.root, found.run) == (smoke.root, "first")


def test_a_place_without_runs_is_named(tmp_path):
    """A folder that holds no run, or is not there, is the user's mistake and says what a run is."""
    with pytest.raises(RunError, match="no run there"):
        find_runs([tmp_path])
    with pytest.raises(RunError, match="no such folder"):
        find_runs([tmp_path / "missing"])


def test_a_run_that_was_never_aggregated_says_how_to(smoke, tmp_path):
    """Without a table there is nothing to show; the message holds the command that makes it."""
    store = ResultStore(tmp_path)
    store.write_manifest(smoke.read_manifest("first"))
    runs, unread = read_runs([FoundRun(store, "first")])
    assert runs == []
    assert f"iqa-harness report first --store {tmp_path}" in unread[0]


def test_costs_add_up_over_attacks_and_are_shared_by_objectives(smoke):
    """Each attack and radius counts once, whatever the number of its objectives."""
    rows = [
        Measure("m", attack, objective, "inf", epsilon, 3, final, "backwards", value, None)
        for attack, objective, epsilon, final, value in (
            ("pgd", "all", 0.1, True, 40.0),
            ("pgd", "mse", 0.1, True, 40.0),
            ("pgd", "all", 0.2, True, 30.0),
            ("pgd", "all", 0.2, False, 99.0),
            ("fgsm", "all", 0.1, True, None),
        )
    ]
    assert model_costs(rows)["m"].gradients == 70.0
    stored = read_run(FoundRun(smoke, "first"))
    assert set(stored.costs) == {"a_seed0", "a_seed1"}
    assert stored.costs["a_seed0"].gradients > 0


# Results -------------------------------------------------------------------------------------------


def test_models_that_differ_by_their_seed_are_one_row(smoke):
    """Mean and sample deviation of the two, with the number of seeds; the interval of one alone is gone."""
    stored = read_run(FoundRun(smoke, "first"))
    rows = results_of([stored])
    assert {r.model for r in rows} == {"a (2 seeds)"}
    for row in ("clean", "suite_min", "composed"):
        at = stored.manifest.main_epsilon if row != "clean" else 0.0
        found = next(r for r in rows if (r.row, r.metric, r.epsilon) == (row, "srocc", at))
        values = [
            e.value
            for e in stored.estimates
            if (e.row, e.metric, e.epsilon, e.final) == (row, "srocc", at, True)
        ]
        assert found.value == pytest.approx(np.mean(values))
        assert found.std == pytest.approx(np.std(values, ddof=1))
        assert (found.seeds, found.low) == (2, None)


def test_other_differences_keep_models_apart(smoke):
    """A model of other options is no seed of the first, and keeps its interval."""
    stored = read_run(FoundRun(smoke, "first"))
    first, second = stored.manifest.models
    other = second.model_copy(update={"card": {**second.card, "options": {"seed": 1, "scale": 2.0}}})
    manifest = stored.manifest.model_copy(update={"models": (first, other)})
    rows = results_of([dataclasses.replace(stored, manifest=manifest)])
    assert {r.model for r in rows} == {"a_seed0", "a_seed1"}
    assert all(r.seeds == 1 and r.std is None for r in rows)


def test_a_mean_over_seeds_needs_all_of_them(smoke):
    """A value that one seed lacks has no mean: fewer seeds are not the same figure."""
    stored = read_run(FoundRun(smoke, "first"))
    lacking = tuple(
        e._replace(value=None, undefined="constant scores")
        if (e.model, e.row, e.metric) == ("a_seed1", "composed", "srocc")
        else e
        for e in stored.estimates
    )
    found = results_of([dataclasses.replace(stored, estimates=lacking)])
    lost = [r for r in found if (r.row, r.metric) == ("composed", "srocc")]
    assert lost
    assert all(r.value is None and r.undefined == "a value of 1 of 2 seeds only" for r in lost)


@pytest.mark.slow
def test_costs_are_matched_by_name(smoke):
    """Parameters and multiply-adds of `profile` stand beside the model of that name, an image each."""
    stored = read_run(FoundRun(smoke, "first"))
    cost = Cost("a (2 seeds)", "whole", 64, 2, "fp32", "", 1000, 5000, None, None)
    rows = results_of([stored], (), [cost])
    assert {(r.parameters, r.macs) for r in rows} == {(1000, 2500)}


# Files ---------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """Two training folders of one model with two seeds, as `study` leaves them."""
    for seed in (0, 1):
        folder = tmp_path / f"lin-seed{seed}"
        model = create_model("linear", seed=seed)
        config = {
            "name": f"lin{seed}",
            "seed": seed,
            "epochs": 2,
            "loss": "l1",
            "lr_trunk": 1e-4,
            "options": {},
        }
        save_checkpoint(model, folder, training={"config": config, "data": "koniq10k", "best_epoch": 1})
        card = json.loads((folder / "card.json").read_text())
        log = [
            {"epoch": 0, "loss": None, "val_srocc": 0.5, "rates": {}},
            {"epoch": 1, "loss": 2.5, "val_srocc": 0.7, "rates": {"trunk": 1e-4}, "gamma/4->1": 1.1},
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        figures = {
            "weights_sha256": card["weights_sha256"],
            "data": "koniq10k",
            "splits": [{"split": "test", "images": 9, "srocc": 0.8 + seed / 10, "plcc": 0.9, "krocc": None}],
        }
        (folder / "figures.json").write_text(json.dumps(figures))
    return tmp_path


def test_a_folder_of_training_runs_gives_logs_settings_and_results(trained):
    """Every number of every epoch, every setting of the card, and the figures over seeds."""
    frames = read_inputs([trained])
    epochs = frames["training"]
    assert Epoch("lin-seed0", 1, "loss", "", 2.5, True) in epochs
    assert Epoch("lin-seed0", 1, "gamma", "4->1", 1.1, True) in epochs
    assert Epoch("lin-seed0", 1, "rates", "trunk", 1e-4, True) in epochs
    assert Epoch("lin-seed1", 0, "loss", "", None, False) in epochs
    assert Setting("lin-seed0", "training", "lr_trunk", "0.0001") in frames["settings"]
    found = {r.metric: r for r in frames["results"]}
    assert (found["srocc"].model, found["srocc"].loss, found["srocc"].trained_on) == (
        "lin (2 seeds)",
        "l1",
        "koniq10k",
    )
    assert found["srocc"].value == pytest.approx(0.85)
    assert found["srocc"].std == pytest.approx(0.1 / math.sqrt(2))
    assert found["krocc"].value is None


def test_figures_of_other_weights_are_not_shown(trained):
    """A checkpoint that was trained anew does not keep the former one's figures."""
    for path in trained.glob("*/figures.json"):
        path.write_text(path.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    assert "results" not in read_inputs([trained])


def test_a_damaged_log_is_named_with_its_line(trained):
    """The message holds the file and the line."""
    log = trained / "lin-seed0" / "log.jsonl"
    log.write_text(log.read_text() + "{broken\n")
    with pytest.raises(RunError, match=r"log\.jsonl, line 3: not an epoch's JSON"):
        read_inputs([trained])


def test_an_evaluation_is_one_row_a_metric(tmp_path):
    """The table of `evaluate` gives its values, intervals and what the model was trained on."""
    none = dict.fromkeys(EVALUATION_SCHEMA.names)
    rows = [
        none | {"model": "m", "data": data, "split": "test", "images": 5, "label": "MOS", "trained_on": how,
                "srocc": value, "srocc_low": 0.1, "srocc_high": 0.9, "mapping": "none", "interval": "",
                "undefined": "constant", "model_sha256": "a", "data_sha256": "b"}
        for data, how, value in (("koniq10k", "this set", 0.9), ("spaq", "another set", 0.8))
    ]  # fmt: skip
    path = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION_SCHEMA), path)
    found = read_inputs([path])["results"]
    assert len(found) == 6
    spaq = next(r for r in found if (r.data, r.metric) == ("spaq", "srocc"))
    assert (spaq.value, spaq.low, spaq.high, spaq.trained_on, spaq.undefined) == (
        0.8,
        0.1,
        0.9,
        "koniq10k",
        None,
    )
    assert next(r for r in found if r.metric == "plcc").undefined == "constant"


def test_a_file_of_no_known_kind_is_refused_with_its_columns(tmp_path):
    """The message says what it has; in a folder such a file is passed over."""
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(RunError, match=r"of no kind a report knows.*this has the columns x"):
        read_inputs([path])
    assert read_inputs([tmp_path]) == {}
    path.write_bytes(b"no parquet")
    with pytest.raises(RunError, match="not a readable Parquet file"):
        read_inputs([path])


def test_a_frame_comes_back_as_it_was_written(tmp_path):
    """What a command writes is what a report reads."""
    costs = [Cost("m", "whole", 64, 1, "fp32", "", 10, 20, None, None)]
    path = write_parquet(tmp_path / "c.parquet", make_frame("costs", costs))
    assert read_inputs([path])["costs"] == costs


def test_a_frame_without_a_column_or_of_another_type_is_refused_by_name(tmp_path):
    """The message names the file, the kind of frame, and the missing column or what the type is not."""
    frame = make_frame("training", [Epoch("m", 1, "loss", "", 0.5, True)])
    lacking = write_parquet(tmp_path / "lacking.parquet", frame.drop_columns(["place"]))
    with pytest.raises(RunError, match=r"lacking\.parquet: lacks the columns place of training"):
        read_inputs([lacking])
    other = write_parquet(tmp_path / "other.parquet", frame.set_column(1, "epoch", pa.array(["one"])))
    with pytest.raises(RunError, match=r"other\.parquet: not the types of training"):
        read_inputs([other])


# Worst images --------------------------------------------------------------------------------------


def test_a_picture_is_a_small_jpeg_of_the_image():
    """At most the wanted side, and the colours of the image to a few levels."""
    import base64

    import torch

    image = torch.zeros(3, 300, 500)
    image[0] = 0.75
    address = picture(image, side=100)
    shown = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))))
    assert shown.size == (100, 60)
    assert np.abs(np.asarray(shown).reshape(-1, 3).mean(0) - [191, 0, 0]).max() < 4


def test_images_are_spread_over_the_labels(images):
    """The lowest and the highest label are among them."""
    mos = [images.records[i].mos for i in by_quality(images, 3)]
    everything = sorted(r.mos for r in images.records)
    assert (mos[0], mos[-1]) == (everything[0], everything[-1])
    assert mos == sorted(mos)


def test_too_many_images_are_refused_before_any_attack(smoke):
    """The message says how many would do."""
    with pytest.raises(RunError, match="take --images 93"):
        check_count(100, [read_run(FoundRun(smoke, "first"))])


def test_a_picture_of_another_score_says_so(smoke, tmp_path, cache):
    """Found again, the pictures are those of the stored scores; other pixels are told by their own score."""
    store = ResultStore(shutil.copytree(smoke.root, tmp_path / "store"))
    run, images = read_run(FoundRun(store, "first")), open_data("smoke", cache_dir=cache)
    entrants = entrants_of_run(run.manifest)
    found = worst_images(store, run, entrants, images, 1)
    assert [t.other_score for t in found] == [None, None]
    work = plan(load_suite("smoke").suite, entrants, images, Selection(limit=6))
    models = {entrant.label: entrant.model for entrant in entrants}
    for cell in (c for c in work.cells if c.attack is not None):
        result = craft(cell, models[cell.label], work.images, Runtime())
        clean = [to_tensor(work.images.read(cell.first + f.image), "cpu") for f in result.found]
        pairs = zip(result.found, clean, strict=True)
        kept = [f._replace(example=f.example._replace(pixels=x)) for f, x in pairs]
        store.write_examples(cell.key, encode(result._replace(found=kept), cell, work.images))
    swapped = worst_images(store, run, entrants, images, 1)
    assert [t.other_score for t in swapped] == pytest.approx([t.before for t in found], abs=1e-6)


# Commands ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_report_shows_the_worst_images_with_the_scores_of_the_run(cli, smoke, tmp_path, cache):
    """The page holds the pictures of the images that moved farthest, and the stored scores beside them."""
    arguments = ("report", "first", "--store", str(smoke.root), "--out", str(tmp_path / "out"))
    code, _, _ = cli(*arguments, "--images", "1", "--format", "html", "--cache", str(cache))
    assert code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6
    rows = [r for r in smoke.read_table("first", "intervals").to_pylist() if r["model"] == "a_seed0"]
    at = smoke.read_manifest("first").main_epsilon
    scores = {f"{r['composed_srocc']:.3f}" for r in rows if r["epsilon"] == at}
    assert any(f"→ {score} (" in page for score in scores)


def test_report_refuses_what_it_cannot_do(cli, smoke):
    """An unknown format, nothing to show, several runs without a folder: one line each, exit code 3."""
    store = ("--store", str(smoke.root))
    for arguments, words in (
        (("report", "first", "--format", "pdf", *store), "no such format; there are html, markdown"),
        (("report", *store), "nothing to report: name a run"),
        (("report", "--input", str(smoke.root), *store), "say where with --out"),
        (("report", "nope", *store), "no run 'nope'"),
    ):
        code, _, err = cli(*arguments)
        assert (code, len(err.strip().splitlines())) == (3, 1), err
        assert words in err


def test_the_leaderboard_reads_what_is_stored_and_names_what_it_cannot(cli, smoke, tmp_path):
    """Both files are written; a damaged run is left out with its name and exit code 4."""
    code, out, _ = cli("leaderboard", str(smoke.root), "--out", str(tmp_path / "board"))
    assert code == 0
    words = (tmp_path / "board" / "leaderboard.md").read_text()
    assert "Mean and standard deviation over training seeds" in words
    assert "a_seed0" in out
    other = ResultStore(tmp_path / "other")
    other.write_manifest(smoke.read_manifest("first"))
    (other.run_folder("first") / "table.parquet").write_bytes(b"damaged")
    code, _, _ = cli("leaderboard", str(smoke.root), str(other.root), "--out", str(tmp_path / "board"))
    assert code == 4
    assert "Left out" in (tmp_path / "board" / "leaderboard.html").read_text()


def test_after_a_kill_the_leaderboard_says_what_the_list_of_runs_says(cli, smoke, tmp_path):
    """A manifest from before the end is not believed: neither of cells that are there nor of lost ones."""
    store = ResultStore(tmp_path / "killed")
    shutil.copytree(smoke.root, store.root)
    whole = store.read_manifest("first")
    killed = [c.model_copy(update={"status": "missing", "bytes": None}) for c in whole.cells[1:]]
    update = {"cells": (whole.cells[0], *killed), "status": "running", "ended": None}
    store.write_manifest(whole.model_copy(update=update))
    lost = [c for c in whole.cells if c.attack != "clean"][:3]
    for cell in lost:
        store.delete_cell(cell.key)
    manifest = read_run(FoundRun(store, "first")).manifest
    assert [c.key for c in manifest.cells if c.status != "done"] == [c.key for c in lost]
    (listed,) = json.loads(cli("runs", "list", "--store", str(store.root), "--json")[1])
    assert cli("leaderboard", str(store.root), "--out", str(tmp_path / "board"))[0] == 0
    words = (tmp_path / "board" / "leaderboard.md").read_text()
    assert f"(status: {listed['status']})" in words
    assert f"3 of {listed['cells']} cells" in words
    assert listed["done"] == listed["cells"] - 3


OTHER_CELLS = "the table was made from other cells than the run has now"


@pytest.mark.slow
def test_a_table_of_other_cells_is_marked(cli, smoke, tmp_path):
    """Resumed and killed before its tables were made: shown, with the command that makes them anew."""
    store = ResultStore(tmp_path / "stale")
    shutil.copytree(smoke.root, store.root)
    manifest = store.read_manifest("first")
    last = manifest.cells[-1].key
    rows = store.read_cell(last).to_pylist()
    store.delete_cell(last)
    assert cli("report", "first", "--store", str(store.root), "--format", "csv")[0] == 0
    assert OTHER_CELLS not in " ".join(read_run(FoundRun(store, "first")).manifest.notes)
    store.write_cell(last, rows)
    assert OTHER_CELLS in read_run(FoundRun(store, "first")).manifest.notes[0]
    code, out, _ = cli("leaderboard", str(store.root), "--out", str(tmp_path / "board"))
    assert code == 0
    assert OTHER_CELLS in " ".join(out.split())
    assert f"report first --store {store.root}" in (tmp_path / "board" / "leaderboard.md").read_text()
    assert cli("report", "first", "--store", str(store.root), "--format", "csv")[0] == 0
    assert read_run(FoundRun(store, "first")).manifest.notes == manifest.notes
    store.delete_cell(last)  # lost after the table was made
    assert OTHER_CELLS in read_run(FoundRun(store, "first")).manifest.notes[0]


def test_a_copy_is_not_another_table(smoke, tmp_path):
    """A copy of a store has other times, in any order; a table of an older version says nothing of cells."""
    store = ResultStore(tmp_path / "copy")
    shutil.copytree(smoke.root, store.root)
    for second, path in enumerate(sorted(store.root.rglob("*.parquet"), reverse=True)):
        os.utime(path, (second, second))
    notes = smoke.read_manifest("first").notes
    assert read_run(FoundRun(store, "first")).manifest.notes == notes
    manifest = store.read_manifest("first")
    table = store.read_table("first")
    store.delete_cell(manifest.cells[-1].key)
    assert OTHER_CELLS in read_run(FoundRun(store, "first")).manifest.notes[0]
    store.write_table("first", table.to_pylist())
    assert OTHER_CELLS not in " ".join(read_run(FoundRun(store, "first")).manifest.notes)


def test_a_store_without_cells_is_shown_as_its_manifest_says(smoke, tmp_path):
    """Tables passed on without their rows."""
    store = ResultStore(tmp_path / "light")
    shutil.copytree(smoke.root / "runs", store.root / "runs")
    assert read_run(FoundRun(store, "first")).manifest == smoke.read_manifest("first")


def test_profile_writes_what_a_report_reads(cli, tmp_path):
    """Costs by parts, counted without a measured pass."""
    code, out, _ = cli("profile", "linear", "--size", "32", "--repeats", "0", "--out", "costs.parquet")
    assert code == 0
    assert "costs.parquet" in out
    rows = read_inputs([tmp_path / "costs.parquet"])["costs"]
    assert {r.model for r in rows} == {"linear"}
    assert any(r.part == "whole" for r in rows)


def test_diagnose_writes_attention_and_maps_of_smart_iqa(cli, tmp_path, cache):
    """Weights of four stages that add up to one on every image, and the maps of the images asked for."""
    model = "smart_iqa_tiny?protocol=centre"
    arguments = ("--data", "smoke", "--split", "test", "--limit", "2", "--cache", str(cache))
    code, out, _ = cli("diagnose", model, *arguments, "--maps", "1", "--out", "a.parquet")
    assert code == 0
    assert "low 0 - - - -" in " ".join(out.split())  # a mean of none is not 0
    assert "high 1 0." in " ".join(out.split())
    frames = read_inputs([tmp_path / "a.parquet", tmp_path / "a-maps.parquet"])
    weights = frames["attention"]
    assert len(weights) == 2
    for row in weights:
        assert sum(row.stages) == pytest.approx(1, abs=1e-6)
    maps = frames["features"]
    assert [(m.stage, m.height, m.width) for m in maps] == [
        (1, 56, 56),
        (2, 28, 28),
        (3, 14, 14),
        (4, 7, 7),
    ]
    assert all(len(m.activation) == m.height * m.width for m in maps)


def test_a_report_elsewhere_needs_no_store_to_write_to(smoke, tmp_path):
    """Of a store that takes no files the same report comes out; its own folder in there is refused."""
    import iqa_harness as iqa

    there = tmp_path / "there"
    shutil.copytree(smoke.root, there)
    made = iqa.report("first", store=there, out=tmp_path / "one", formats=["latex"])
    for name in RUN_TABLES:
        there.joinpath("runs", "first", f"{name}.parquet").unlink()
    cells = sorted(there.rglob("*"))
    for folder in (there, there / "runs" / "first"):
        folder.chmod(0o555)
    if os.access(there, os.W_OK):
        pytest.skip("may write wherever it likes")
    other = iqa.report("first", store=there, out=tmp_path / "two", formats=["latex"])
    with pytest.raises(RunError, match=r"--store .* cannot be written"):
        iqa.report("first", store=there, formats=["markdown"])
    assert sorted(there.rglob("*")) == cells
    pages = [written.files[0].read_text() for written in (made, other)]
    assert pages[0] == pages[1]
