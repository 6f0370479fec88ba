"""Studies: the rows they mean, what they keep, and the table at the end."""

import csv
import json

import numpy as np
import pytest
from rich.console import Console

from helpers import tiny
from iqa_harness.data import ArrayImageSet
from iqa_harness.errors import TrainingError
from iqa_harness.studies.study import list_studies, load_study, study_rows
from iqa_harness.training.figures import Figures, score_images, split_figures
from iqa_harness.training.tables import Spread, raw_notes, seed_table
from iqa_models import create_model, list_models
from iqa_reports import Entry, TableView, print_table
from iqa_reports.table_view import columns, label, stub
from iqa_results import ResultStore

STUDY = """
name = "small"
summary = "two losses at two rates"
preset = "{preset}"
base = {{ epochs = 1 }}
seeds = [0, 1]
suite = "{suite}"
contrasts = [["gentle-loss=rank", "gentle-loss=l1"], ["{label}-loss=rank", "gentle-loss=rank"]]
notes = ["noise on grey"]

[[points]]
label = "gentle"
set = {{ lr_head = 1e-3 }}
published = {{ srocc = 0.5 }}

[[points]]
label = "{label}"
set = {{ lr_head = {rate} }}

[[suites]]
suite = "two.toml"
rows = ["*-loss=rank"]
seeds = [1]

[grid]
loss = ["l1", "rank"]
"""
PRESET = """
name = "tiny"
model = "linear"
epochs = 5
batch_size = 4
crop = 32
"""
DATA = ("--data", "set.csv", "--mos-range", "1", "5")


@pytest.fixture
def folder(photographs):
    """The images, a preset, a suite and a study beside them."""
    (photographs / "tiny.toml").write_text(PRESET)
    (photographs / "one.toml").write_text(tiny.ONE_PGD)
    (photographs / "two.toml").write_text(
        tiny.ONE_PGD.replace('"one"', '"two"').replace('"1/255"', '"2/255"')
    )
    (photographs / "small.toml").write_text(
        STUDY.format(preset="tiny.toml", suite="one.toml", label="bold", rate=1e-2)
    )
    return photographs


@pytest.mark.parametrize("name", list_studies())
def test_every_shipped_study_means_runs_that_can_be_begun(name):
    """Its settings are accepted, its models exist, its seeds reach every run."""
    study, text = load_study(name)
    assert study.name == name
    assert study.summary in text
    rows = study_rows(study)
    assert len(rows) > 1
    for row in rows:
        assert set(row.configs) == set(study.seeds)
        for seed, config in row.configs.items():
            assert config.model in list_models()
            assert (config.seed, config.options["seed"]) == (seed, seed)
    identities = {json.dumps(row.configs[study.seeds[0]].identity(), sort_keys=True) for row in rows}
    assert len(identities) == len(rows)


def test_the_loss_study_holds_five_losses_in_both_readings():
    """SMART-IQA's table VII: L1 and L2, and three ranking losses as its code has them and corrected."""
    rows = study_rows(load_study("smart_losses")[0])
    found = {(c.loss, c.loss_reading) for row in rows for c in row.configs.values()}
    ranking = {(loss, reading) for loss in ("srcc", "rank", "pairwise") for reading in ("author", "fixed")}
    assert found == ranking | {("l1", "fixed"), ("l2", "fixed")}


def test_a_grid_is_the_product_with_every_point(folder, monkeypatch):
    """Points and grid combine; labels name both; the user's settings lie under the points'."""
    monkeypatch.chdir(folder)
    rows = study_rows(load_study("small.toml")[0], {"lr_head": 5.0, "lr_trunk": 7.0})
    assert [row.label for row in rows] == [
        "gentle-loss=l1", "gentle-loss=rank", "bold-loss=l1", "bold-loss=rank"
    ]  # fmt: skip
    assert [row.configs[0].lr_head for row in rows] == [1e-3, 1e-3, 1e-2, 1e-2]
    assert {row.configs[1].lr_trunk for row in rows} == {7.0}


@pytest.mark.slow
def test_a_study_ends_in_one_table_and_keeps_what_is_done(cli, folder):
    """Four rows of two seeds with clean and worst-case figures; a second call trains nothing anew."""
    code, _out, err = cli("study", "small.toml", *DATA, "--out", "s")
    assert code == 0, err
    rows = list(csv.DictReader((folder / "s/small.csv").read_text().splitlines()))
    assert [row["label"] for row in rows][:2] == ["gentle-loss=l1", "gentle-loss=rank"]
    assert {row["seeds"] for row in rows} == {"2"}
    assert rows[0]["published_srocc"] == "0.5"
    seeds = [json.loads((folder / f"s/bold-loss=l1/seed-{s}/figures.json").read_text()) for s in (0, 1)]
    mean = sum(s["splits"][1]["srocc"] for s in seeds) / 2
    assert float(rows[2]["test_srocc"]) == pytest.approx(mean)
    for row in rows:
        assert float(row["composed inf 1/255"]) <= float(row["suite_min inf 1/255"]) <= 1
    further = "suite_min inf 2/255 (two)"
    assert [row[further] != "" for row in rows] == [False, True, False, True]
    manifest = json.loads((folder / "iqa-store/runs/study-small-two/manifest.json").read_text())
    assert sorted(model["name"] for model in manifest["models"]) == [
        "bold-loss=rank.seed1", "gentle-loss=rank.seed1"
    ]  # fmt: skip
    stored = ResultStore(folder / "iqa-store").read_table("study-small-two").to_pylist()
    wanted = next(
        r["value"]
        for r in stored
        if (r["model"], r["row"], r["metric"]) == ("bold-loss=rank.seed1", "suite_min", "srocc")
    )
    assert float(rows[3][further]) == pytest.approx(wanted)
    assert rows[3][f"{further}_std"] == ""
    differences = list(csv.DictReader((folder / "s/small-contrasts.csv").read_text().splitlines()))
    at = [d for d in differences if (d["row"], d["metric"], d["suite"]) == ("composed", "srocc", "one")]
    assert [float(d["difference"]) for d in at] == pytest.approx(
        [
            float(rows[a]["composed inf 1/255"]) - float(rows[b]["composed inf 1/255"])
            for a, b in ((1, 0), (3, 1))
        ]
    )
    for d in at:
        assert float(d["low"]) <= float(d["difference"]) <= float(d["high"])
    assert {d["minuend"] for d in differences if d["suite"] == "two"} == {"bold-loss=rank"}
    page = (folder / "s/small.md").read_text()
    assert "| row | seeds | test SROCC |" in page
    assert "- noise on grey" in page
    assert "srocc (published)" in page
    code, _, _ = cli("report", "--input", "s", "--out", "page", "--format", "csv")
    assert code == 0
    tables = folder / "page/tables"
    assert (
        len(list(tables.glob("smart-6-log-*.csv"))) == 8
    )  # every run has its own, all are called seed-0 or seed-1
    reported = {row["Model"]: row for row in csv.DictReader((tables / "seeds.csv").read_text().splitlines())}
    for row in rows:
        again = reported[f"{row['label']} (2 seeds)"]
        for name, theirs in (
            ("test_srocc", "clean (set)"),
            ("composed inf 1/255", "composed at ε = 1/255, inf norm (one, set)"),
            ("suite_min inf 1/255", "suite_min at ε = 1/255, inf norm (one, set)"),
        ):
            assert float(again[f"{theirs} SROCC"]) == pytest.approx(float(row[name]))
            assert float(again[f"{theirs} SROCC std"]) == pytest.approx(float(row[f"{name}_std"]))
    code, _, err = cli("report", "--input", "s/small.parquet", "--out", "page")
    assert code == 3
    assert "a study's table; give its folder, --input s" in err
    weights = {path: path.stat().st_mtime_ns for path in (folder / "s").rglob("*.safetensors")}
    code, _, err = cli("study", "small.toml", *DATA, "--out", "s", "--no-attack")
    assert code == 0
    assert "epoch 1/1" not in err
    assert {path: path.stat().st_mtime_ns for path in (folder / "s").rglob("*.safetensors")} == weights


def test_a_point_that_cannot_be_trained_is_a_row_that_says_so(cli, folder):
    """An exploding rate fails its own row; the others are trained, the exit code says partial."""
    (folder / "small.toml").write_text(
        STUDY.format(preset="tiny.toml", suite="one.toml", label="mad", rate=1e30)
    )
    code, _, err = cli("study", "small.toml", *DATA, "--no-attack", "--seeds", "3", "--set", "patches=2")
    assert code == 4
    assert "failed: mad-loss=l1, seed 3" in err
    rows = list(csv.DictReader((folder / "iqa-store/studies/small/small.csv").read_text().splitlines()))
    assert [row["status"] == "ok" for row in rows] == [True, True, False, False]
    assert rows[2]["test_srocc"] == ""
    assert "in epoch 1" in rows[2]["status"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("loss = [", "los = ["), "point gentle-los=l1: los: unknown key, did you mean 'loss'"),
        (("seeds = [0, 1]", "seeds = [0, 0]"), "seeds: different whole numbers"),
        (('label = "bold"', 'label = "gentle"'), "gentle stands there twice"),
        (('label = "bold"', 'label = "../up"'), "names a folder"),
        (('"rank"]', '"rnk"]'), "point gentle-loss=rnk: loss: Input should be"),
        (("summary", "sumary"), "sumary: Extra inputs"),
        (("[grid]", "[grid"), "small.toml: "),
        (('suite = "one.toml"', 'suite = "none"'), "none"),
        (('["gentle-loss=rank", "gentle-loss=l1"]', '["gentle", "gentle-loss=l1"]'), "not gentle; there are"),
        (
            ('"gentle-loss=rank", "gentle-loss=l1"', '"gentle-loss=l1", "gentle-loss=l1"'),
            "two rows of the study",
        ),
        (('suite = "two.toml"', 'suite = "one.toml"'), "suites: one is named twice"),
        (('rows = ["*-loss=rank"]', 'rows = ["loss"]'), "suites: two.toml: no row is named 'loss'"),
    ],
)
def test_a_bad_study_is_refused_before_anything_is_trained(cli, folder, change, words):
    """Whatever is wrong with a row is known at the start, with the row's name."""
    file = folder / "small.toml"
    file.write_text(file.read_text().replace(*change))
    code, _, err = cli("study", "small.toml", *DATA)
    assert code == 3
    assert words in err.replace("\n", " ")
    assert not (folder / "iqa-store").exists()


def test_studies_are_listed_and_shown(cli):
    """Without a name the shipped studies are listed; --show prints one with its rows."""
    code, out, _ = cli("study", "--list")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == list_studies()
    shown = cli("study", "smart_sizes", "--show")[1]
    assert "# 3 row(s), seeds 0, 1, 2" in shown
    with pytest.raises(TrainingError, match=r"no study 'nothing'; .* smart_sizes"):
        load_study("nothing")


def test_a_spread_is_undefined_if_a_value_is():
    """One seed has no deviation; a seed without a value leaves no mean of the others."""
    assert Spread.of([0.5]) == (0.5, None)
    assert Spread.of([0.0, 1.0]) == pytest.approx((0.5, 0.5**0.5))
    assert Spread.of([0.5, None]) == (None, None)
    assert Spread.of([]).entry.kind == "missing"


def test_a_wide_table_goes_on_below(capsys, monkeypatch):
    """In a narrow terminal no value is broken: columns that do not fit stand below, under the same rows."""
    monkeypatch.setenv("COLUMNS", "60")
    texts = [(name, *(f"0.{n}234 ± 0.0567" for n in range(7))) for name in ("first", "second")]
    entries = tuple((label(name), *(Entry(text, "number") for text in row)) for name, *row in texts)
    groups = tuple(columns(f"column {n}") for n in range(7))
    view = TableView("wide", "wide", stub("row"), groups, entries, ())
    print_table(view, Console())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    for row in texts:
        for text in row[1:]:
            assert sum(row[0] in line and text in line for line in lines) == 1
    monkeypatch.setenv("COLUMNS", "200")
    print_table(view, Console())
    assert sum("first" in line for line in capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(("count", "told"), [(9, True), (10, False)])
def test_a_table_says_whose_plcc_is_of_raw_scores(count, told):
    """With fewer validation images than a fit needs no logistic is behind the numbers, and that is said."""
    model = create_model("linear", seed=0)
    pixels = [
        np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8) for i in range(count + 5)
    ]
    scores = score_images(model, ArrayImageSet.of(pixels, range(count + 5)))
    splits = ["val"] * count + ["test"] * 5
    data = ArrayImageSet.of(pixels, np.exp(scores / scores.std()), splits=splits)
    figures = Figures(
        weights_sha256="", data="", data_fingerprint="", epoch=1, seconds=0, splits=split_figures(model, data)
    )
    notes = [words for _, words in seed_table([(0, figures), (1, figures)]).view.notes]
    assert notes == ["PLCC of all runs is of raw scores: no logistic could be fitted on val."] * told
    warned = seed_table([(0, figures)], ["chosen on test"]).view.notes
    assert warned[0] == ("", "chosen on test")
    mixed = figures.model_copy(update={"splits": ()})
    assert [w.split(" is ")[0] for _, w in raw_notes([("a", mixed), ("b", figures)])] == ["PLCC of b"] * told
