"""What a run does not have: it stays visible in every table, and no model it is missing for is sound."""

import functools
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from iqa_harness.api.verify import judged
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.measures.composed import composed_worst_case
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.tables.ties import Place, difference_rows
from iqa_models import QualityModel, create_model
from iqa_results import ROW_SCHEMA, BadPart, ResultStore

MAIN, SMALL = 4 / 255, 2 / 255
LOST = {
    "every attack": lambda c: c.attack != "clean",
    "the main radius": lambda c: c.epsilon == MAIN,
    "the small radius": lambda c: c.epsilon == SMALL,
    "an attack": lambda c: c.attack == "fgsm",
    "one cell": lambda c: c.attack == "pgd" and c.epsilon == MAIN and c.first == 4,
    "the clean scores": lambda c: c.attack == "clean" and c.split == "test",
    "everything": lambda c: True,
}


@pytest.fixture(scope="module")
def two(tmp_path_factory, images, suite, suite_text):
    """A whole run of two linear models."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    entrants = [Entrant(f"m{seed}", create_model("linear", seed=seed)) for seed in (10, 11)]
    return store, run_suite(
        plan(suite, entrants, images), entrants, RunConfig("r", suite_text), store, Runtime()
    )


@pytest.fixture(scope="module")
def whole(two):
    """Its tables."""
    return tables(*two)


def without(manifest, lost, model="m10"):
    """The manifest with some cells of one model missing."""
    cells = tuple(
        c.model_copy(update={"status": "missing"}) if c.model == model and lost(c) else c
        for c in manifest.cells
    )
    return manifest.model_copy(update={"cells": cells, "status": "partial"})


def tables(store, manifest):
    return robustness_table(store, manifest, resamples=20)


@pytest.fixture(scope="module")
def lacking(two):
    """Return a function from a name of LOST to the manifest that lacks it and its tables, made once."""
    store, manifest = two

    @functools.cache
    def of(name):
        part = without(manifest, LOST[name])
        return part, tables(store, part)

    return of


def places(table, *names, **where):
    return {
        tuple(row[name] for name in names)
        for row in table.to_pylist()
        if all(row[key] == value for key, value in where.items())
    }


@pytest.mark.parametrize("name", LOST)
def test_every_row_of_the_whole_run_is_there_and_what_is_missing_says_why(lacking, whole, name):
    """Attacks with all their prefixes, worst cases and pairs of models, as if nothing were missing."""
    _, part = lacking(name)
    key = ("model", "attack", "objective", "norm", "epsilon", "steps", "final", "metric")
    assert places(part.table, *key, row="attack") == places(whole.table, *key, row="attack")
    worst = ("model", "norm", "epsilon", "metric")
    for row in ("suite_min", "composed"):
        main = {"row": row, "final": True, "epsilon": MAIN}
        assert places(part.table, *worst, **main) == places(whole.table, *worst, **main)
    pair = ("model_a", "model_b", "row", "norm", "epsilon", "metric")
    assert places(part.differences, *pair) == places(whole.differences, *pair)
    for row in part.table.to_pylist():
        assert (row["value"] is None) <= bool(row["undefined"])
    by_place = {tuple(r[n] for n in (*key, "row")): r for r in whole.table.to_pylist()}
    for row in part.table.to_pylist():
        if row["value"] is not None:  # never a number from less
            assert row["value"] == by_place[tuple(row[n] for n in (*key, "row"))]["value"]


@pytest.mark.parametrize("name", LOST)
def test_a_model_that_lacks_what_counts_is_incomplete(lacking, whole, name):
    """Not sound, whatever the flags that could be measured say; the other model is not concerned."""
    part, made = lacking(name)
    verdicts = dict(places(made.table, "model", "verdict"))
    assert verdicts["m10"] == "incomplete"
    assert verdicts["m11"] == dict(places(whole.table, "model", "verdict"))["m11"]
    assert any(each.verdict != "sound" for each in judged(made.flags.to_pylist(), part))
    flags = {f["flag"]: f for f in made.flags.to_pylist() if f["model"] == "m10"}
    expected = sum(
        LOST[name](c) for c in part.cells
        if c.model == "m10" and (c.attack == "clean" or c.epsilon == MAIN)
    )  # fmt: skip
    assert flags["attacks_missing"]["value"] == expected
    assert flags["worst_case_undefined"]["value"] == {"an attack": 1, "the small radius": 1}.get(name, 2)


@pytest.mark.parametrize(("radius", "undefined"), [(MAIN, {MAIN}), (SMALL, {SMALL, MAIN})])
def test_a_row_that_is_gone_undefines_its_radius_and_those_above(two, whole, tmp_path, radius, undefined):
    """One image of a cell is not there: the others make no worst case, and a smaller ball has its own."""
    store, manifest = two
    store = ResultStore(shutil.copytree(store.root, tmp_path / "store"))
    cell = next(c for c in manifest.cells if (c.model, c.attack, c.epsilon) == ("m10", "pgd", radius))
    rows = [row for row in store.read_cell(cell.key).to_pylist() if row["position"] != cell.first]
    store.write_cell(cell.key, rows)
    key = ("row", "epsilon", "metric")
    mine = {"model": "m10", "final": True}
    before, after = (
        {row[:3]: row[3:] for row in places(t, *key, "value", "undefined", **mine) if row[0] == "composed"}
        for t in (whole.table, tables(store, manifest).table)
    )
    assert before.keys() == after.keys()
    for place, (value, why) in after.items():
        if place[1] in undefined:
            assert value is None
            assert "1 of 12 images are missing" in why
        else:
            assert value == before[place][0] is not None


def test_a_run_without_its_suites_text_is_incomplete_too(two):
    """What was planned is then known from the cells alone."""
    store, manifest = two
    part = without(manifest, LOST["every attack"]).model_copy(update={"suite_text": ""})
    made = tables(store, part)
    assert dict(places(made.table, "model", "verdict"))["m10"] == "incomplete"


@pytest.mark.parametrize("name", ["every attack", "the main radius"])
def test_a_worst_case_nothing_of_which_is_stored_is_undefined_not_gone(lacking, name):
    """Both rows stand at the main radius, without a value and with the reason."""
    rows = lacking(name)[1].table.to_pylist()
    mine = [r for r in rows if r["model"] == "m10" and r["epsilon"] == MAIN and r["final"]]
    found = {(r["row"], r["metric"]): r for r in mine if r["row"] in ("suite_min", "composed")}
    assert len(found) == 4
    assert {r["value"] for r in found.values()} == {None}
    assert "no results of pgd/drift, pgd/mse" in found["suite_min", "srocc"]["undefined"]
    assert "6 cells of fgsm, pgd" in found["composed", "srocc"]["undefined"] or name == "every attack"
    attack = next(r for r in mine if r["row"] == "attack")
    assert attack["undefined"] == "12 of 12 images are missing (cells failed or not run)"


def rewritten(two, tmp_path, change):
    """The run with its parts changed: `change` maps the rows of a cell to those that are stored."""
    store, manifest = two
    other = ResultStore(tmp_path)
    for cell in manifest.cells:
        other.write_cell(cell.key, change(cell, store.read_cell(cell.key).to_pylist()))
    return other, manifest


def test_a_prefix_is_never_taken_for_full_strength(two, tmp_path):
    """Parts without their last number of steps: the minimum and the composed case have no value."""

    def cut(cell, rows):
        at = cell.model == "m10" and cell.attack == "pgd" and cell.epsilon == MAIN
        return [r for r in rows if not (at and r["final"])]

    made = tables(*rewritten(two, tmp_path, cut))
    rows = [r for r in made.table.to_pylist() if r["model"] == "m10" and r["epsilon"] == MAIN]
    full = [r for r in rows if r["row"] in ("suite_min", "composed") and r["final"]]
    assert len(full) == 4
    assert {r["value"] for r in full} == {None}
    assert any("no results of pgd/mse" in r["undefined"] for r in full) or all(
        "no results" in r["undefined"] for r in full
    )
    assert not [r for r in rows if r["attack"] == "pgd" and r["final"] and r["value"] is not None]
    assert dict(places(made.table, "model", "verdict"))["m10"] == "incomplete"


def test_a_lost_image_of_a_prefix_leaves_a_hole_of_that_prefix(two, tmp_path):
    """It is no second value at full strength, and the adversary who lacks it composes nothing."""

    def cut(cell, rows):
        at = cell.model == "m10" and cell.attack == "pgd" and cell.epsilon == MAIN and cell.first == 0
        return [r for r in rows if not (at and r["steps"] == 1 and r["image_id"] == "test-2")]

    made = tables(*rewritten(two, tmp_path, cut))
    rows = [r for r in made.table.to_pylist() if r["model"] == "m10" and r["epsilon"] == MAIN]
    mse = [r for r in rows if (r["row"], r["objective"], r["metric"]) == ("attack", "mse", "srocc")]
    assert [(r["steps"], r["final"], r["value"] is None) for r in sorted(mse, key=lambda r: r["steps"])] == [
        (1, False, True), (2, False, False), (4, True, False),
    ]  # fmt: skip
    composed = [r for r in rows if r["row"] == "composed"]
    assert {r["value"] for r in composed} == {None}
    assert "1 of 12 images are missing" in composed[0]["undefined"]


def test_pairs_of_which_one_has_no_value_have_a_row(two):
    """Null, on no image, and nobody is tied with what is missing."""
    store, manifest = two
    made = tables(store, without(manifest, LOST["one cell"]))
    rows = [r for r in made.differences.to_pylist() if r["row"] == "suite_min"]
    assert [(r["model_a"], r["model_b"], r["difference"], r["images"]) for r in rows] == [
        ("m10", "m11", None, 0)
    ] * 2
    ties = places(made.table, "model", "ties_with", row="suite_min", final=True, epsilon=MAIN)
    assert ties == {("m10", None), ("m11", None)}
    nobody = difference_rows({Place("clean", "none", 0.0, "srocc"): []}, ["a", "b", "c"])
    assert [(r.model_a, r.model_b) for r in nobody] == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_equal_labels_have_no_worst_case(metric):
    """Undefined at once, without a search that divides by nothing."""
    scores = np.random.default_rng(0).random((6, 3))
    found = composed_worst_case(list(scores), np.full(6, 2.0), metric, [np.ones(6, dtype=np.intp)])
    assert found.value == (None, "all labels are equal")
    assert np.array_equal(found.scores, scores[:, 0])


def test_a_run_on_equal_labels_is_incomplete(tmp_path, images, suite, suite_text):
    """No number of it is defined: that is no clean bill."""
    flat = images.subset(range(len(images)))
    flat.records = [r._replace(mos=3.0) for r in images.records]
    store, entrants = ResultStore(tmp_path), [Entrant("m", create_model("linear", seed=10))]
    made = tables(store, run_suite(plan(suite, entrants, flat), entrants, RunConfig("r", suite_text), store))
    assert {row["value"] for row in made.table.to_pylist()} == {None}
    assert places(made.table, "verdict") == {("incomplete",)}
    flags = {f["flag"]: f for f in made.flags.to_pylist()}
    assert flags["worst_case_undefined"]["value"] == 2
    assert "all labels are equal" in flags["worst_case_undefined"]["detail"]


@pytest.mark.parametrize("column", ["clean_score", "adv_score", "adv_score_8bit", "attack_score", "mos"])
def test_a_stored_score_that_is_no_number_is_a_damaged_part(two, tmp_path, column):
    """Whoever reads the part is told which cell, image and column; none can be written."""
    store, manifest = two
    cell = next(c for c in manifest.cells if c.attack == "pgd")
    rows = store.read_cell(cell.key).to_pylist()
    rows[3][column] = float("nan")
    says = rf"{column} of image '{rows[3]['image_id']}' \(row 3\) is not finite"
    other = ResultStore(tmp_path)
    with pytest.raises(BadPart, match=says):
        other.write_cell(cell.key, rows)
    other.cell_path(cell.key).parent.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=ROW_SCHEMA), other.cell_path(cell.key), write_page_checksum=True
    )
    with pytest.raises(BadPart, match=says):
        robustness_table(other, manifest.model_copy(update={"cells": (cell,)}))


class Unsound(QualityModel):
    """Breaks one assumption of the harness at a time."""

    def __init__(self, fault: str) -> None:
        super().__init__(create_model("linear").spec.replace(name="unsound"))
        self.fault, self.calls = fault, 0

    def predict(self, images: Tensor) -> Tensor:
        self.calls += 1
        scores = images.mean((1, 2, 3))
        if self.fault == "repeatable":
            return scores + 1e-3 * self.calls
        if self.fault == "batch_independent":
            return scores + 0.01 * len(images)
        if self.fault == "finite_scores":
            return scores * float("nan")
        return scores.detach()


def run_of(store, images, suite, entrants):
    return run_suite(plan(suite, entrants, images), entrants, RunConfig("r"), store, Runtime())


@pytest.mark.parametrize("fault", ["repeatable", "batch_independent", "finite_scores", "gradient_finite"])
def test_a_model_that_breaks_the_contract_is_not_attacked(tmp_path, images, suite, fault):
    """Without repeatable, independent, finite scores and a gradient nothing is run and nothing stored."""
    store = ResultStore(tmp_path)
    with pytest.raises(RunError, match=f"fails the check '{fault}'"):
        run_of(store, images, suite, [Entrant("bad", Unsound(fault).eval())])
    assert store.list_runs() == []


@pytest.fixture(scope="module")
def alone(tmp_path_factory, images, suite):
    """A run of one honest model: store, manifest, tables."""
    store = ResultStore(tmp_path_factory.mktemp("alone"))
    manifest = run_of(store, images, suite, [Entrant("first", create_model("linear", seed=4))])
    return store, manifest, tables(store, manifest)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["repeatable", "batch_independent", "finite_scores", "gradient_finite"])
def test_a_model_that_breaks_the_contract_costs_its_own_cells(tmp_path, images, suite, alone, fault):
    """The other's rows and values are those of a run of its own; the bad one is invalid, with the reason."""
    its_store, expected, its_tables = alone
    good = [Entrant("first", create_model("linear", seed=4))]
    store = ResultStore(tmp_path)
    manifest = run_of(store, images, suite, [Entrant("bad", Unsound(fault).eval()), *good])
    assert manifest.status == "partial"
    cells = {name: [c for c in manifest.cells if c.model == name] for name in ("bad", good[0].label)}
    assert {cell.status for cell in cells["bad"]} == {"failed"}
    assert all(f"fails the check '{fault}'" in cell.error for cell in cells["bad"])
    assert {cell.status for cell in cells[good[0].label]} == {"done"}
    assert [note for note in manifest.notes if note.startswith(f"bad: invalid, fails the check '{fault}'")]
    assert not manifest.models[0].checks[fault]["passed"]
    keys = [cell.key for cell in cells[good[0].label]]
    assert keys == [cell.key for cell in expected.cells]
    mine, theirs = (s.read_cells(keys).drop_columns(["seconds"]) for s in (store, its_store))
    assert mine.equals(theirs)
    table = tables(store, manifest).table.to_pylist()
    assert {row["verdict"] for row in table if row["model"] == "bad"} == {"invalid"}
    assert all(f"fails the check '{fault}'" in row["undefined"] for row in table if row["model"] == "bad")
    own = its_tables.table.to_pylist()
    kept = [{**row, "ties_with": ""} for row in table if row["model"] != "bad"]
    assert kept == [{**row, "ties_with": ""} for row in own]
