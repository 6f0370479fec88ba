"""A run with a closed loop: its cell, its rows, its column below composed, made again by verification."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from helpers.stored_runs import made
from helpers.views import view_run
from iqa_harness.cells.compute import run_cell
from iqa_harness.cells.plan import list_cells, plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.runtime import Runtime
from iqa_harness.tables.robustness import model_rows, robustness_table
from iqa_harness.verification import verify_run
from iqa_harness.verification.recompute import Again
from iqa_harness.verification.rows import rows_disagree
from iqa_models import create_model
from iqa_reports.tables import leaderboard_table, short_board
from iqa_suites import BadSuite, parse_suite

RADII = (2 / 255, 4 / 255)
PLAIN = """
name = "looped"
summary = "for tests"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/mse"]
cell_images = 6

[data]
name = "tiny"
images = 12

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["2/255", "4/255"]
objectives = ["mse", "raise"]
steps = 2
relative_step_size = 0.6
"""
LOOP = """
[[attacks]]
name = "loop"
kind = "closed_loop"
epsilons = ["2/255", "4/255"]
objectives = ["srocc", "plcc"]
steps = 2
restarts = 2
"""
SUITE = PLAIN + LOOP


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A linear model on twelve images in cells of six."""
    return made(tmp_path_factory.mktemp("loop"), SUITE, images, [("one", "linear", {})])


@pytest.fixture(scope="module")
def table(run):
    store, _, _ = run
    return store.read_table("r", "table").to_pandas()


def _values(table):
    """Return the values at full strength by radius, metric and kind of row."""
    final = table[table["final"] & (table["row"] != "attack")]
    keys = zip(final["epsilon"], final["metric"], final["row"], strict=True)
    return dict(zip(keys, final["value"], strict=True))


def _tables_of(run, cells):
    store, manifest, _ = run
    changed = manifest.model_copy(update={"cells": cells})
    return robustness_table(store, changed, resamples=10).table.to_pandas()


def test_the_whole_set_is_one_cell_and_others_stay_as_they_were(images):
    """Of each radius one cell of all images; the keys of other attacks' cells do not know of it."""
    entrants, suite = [Entrant("one", create_model("linear"))], parse_suite(SUITE, "suite")
    work = plan(suite, entrants, images)
    mine = [cell for cell in work.cells if cell.attack_name == "loop"]
    assert [(cell.first, cell.count) for cell in mine] == [(0, 12)] * 2
    others = {cell.key for cell in work.cells} - {cell.key for cell in mine}
    assert others == {cell.key for cell in plan(parse_suite(PLAIN, "suite"), entrants, images).cells}
    assert list_cells(suite, work.rivals, work.images, work.validation) == list(work.cells)


def test_it_is_below_composed_and_composed_below_the_minimum(table):
    """At both radii and in both metrics."""
    values = _values(table)
    for place in itertools.product(RADII, ("srocc", "plcc")):
        loop, composed, least = (values[(*place, row)] for row in ("closed_loop", "composed", "suite_min"))
        assert loop < composed <= least


def test_composed_does_not_know_of_it(run, table):
    """Without the cells of the closed loop nothing else changes."""
    found = _values(_tables_of(run, [cell for cell in run[1].cells if cell.attack != "loop"]))
    wanted = {key: value for key, value in _values(table).items() if key[2] != "closed_loop"}
    np.testing.assert_equal(found, wanted)  # an undefined value is one on both sides


def test_its_value_follows_from_the_stored_scores(run, table):
    """The row of the attack is SciPy's SROCC of the scores in the store, and what the attack says itself."""
    store, manifest, _ = run
    rows = model_rows(store, manifest, "one")
    rows = rows[(rows["attack"] == "loop") & (rows["objective"] == "srocc")]
    found = table[
        (table["attack"] == "loop") & (table["objective"] == "srocc") & (table["metric"] == "srocc")
    ]
    for epsilon in RADII:
        mine = rows[rows["epsilon"] == epsilon]
        value = spearmanr(mine["adv_score"], mine["mos"]).statistic
        assert found[found["epsilon"] == epsilon]["value"].tolist() == pytest.approx([value], abs=1e-12)
        assert mine["backwards"].sum() <= 2 * 12 * 2 * 2  # objectives, images, steps, restarts
        (key,) = (c.key for c in manifest.cells if (c.attack, c.epsilon) == ("loop", epsilon))
        losses = store.read_cells([key], ("loss", "objective")).to_pandas()
        losses = losses[losses["objective"] == "srocc"]["loss"]
        assert np.allclose(losses, -value, rtol=0, atol=1e-12)


def test_verification_makes_it_again_and_finds_nothing(run, images):
    store, manifest, entrants = run
    seen = verify_run(store, manifest, entrants, images, sample=100)
    assert (seen.findings, seen.main_cells) == ([], {"one": (3, 3)})


def test_a_lost_cell_leaves_an_undefined_row(run, table):
    """The closed loop says why; composed does not need it."""
    lost = {"status": "missing"}
    cells = [c.model_copy(update=lost) if c.attack == "loop" else c for c in run[1].cells]
    rows = _tables_of(run, cells)
    mine = rows[rows["row"] == "closed_loop"]
    assert len(mine) == 4
    assert mine["value"].isna().all()
    assert mine["undefined"].str.contains("cells? of loop at this radius").all()
    values, found = _values(table), _values(rows)
    assert all(found[key] == values[key] for key in values if key[2] == "composed")


def test_it_has_a_column_of_the_full_board(run):
    """Beside composed with drop and 8-bit value; the short board stays as it is."""
    store, manifest, _ = run
    board = leaderboard_table(view_run(manifest, store.read_table("r", "table")), "srocc")
    assert [group.label for group in board.groups][:4] == ["clean", "suite_min", "composed", "closed_loop"]
    short = short_board(board)
    assert [group.label for group in short.groups] == ["clean", "suite_min", "composed", "Verdict"]
    assert short.rows[0][-1].text in ("sound", "suspect", "incomplete", "invalid")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (SUITE.replace('["pgd/mse"]', '["loop/srocc", "pgd/mse"]'), "has a row of its own"),
        (SUITE + "batch = 4\n", "attacks the whole set: leave batch out"),
        (SUITE.replace('["srocc", "plcc"]', '["srocc", "drift"]'), "drift"),
    ],
)
def test_what_a_suite_may_not_ask_of_it(changed, message):
    with pytest.raises(BadSuite, match=message):
        parse_suite(changed, "suite")


def test_a_set_s_loss_must_follow_from_its_scores(run):
    """One image's score, softened in every column that shows it, no longer gives the loss of the set."""
    store, manifest, _ = run
    rows = pd.concat([store.read_cell(cell.key).to_pandas() for cell in manifest.cells], ignore_index=True)
    card = manifest.models[0].card
    assert rows_disagree("one", rows, card, manifest) == []
    one = (rows["attack"] == "loop") & (rows["position"] == 5)
    for name in ("adv_score", "attack_score"):
        rows.loc[one, name] = rows.loc[one, "clean_score"]
    details = {finding.detail for finding in rows_disagree("one", rows, card, manifest)}
    assert details == {
        f"has a loss of {metric} that is not minus the {metric.upper()} of the scores of its set"
        for metric in ("srocc", "plcc")
    }


def test_elsewhere_only_the_set_s_value_is_held_against_another(run, images):
    """Where rounding differs, what the loop found of an image hangs on the last bits."""
    store, manifest, entrants = run
    parts = {cell.key: store.read_cell(cell.key) for cell in manifest.cells}
    other = manifest.model_copy(update={"tuning": {**manifest.tuning, "chunk": 999}})
    again = Again(other, plan(parse_suite(SUITE, "suite"), entrants, images), entrants, parts, Runtime())
    (cell,) = (c for c in again.possible("one") if (c.attack_name, c.epsilon) == ("loop", 4 / 255))
    made_again = run_cell(cell, again.models["one"], images.split("test"), Runtime())
    moved = [
        {**row, "adv_score": row["adv_score"] + 0.1, "loss": row["loss"] and row["loss"] + 0.01}
        for row in made_again
    ]
    assert not again.exact
    assert again._rows_differ(cell, moved) == []
    far = [{**row, "loss": row["loss"] and row["loss"] - 0.05} for row in made_again]
    assert {f.detail.partition(":")[0] for f in again._rows_differ(cell, far)} == {"loss"}
