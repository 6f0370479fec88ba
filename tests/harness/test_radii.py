"""Smallest radii from rows to tables: exact on a linear model, cut off where they are, no worst cases."""

import numpy as np
import pytest
import torch

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.measures.bootstrap import Bootstrap
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.radii import FRAME, median_interval, radii_frame
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification.rows import rows_disagree
from iqa_models import create_model
from iqa_results import ResultStore, Selection
from iqa_suites import parse_suite

PLAIN = """
name = "tiny-radii"
summary = "for tests"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/raise"]
cell_images = 4

[data]
name = "tiny"
images = 12

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["4/255"]
objectives = ["raise", "lower"]
steps = 3
relative_step_size = 0.5
batch = 4
"""
RADII = """
[[attacks]]
name = "minimum"
kind = "minimum_norm"
epsilons = ["{largest}"]
objectives = ["raise", "lower", "drift", "pairwise_inversion"]
goal = 0.5
steps = 6
batch = 4
"""


def _run(images, store, largest=None):
    text = PLAIN + (RADII.format(largest=largest) if largest else "")
    entrants = [Entrant("m", create_model("linear").eval())]
    work = plan(parse_suite(text, "tiny"), entrants, images)
    manifest = run_suite(work, entrants, RunConfig("r", text), store)
    assert [cell.error for cell in manifest.cells if cell.error] == []
    return manifest, robustness_table(store, manifest, resamples=200), work


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """Manifest, tables and rows of a run with a radius large enough for every image."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    manifest, tables, work = _run(images, store, "40/255")
    return manifest, tables, store.read_cells([c.key for c in manifest.cells]).to_pandas(), work


def _measures(tables, objective):
    frame = tables.measures.to_pandas()
    own = frame[(frame["attack"] == "minimum") & (frame["objective"] == objective)]
    return own[own["measure"] != "moved_share"].set_index("measure"), own[own["measure"] == "moved_share"]


def test_the_goal_is_a_share_of_the_iqr_of_all_evaluated_scores(run):
    """Of 12 images in cells of 4; a linear score moves by ||w||_1 a radius where the box lets it."""
    manifest, _, rows, _ = run
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == "test")]["clean_score"].to_numpy()
    low, high = np.percentile(clean, [25, 75])
    goal = 0.5 * (high - low)
    raised = rows[(rows["attack"] == "minimum") & (rows["objective"] == "raise")]
    moved = (raised["adv_score"] - raised["clean_score"]).to_numpy()
    assert (moved >= goal).all()
    assert moved == pytest.approx(np.full(12, goal), rel=2e-3)  # no further than it must
    model = create_model("linear")
    pixels = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(model(pixels).sum(), pixels)
    frame = radii_frame(rows, manifest, "m")
    radius = frame[frame["objective"] == "raise"]["radius"]
    free = goal / float(slope.abs().sum())
    assert (radius >= free * (1 - 1e-5)).all()
    assert radius.min() == pytest.approx(free, rel=0.01)


def test_the_median_its_interval_and_the_curve_are_those_of_the_images(run):
    manifest, tables, rows, _ = run
    frame = radii_frame(rows, manifest, "m")
    assert tuple(frame.columns) == FRAME
    for objective in ("raise", "lower", "drift", "pairwise_inversion"):
        radius = frame[frame["objective"] == objective]["radius"].to_numpy()
        found, curve = _measures(tables, objective)
        assert found.loc["radius_median", "value"] == np.median(radius)
        assert found.loc["radius_low", "value"] <= np.median(radius) <= found.loc["radius_high", "value"]
        assert found.loc["radius_missed", "value"] == 0
        assert curve["epsilon"].tolist() == sorted(set(radius))
        assert curve["value"].tolist() == [(radius <= r).mean() for r in sorted(set(radius))]
    each = frame.pivot(index="image_id", columns="objective", values="radius")
    assert (each["drift"] == each[["raise", "lower"]].min(axis=1)).all()


def test_a_median_beyond_the_largest_radius_has_no_number(images, run, tmp_path):
    """At a largest radius below most images' own, a share is missed and the median is said to be beyond."""
    manifest, _, rows, _ = run
    radius = radii_frame(rows, manifest, "m").query("objective == 'raise'")["radius"].to_numpy()
    largest = (np.sort(radius)[3] + np.sort(radius)[4]) / 2
    if np.sort(radius)[4] - np.sort(radius)[3] < 1e-3 * largest:
        largest = 0.9 * radius.min()
    _, tables, _ = _run(images, ResultStore(tmp_path), f"{largest:.9f}")
    found, _ = _measures(tables, "raise")
    assert found.loc["radius_missed", "value"] == pytest.approx((radius > largest).mean(), abs=1 / 24)
    assert np.isnan(found.loc["radius_median", "value"])
    assert "beyond the largest radius" in found.loc["radius_median", "undefined"]


def test_worst_cases_are_those_of_the_suite_without_it(images, run, tmp_path):
    """Nothing of it is in table, reach and flags: its examples are weak ones in a large ball."""
    _, tables, _, _ = run
    _, plain, _ = _run(images, ResultStore(tmp_path))
    assert tables.table.equals(plain.table) and tables.intervals.equals(plain.intervals)
    flags = [frame.to_pandas()[["flag", "value", "raised"]] for frame in (tables.flags, plain.flags)]
    assert flags[0].equals(flags[1])


def test_cells_of_fewer_images_are_others(images, run):
    """The goal hangs on all evaluated images: with fewer of them the same cell has another key."""
    entrants = [Entrant("m", create_model("linear").eval())]
    fewer = plan(run[3].suite, entrants, images, Selection(limit=8))
    keys = [{c.attack_name: c.key for c in work.cells if c.first == 0} for work in (fewer, run[3])]
    assert keys[0]["minimum"] != keys[1]["minimum"]
    assert keys[0]["pgd"] == keys[1]["pgd"]


@pytest.mark.parametrize("missed", [0, 7, 13])
def test_the_interval_of_a_median_respects_what_was_cut_off(missed):
    """Draws done by hand: their medians at the widened percentiles; inf where they are beyond the largest."""
    radius = np.random.default_rng(0).uniform(size=20)
    radius[np.argsort(radius)[20 - missed :]] = np.inf
    bootstrap = Bootstrap(np.arange(20.0), resamples=400, seed=5)
    drawn = np.random.default_rng(5).integers(0, 20, size=(400, 20))
    by_hand = np.sort(np.median(radius[drawn], axis=1))
    assert np.array_equal(np.sort(bootstrap.medians(radius)), by_hand)
    low, high = median_interval(radius, bootstrap)
    assert low <= np.median(radius) <= high
    share = [(by_hand < low).mean(), (by_hand > high).mean()]
    assert max(share) < 0.025
    assert np.isinf(high) == (missed > 4)


def test_a_stored_radius_that_is_not_the_examples_size_is_found(run):
    """Rows as they are agree with each other; a forged radius is named, or size."""
    manifest, _, rows, _ = run
    assert rows_disagree("m", rows, manifest.models[0].card, manifest) == []
    at = rows[(rows["attack"] == "minimum") & (rows["objective"] == "lower")].index[0]
    for name, share in (("loss", 1.1), ("linf", 0.9)):
        forged = rows.copy()
        forged.loc[at, name] *= share
        findings = rows_disagree("m", forged, manifest.models[0].card, manifest)
        assert [finding.detail for finding in findings] == ["has a loss that is not minus its size"]
