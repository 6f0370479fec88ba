"""`iqa-harness evaluate`: clean agreement of models with opinion on several sets, in one table."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch
from PIL import Image

from iqa_harness.data import open_data
from iqa_harness.data.files.resized import ResizedImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evaluation import evaluate as evaluation
from iqa_harness.evaluation.evaluate import count_images, evaluate, name_sets, trained_on
from iqa_harness.evaluation.store import EVALUATION_SCHEMA, Evaluated, EvaluationStore
from iqa_harness.evaluation.table import evaluation_view
from iqa_harness.measures.correlation import fit_logistic
from iqa_models import create_model, save_checkpoint


def make_csv(folder, counts, *, seed=0, size=16, name="set"):
    """Write noise images whose label follows their brightness, and their CSV."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    rows = ["path,mos,split"]
    for split, count in counts.items():
        for i in range(count):
            level = generator.uniform(0.2, 1)
            pixels = (generator.integers(0, 256, (size, size, 3)) * level).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}{i}.png")
            rows.append(f"{split}{i}.png,{100 * level + generator.normal(0, 20):.3f},{split}")
    (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return folder / f"{name}.csv"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """One set with validation images, one without."""
    folder = tmp_path_factory.mktemp("sets")
    first = make_csv(folder / "a", {"val": 15, "test": 20}, seed=1, name="first")
    second = make_csv(folder / "b", {"test": 12}, seed=2, name="second")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IQA_HARNESS_CACHE", str(folder / "cache"))
        yield [(str(path), open_data(path, progress=False)) for path in (first, second)]


@pytest.fixture
def linear():
    model = create_model("linear")
    with torch.no_grad():
        model.pattern.abs_()  # brighter is better, as in the labels
    return Entrant("linear", model)


def run(entrants, sets, store, **options) -> Evaluated:
    return evaluate(entrants, name_sets(sets, options.pop("split", "test")), store, **options)


def scores_of(model, images):
    values = []
    for index in range(len(images)):
        pixels = torch.from_numpy(images.read(index)).permute(2, 0, 1)[None].float() / 255
        values.append(float(model(pixels).detach()))
    return np.array(values), np.array([record.mos for record in images.records])


def test_metrics_are_scipys(sets, linear, tmp_path):
    """SROCC, KROCC and unmapped PLCC are SciPy's, of the model's own scores of the test images."""
    rows = run([linear], sets, EvaluationStore(tmp_path)).rows.to_pylist()
    for row, (_, images) in zip(rows, sets, strict=True):
        values, labels = scores_of(linear.model, images.split("test"))
        assert row["images"] == len(labels)
        assert row["srocc"] == pytest.approx(scipy.stats.spearmanr(values, labels).statistic, abs=1e-9)
        assert row["krocc"] == pytest.approx(scipy.stats.kendalltau(values, labels).statistic, abs=1e-9)
        assert row["plcc_unmapped"] == pytest.approx(scipy.stats.pearsonr(values, labels).statistic, abs=1e-6)
        assert row["srocc_low"] < row["srocc"] < row["srocc_high"]
        assert row["interval"] == "percentile over images"  # fewer than 50 of them


@pytest.mark.slow
def test_the_logistic_is_fitted_on_validation_images(sets, linear, tmp_path):
    """PLCC is mapped by the logistic of the validation split where there is one, else of the test images."""
    rows = run([linear], sets, EvaluationStore(tmp_path)).rows.to_pylist()
    assert [row["mapping"] for row in rows] == ["logistic on val", "logistic on the evaluated images"]
    images = sets[0][1]
    logistic = fit_logistic(*scores_of(linear.model, images.split("val"))).logistic
    values, labels = scores_of(linear.model, images.split("test"))
    assert rows[0]["plcc"] == pytest.approx(np.corrcoef(logistic(values), labels)[0, 1], abs=1e-6)


def test_all_images(sets, linear, tmp_path):
    """`all` takes every image of a set, and no image twice to fit on."""
    found = run([linear], sets, EvaluationStore(tmp_path), split="all")
    assert [row["images"] for row in found.rows.to_pylist()] == [35, 12]
    assert found.rows.to_pylist()[0]["mapping"] == "logistic on the evaluated images"
    assert found.scores.num_rows == 47


class Counting(type(create_model("linear"))):  # type: ignore[misc]
    """A linear model that counts the images it scores and may stop at one."""

    seen = 0
    stop_at = None

    def predict(self, images):
        Counting.seen += len(images)
        if Counting.seen == Counting.stop_at:
            raise KeyboardInterrupt
        return super().predict(images)


@pytest.fixture
def counting(linear):
    model = linear.model
    model.__class__ = Counting
    Counting.seen, Counting.stop_at = 0, None
    return Entrant("counting", model)


@pytest.mark.slow
def test_scores_are_kept(sets, counting, tmp_path):
    """A second evaluation scores three images of each kept split again, and else what is new; so with other
    labels.
    """
    store = EvaluationStore(tmp_path)
    first = run([counting], sets[:1], store)
    assert Counting.seen == 35 + 2  # the first of each part again: is the score repeatable?
    both = run([counting], sets, store)
    assert Counting.seen == 35 + 2 + 2 * 3 + 12 + 1
    assert both.rows.slice(0, 1).equals(first.rows)
    labelled = Path(sets[0][0])
    relabelled = labelled.with_name("other.csv")
    relabelled.write_text(labelled.read_text().replace(",test", "1,test"))
    run([counting], [("other", open_data(relabelled, progress=False))], store)
    assert Counting.seen == 35 + 2 + 4 * 3 + 12 + 1


@pytest.mark.slow
def test_an_interrupt_costs_a_part_only(sets, counting, tmp_path, monkeypatch):
    """Stopped at the 23rd image with parts of 10, the second start computes what was not kept."""
    monkeypatch.setattr(evaluation, "KEPT_TOGETHER", 10)
    store = EvaluationStore(tmp_path)
    Counting.stop_at = 25  # test images are scored first: two parts of ten
    with pytest.raises(KeyboardInterrupt):
        run([counting], sets[:1], store)
    Counting.seen, Counting.stop_at = 0, None
    resumed = run([counting], sets[:1], store)
    assert Counting.seen == 35 - 20 + 2 + 3  # three kept ones are scored again
    assert resumed.rows.equals(run([counting], sets[:1], EvaluationStore(tmp_path / "fresh")).rows)


def test_damaged_scores_are_computed_again(sets, counting, tmp_path):
    """A cut or changed file of kept scores is no result: the scores are computed again."""
    store = EvaluationStore(tmp_path)
    expected = run([counting], sets[1:], store).rows
    (path,) = (tmp_path / "evaluations" / "scores").glob("*/*.parquet")
    content = path.read_bytes()
    for damaged in (content[:-20], content[:30] + bytes([content[30] ^ 255]) + content[31:]):
        path.write_bytes(damaged)
        Counting.seen = 0
        assert run([counting], sets[1:], store).rows.equals(expected)
        assert Counting.seen == 12 + 1


def test_a_resized_set_has_scores_of_its_own(sets, counting, tmp_path):
    """The same images at another size are scored anew."""
    store = EvaluationStore(tmp_path)
    text, images = sets[1]
    plain = run([counting], [(text, images)], store).scores
    small = run([counting], [(text, ResizedImageSet(images, "8x8"))], store).scores
    assert Counting.seen == 2 * (12 + 1)
    assert plain.column("score").to_pylist() != small.column("score").to_pylist()


def test_a_model_that_cannot_score_a_set(sets, linear, tmp_path):
    """Images too small for a model leave its row undefined with the reason; the other models' rows stand."""
    picky = Entrant("picky", create_model("linear"))
    picky.model.spec = picky.model.spec.replace(min_size=32)
    found = run([picky, linear], sets, EvaluationStore(tmp_path))
    rows = found.rows.to_pylist()
    assert [row["srocc"] is None for row in rows] == [True, True, False, False]
    assert "at least 32 pixels" in rows[0]["undefined"]
    assert set(found.errors) == {("picky", "first"), ("picky", "second")}


def test_constant_model_is_undefined(sets, linear, tmp_path):
    """Equal scores have no correlation: undefined with the reason, not 0."""
    with torch.no_grad():
        linear.model.pattern.zero_()
    row = run([linear], sets[1:], EvaluationStore(tmp_path)).rows.to_pylist()[0]
    assert row["srocc"] is None
    assert row["undefined"] == "all scores are equal"


@pytest.mark.slow
def test_progress_counts_every_image(sets, linear, tmp_path):
    """As many calls as announced, validation images included, kept or not."""
    named = name_sets(sets, "test")
    calls = []
    for _ in range(2):
        evaluate([linear], named, EvaluationStore(tmp_path), on_image=lambda: calls.append(1))
        assert len(calls) == count_images([linear], named) == 47
        calls.clear()


def test_two_sets_of_one_name(tmp_path, monkeypatch):
    """Two folders with sets of one name are told apart; the same set twice is refused."""
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(tmp_path / "cache"))
    paths = [make_csv(tmp_path / place, {"test": 4}, seed=i) for i, place in enumerate("ab")]
    opened = [(str(path), open_data(path, progress=False)) for path in paths]
    names = [data.name for data in name_sets(opened, "test")]
    assert names == ["set", f"set@{opened[1][1].fingerprint[:8]}"]
    with pytest.raises(RunError, match="given twice"):
        name_sets([opened[0], opened[0]], "test")
    with pytest.raises(RunError, match="0 images in split 'val'"):
        name_sets(opened, "val")


def test_what_a_checkpoint_was_trained_on(sets, tmp_path):
    """The card of a checkpoint tells its own set, its own set divided otherwise, and another set apart."""
    model = create_model("linear")
    images = sets[0][1]
    for training, expected in (
        ({"data": "first", "data_fingerprint": images.fingerprint}, "this set"),
        (
            {"data": "first", "data_fingerprint": images.fingerprint, "selected_on": "test"},
            "this set, chosen on test",
        ),
        ({"data": "first", "data_fingerprint": "x"}, "this set, divided otherwise"),
        ({"data": "koniq10k", "data_fingerprint": "x"}, "another set"),
        ({}, ""),
    ):
        save_checkpoint(model, tmp_path / "c", training=training)
        assert trained_on(Entrant("m", model, tmp_path / "c"), images) == expected
    assert trained_on(Entrant("m", model), images) == ""


@pytest.mark.parametrize(("selected_on", "told"), [("test", True), ("val", False)])
def test_figures_on_the_images_that_chose_the_epoch_are_said_to_flatter(sets, tmp_path, selected_on, told):
    """An author's recipe chooses on test: on that set's test images, and on no other set, a note says so."""
    model = create_model("linear")
    record = {"data": "first", "data_fingerprint": sets[0][1].fingerprint, "selected_on": selected_on}
    save_checkpoint(model, tmp_path / "c", training=record)
    found = run([Entrant("m", model, tmp_path / "c")], sets, EvaluationStore(tmp_path / "store"))
    view = evaluation_view(found.rows)
    marks = [mark for mark, note in view.notes if "epoch was chosen by these images" in note]
    assert bool(marks) is told
    assert all(mark in view.rows[0][3].text and mark not in view.rows[1][3].text for mark in marks)


@pytest.mark.slow
def test_command(cli, tmp_path):
    """Two models, two sets: a table in the terminal, and files that agree with it; again: the same."""
    first = make_csv(tmp_path / "a", {"val": 15, "test": 20}, seed=1, name="first")
    second = make_csv(tmp_path / "b", {"test": 12}, seed=2, name="second")
    line = ("evaluate", "-m", "linear", "-m", "other=linear?seed=1", "-d", str(first), "-d", str(second))
    code, out, _ = cli(*line, "--threads", "1")
    assert code == 0
    folder = tmp_path / "iqa-store" / "evaluations" / "evaluation"
    table = pq.read_table(folder / "table.parquet")
    assert table.schema.equals(EVALUATION_SCHEMA)
    rows = table.to_pylist()
    assert [(row["model"], row["data"]) for row in rows] == [
        ("linear", "first"),
        ("linear", "second"),
        ("other", "first"),
        ("other", "second"),
    ]
    assert all(f"{row['srocc']:.4f}".replace("-", "\N{MINUS SIGN}") in out for row in rows)
    assert "fitted on the evaluated images themselves" in out
    with (folder / "table.csv").open(newline="") as file:
        assert [float(row["srocc"]) for row in csv.DictReader(file)] == [row["srocc"] for row in rows]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [data["name"] for data in manifest["data"]] == ["first", "second"]
    assert manifest["data"][0]["card"]["split_rule"] == "as first.csv says"
    assert manifest["models"][1]["name"] == "other"
    scores = pq.read_table(folder / "scores.parquet").to_pylist()
    assert len(scores) == 2 * (20 + 12)
    before = (folder / "table.parquet").read_bytes()
    assert cli(*line, "--threads", "1")[0] == 0
    assert (folder / "table.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("-m", "linear", "-d", "koniq10k:/nowhere"), 3, "get it from"),
        (("-m", "linear", "-d", "koniq"), 3, "did you mean 'koniq10k'"),
        (("-m", "linear", "-m", "linear", "-d", "{own}"), 3, "two models are called 'linear'"),
        (("-m", "linear", "-d", "{own}", "--name", "../x"), 3, "an evaluation's name"),
        (("-m", "linear", "-d", "{own}", "--split", "train"), 3, "0 images in split 'train'"),
        (("-m", "linear"), 2, "--data"),
    ],
)
def test_wrong_command_lines(cli, tmp_path, arguments, code, expected):
    """A user's mistake ends before anything is computed, with one message and its exit code."""
    own = make_csv(tmp_path / "a", {"test": 4})
    found, _, err = cli("evaluate", *(text.format(own=own) for text in arguments))
    assert found == code
    assert expected in err
    assert not (tmp_path / "iqa-store").exists()


def test_partial(cli, tmp_path):
    """A model that cannot score one set: exit code 4, the reason on stderr and in the table."""
    large = make_csv(tmp_path / "a", {"test": 4}, size=64, name="large")
    small = make_csv(tmp_path / "b", {"test": 4}, size=8, name="small")
    code, out, err = cli("evaluate", "-m", "picky=demo_resnet10t", "-d", str(large), "-d", str(small))
    assert code == 4
    assert "no scores of picky on small" in err
    assert "undefined" in out


def evaluated(tmp_path, name="evaluation"):
    """Return table, scores and manifest of an evaluation in the default store."""
    stored = EvaluationStore(tmp_path / "iqa-store").read(name)
    return stored.rows.to_pylist(), stored.scores.to_pylist(), stored.manifest


@pytest.mark.slow
def test_calls_under_one_name_lose_nothing(cli, tmp_path):
    """Models and sets of three calls end in one table, as if one call had named them all."""
    first = make_csv(tmp_path / "a", {"val": 15, "test": 20}, seed=1, name="first")
    second = make_csv(tmp_path / "b", {"test": 6}, seed=2, name="second")
    line = ("evaluate", "--threads", "1")
    assert cli(*line, "-m", "linear", "-d", str(first))[0] == 0
    code, out, _ = cli(*line, "-m", "linear", "-d", str(second), "--seed", "5")
    assert code == 0
    assert "first" in out  # the whole table is shown
    assert "second" in out
    other = ("-m", "other=linear?seed=1", "-d", str(first), "-d", str(second))
    assert cli(*line, *other)[0] == 0
    rows, scores, manifest = evaluated(tmp_path)
    assert cli(*line, "-m", "linear", *other, "--name", "whole")[0] == 0
    whole_rows, whole_scores, whole = evaluated(tmp_path, "whole")
    place = lambda row: (row["model"], row["data"], row.get("image_id"))  # noqa: E731
    values = lambda rows: {place(r): (r["srocc"], r["plcc"], r["krocc"]) for r in rows}  # noqa: E731
    assert len(rows) == 4
    assert values(rows) == values(whole_rows)
    assert sorted(scores, key=place) == sorted(whole_scores, key=place)
    assert {m["name"] for m in manifest["models"]} == {m["name"] for m in whole["models"]}
    assert [d["name"] for d in manifest["data"]] == ["first", "second"]
    assert [(call["seed"], call["rows"]) for call in manifest["earlier"]] == [
        (0, [["linear", "first", "test"]]),
        (5, [["linear", "second", "test"]]),
    ]
    assert "earlier" not in whole


def test_every_row_shows_its_split(cli, tmp_path):
    """Rows of two splits of a set, by calls in any order: each stands under its own split and image count."""
    own = make_csv(tmp_path / "a", {"val": 5, "test": 6}, name="own")
    line = ("evaluate", "--threads", "1", "-d", str(own))
    for model, split in (("linear", "val"), ("linear", "test"), ("other=linear?seed=1", "val")):
        code, out, _ = cli(*line, "-m", model, "--split", split)
        assert code == 0
    lines = [line.split()[:4] for line in out.splitlines() if " linear" in line or " other" in line]
    assert lines[:2] == [["own", "test", "6", "linear"], ["own", "val", "5", "linear"]]
    assert lines[2][0] == "other"


def test_another_set_of_that_name_gets_a_name(cli, tmp_path):
    """A set called like one that is in the table, of other images, stands beside it."""
    paths = [make_csv(tmp_path / place, {"test": 6}, seed=i) for i, place in enumerate("ab")]
    for path in (*paths, *paths):
        assert cli("evaluate", "-m", "linear", "-d", str(path))[0] == 0
    rows, scores, _ = evaluated(tmp_path)
    digest = open_data(paths[1], progress=False).fingerprint[:8]
    assert [row["data"] for row in rows] == ["set", f"set@{digest}"]
    assert len(scores) == 12


def test_rows_of_former_weights_go_and_are_named(cli, tmp_path):
    """A label that now means other weights keeps no row of the old ones, and says which went."""
    first = make_csv(tmp_path / "a", {"test": 6}, seed=1, name="first")
    second = make_csv(tmp_path / "b", {"test": 6}, seed=2, name="second")
    assert cli("evaluate", "-m", "m=linear", "-d", str(first), "-d", str(second))[0] == 0
    code, _, err = cli("evaluate", "-m", "m=linear?seed=1", "-d", str(first))
    assert code == 0
    assert "left out of the table, m on second, test: of other weights than now" in err
    rows, scores, manifest = evaluated(tmp_path)
    assert [row["data"] for row in rows] == ["first"]
    assert {row["data"] for row in scores} == {"first"}
    assert [d["name"] for d in manifest["data"]] == ["first"]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("file", ["table.parquet", "scores.parquet", "manifest.json"])
def test_a_damaged_table_is_not_replaced(cli, tmp_path, file, lost):
    """What is cut or gone cannot be kept: refused before anything is computed, with what to do."""
    first = make_csv(tmp_path / "a", {"test": 6}, seed=1, name="first")
    assert cli("evaluate", "-m", "linear", "-d", str(first))[0] == 0
    path = tmp_path / "iqa-store/evaluations/evaluation" / file
    path.write_bytes(path.read_bytes()[:-9])
    if lost:
        path.unlink()
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    code, _, err = cli("evaluate", "-m", "linear?seed=2", "-d", str(first))
    assert code == 3
    assert "choose another --name" in err
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    assert len(list((tmp_path / "iqa-store/evaluations/scores").glob("*/*"))) == 1
