"""The table against SciPy on the stored rows, and the order its values must keep."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.measures.correlation import MIN_FIT, fit_logistic, plcc
from iqa_harness.running.manifest import RunConfig, notes_of
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import create_model
from iqa_results import ResultStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ResultStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(store, images, suite):
    """A run of one linear model: rows, table, intervals, manifest."""
    entrants = [Entrant("m", create_model("linear", seed=10))]
    manifest = run_suite(plan(suite, entrants, images), entrants, RunConfig("r", ""), store)
    rows = store.read_cells(c.key for c in manifest.cells).to_pandas()
    made = robustness_table(store, manifest)
    return rows, made.table.to_pandas(), made.intervals.to_pandas(), manifest


def _value(table, metric="srocc", **where):
    chosen = table[table["metric"] == metric]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1, where
    return chosen.iloc[0]


def test_every_attack_row_is_scipys_srocc(result):
    """Each value is SciPy's SROCC of the stored scores, beside the clean one on the same images."""
    rows, table, _, _ = result
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == "test")]
    expected_clean = spearmanr(clean["clean_score"], clean["mos"]).statistic
    ends = rows["objective"].isin(["lowest_seen", "highest_seen"])
    attacked = rows[(rows["attack"] != "clean") & ~ends]
    keys = ["attack", "objective", "norm", "epsilon", "steps"]
    checked = 0
    for key, group in attacked.groupby(keys):
        row = _value(table, row="attack", **dict(zip(keys, key, strict=True)))
        assert row["value"] == pytest.approx(spearmanr(group["adv_score"], group["mos"]).statistic, abs=1e-12)
        assert row["value_8bit"] == pytest.approx(
            spearmanr(group["adv_score_8bit"], group["mos"]).statistic, abs=1e-12
        )
        assert row["clean"] == pytest.approx(expected_clean, abs=1e-12)
        assert row["low"] <= row["value"] <= row["high"]
        checked += 1
    # fgsm: 2 objectives; pgd: 2 radii x 3 prefixes x 5 objectives
    assert checked == 2 + 2 * 3 * 5
    assert not {"lowest_seen", "highest_seen"} & set(table["objective"])


def test_plcc_uses_the_logistic_of_clean_validation_scores(result):
    """PLCC is Pearson's after the logistic fitted on the validation split and frozen."""
    rows, table, _, _ = result
    val = rows[rows["split"] == "val"]
    logistic = fit_logistic(val["clean_score"].to_numpy(), val["mos"].to_numpy()).logistic
    group = rows[(rows["objective"] == "mse") & rows["final"] & (rows["epsilon"] > 0.01)].sort_values(
        "position"
    )
    row = _value(table, "plcc", row="attack", attack="pgd", objective="mse", epsilon=4 / 255, final=True)
    expected = plcc(logistic(group["adv_score"].to_numpy()), group["mos"].to_numpy()).value
    assert row["value"] == pytest.approx(expected, abs=1e-12)
    assert row["mapping"] == "logistic on val"


@pytest.mark.parametrize(("count", "told"), [(0, True), (MIN_FIT - 1, True), (MIN_FIT, False)])
def test_a_run_says_when_the_logistic_is_of_the_test_images(images, suite, count, told):
    """Not only without validation images: also with too few of them for a fit."""
    places = {s: [i for i, r in enumerate(images.records) if r.split == s] for s in ("test", "val")}
    data = images.subset([*places["test"], *places["val"][:count]])
    work = plan(suite, [Entrant("m", create_model("linear", seed=10))], data)
    assert len(work.validation) == count
    found = [note for note in notes_of(work) if note.endswith("fitted on clean test scores")]
    assert bool(found) is told


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_the_order_of_worst_cases(result, metric):
    """Composed <= suite_min <= every member, and more radius or steps never help the composed defender."""
    _, table, _, manifest = result
    for epsilon in (2 / 255, 4 / 255):
        for steps in (1, 2, 4):
            at = {"epsilon": epsilon, "steps": steps}
            least = _value(table, metric, row="suite_min", **at)
            members = [
                _value(table, metric, row="attack", attack=a, objective=o, **at)["value"]
                for a, o in (m.split("/") for m in manifest.suite_min)
            ]
            assert least["value"] == min(members)
            if steps == 4 or epsilon == manifest.main_epsilon:
                assert _value(table, metric, row="composed", **at)["value"] <= least["value"] + 1e-12
            assert least["final"] == (steps == 4)
    fewer = [_value(table, metric, row="composed", epsilon=4 / 255, steps=s)["value"] for s in (1, 2, 4)]
    assert fewer[2] <= fewer[0] + 0.05  # coordinate descent is a search, not a proof
    small = _value(table, metric, row="composed", epsilon=2 / 255, final=True)["value"]
    large = _value(table, metric, row="composed", epsilon=4 / 255, final=True)["value"]
    assert large <= small + 0.05


def test_the_minimum_is_of_its_members_and_of_no_other_attack(result, store):
    """Whatever the members are: by attack and objective, though another objective of the attack does more."""
    _, table, _, manifest = result
    own = table[(table["row"] == "attack") & table["final"]]
    lower = 0
    for members in ({"pgd/mse"}, {"pgd/drift"}, {"pgd/raise", "pgd/lower"}, {"pgd/raise", "pgd/mse"}):
        edited = manifest.model_copy(update={"suite_min": tuple(members)})
        made = robustness_table(store, edited, resamples=2).table.to_pandas()
        for least in made[(made["row"] == "suite_min") & made["final"]].itertuples():
            at = own[(own["epsilon"] == least.epsilon) & (own["metric"] == least.metric)]
            mine = at[(at["attack"] + "/" + at["objective"]).isin(members)]
            assert len(mine) == len(members)
            assert least.value == mine["value"].min()
            lower += at["value"].min() < least.value
    assert lower > 4  # so often another attack did more


def test_the_suite_min_names_its_member(result):
    """The minimum says which attack gave it."""
    _, table, _, manifest = result
    row = _value(table, row="suite_min", epsilon=4 / 255, final=True)
    assert f"{row['attack']}/{row['objective']}" in manifest.suite_min


def test_intervals_hold_everything_found(result):
    """An image's interval is the range of all its scores at that radius and below, clean included."""
    rows, table, intervals, _ = result
    assert len(intervals) == 2 * 12
    for interval in intervals.itertuples():
        mine = rows[(rows["image_id"] == interval.image_id) & (rows["epsilon"] <= interval.epsilon)]
        assert interval.s_min == mine["adv_score"].min()
        assert interval.s_max == mine["adv_score"].max()
        assert interval.s_min <= interval.clean <= interval.s_max
        assert interval.composed_srocc in set(mine["adv_score"])
    at = intervals[intervals["epsilon"] > 0.01]
    composed = _value(table, row="composed", epsilon=4 / 255, final=True)["value"]
    assert spearmanr(at["composed_srocc"], at["mos"]).statistic == pytest.approx(composed, abs=1e-12)


def test_a_linear_models_worst_case_is_its_closed_form(result, images):
    """With raise and lower reaching the known optimum, every reachable interval is the closed form."""
    _, _, intervals, _ = result
    weight = create_model("linear", seed=10).weight(16, 16).detach().double().numpy()
    by_id = {r.image_id: i for i, r in enumerate(images.records)}
    for interval in intervals.itertuples():
        clean = images.read(by_id[interval.image_id]).transpose(2, 0, 1) / 255
        for side, reached in ((1, interval.s_max), (-1, interval.s_min)):
            best = np.clip(clean + side * interval.epsilon * np.sign(weight), 0, 1)
            assert reached == pytest.approx(0.5 + (weight * best).mean(), abs=1e-5)
