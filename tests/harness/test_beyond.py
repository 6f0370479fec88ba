"""A run of attacks beyond norm balls: rows say what they were bound by, and the harness measured it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

SUITE = """
name = "tiny-beyond"
summary = "for tests"
seed = 3
main_epsilon = "8/255"
suite_min = ["plain/raise"]
jpeg_qualities = [60, 80]
cell_images = 4

[data]
name = "tiny"
images = 8

[[attacks]]
name = "plain"
kind = "pgd"
epsilons = ["8/255"]
objectives = ["raise", "lower"]
steps = 4
relative_step_size = 0.5
batch = 4

[[attacks]]
name = "levels"
kind = "apgd"
epsilons = ["8/255"]
pixels = "8bit"
objectives = ["mse", "pairwise_inversion", "raise", "lower"]
steps = 4
batch = 4

[[attacks]]
name = "look"
kind = "pgd"
epsilons = ["8/255"]
ssim_floor = 0.99
objectives = ["raise", "lower"]
steps = 4
relative_step_size = 0.5
batch = 4

[[attacks]]
name = "jpeg"
kind = "pgd"
epsilons = ["8/255"]
jpeg_qualities = [60, 80]
objectives = ["raise"]
steps = 4
relative_step_size = 0.5
batch = 4

[[attacks]]
name = "universal"
kind = "universal"
epsilons = ["8/255"]
objectives = ["raise", "lower"]
steps = 6
training_split = "val"
training_images = 6
batch = 4
"""


def _work(images, text=SUITE, models=1):
    entrants = [Entrant(f"m{seed}", create_model("linear", seed=seed).eval()) for seed in range(models)]
    return plan(parse_suite(text, "tiny"), entrants, images), entrants


def _rows(store, manifest):
    return store.read_cells([cell.key for cell in manifest.cells]).to_pandas()


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """Rows of one run with two models, its plan and its measures."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    work, entrants = _work(images, models=2)
    manifest = run_suite(work, entrants, RunConfig("r", SUITE), store)
    assert [cell.error for cell in manifest.cells if cell.error] == []
    return _rows(store, manifest), work, robustness_table(store, manifest).measures.to_pandas()


@pytest.mark.slow
def test_rows_say_what_bound_the_example(run):
    """The threat column tells ball, whole levels and floor apart, and the measured values keep to them."""
    rows, _, _ = run
    threats = rows.groupby("attack")["threat"].unique().map(list).to_dict()
    assert threats == {
        "clean": ["none"], "plain": ["ball"], "levels": ["8bit"], "look": ["ssim>=0.99"], "jpeg": ["ball"],
        "universal": ["ball"],
    }  # fmt: skip
    by_attack = dict(tuple(rows.groupby("attack")))
    assert (rows["linf"] <= rows["epsilon"] + 1e-6).all()
    assert (by_attack["look"]["ssim"] >= 0.99).all()
    assert (by_attack["plain"]["ssim"] < 0.99).any()


def test_whole_levels_score_the_same_in_an_8_bit_file(run):
    """The score after rounding is the score, to the last bit; the plain attack's is another."""
    rows, _, _ = run
    levels = rows[rows["attack"] == "levels"]
    assert (levels["adv_score"] == levels["adv_score_8bit"]).all()
    assert (levels["projection_moved"] == 0).all()
    plain = rows[rows["attack"] == "jpeg"]
    assert (plain["adv_score"] != plain["adv_score_8bit"]).any()


def test_what_jpeg_leaves_stands_in_every_row(run):
    """The clean row tells what JPEG does by itself; the attack through JPEG keeps more than the plain one."""
    rows, _, _ = run
    assert rows["adv_score_jpeg"].notna().all()
    clean = rows[rows["attack"] == "clean"].set_index(["model", "image_id"])["adv_score_jpeg"]
    kept = {}
    for attack in ("plain", "jpeg"):
        chosen = rows[(rows["attack"] == attack) & (rows["objective"] == "raise")]
        places = list(zip(chosen["model"], chosen["image_id"], strict=True))
        kept[attack] = (chosen["adv_score_jpeg"].to_numpy() - clean.loc[places].to_numpy()).mean()
    assert kept["jpeg"] > kept["plain"] > 0


def test_the_measures_say_what_is_left_in_a_file(run):
    """Shares of the change and the order are those of the rows: NumPy's means, SciPy's correlation."""
    rows, _, measures = run
    clean = rows[(rows["model"] == "m0") & (rows["attack"] == "clean") & (rows["split"] == "test")]
    clean = clean.set_index("image_id")
    said = measures[(measures["model"] == "m0") & measures["final"]]
    for attack in ("plain", "levels", "jpeg"):
        chosen = rows[(rows["model"] == "m0") & (rows["attack"] == attack) & (rows["objective"] == "raise")]
        of = clean.loc[chosen["image_id"]]
        moved = np.abs(chosen["adv_score"].to_numpy() - of["clean_score"].to_numpy()).mean()
        values = said[(said["attack"] == attack) & (said["objective"] == "raise")].set_index("measure")[
            "value"
        ]
        for name in ("8bit", "jpeg"):
            later = chosen[f"adv_score_{name}"].to_numpy() - of[f"adv_score_{name}"].to_numpy()
            assert values[f"kept_{name}"] == pytest.approx(np.abs(later).mean() / moved)
        expected = spearmanr(chosen["adv_score_jpeg"], chosen["mos"]).statistic
        assert values["srocc_jpeg"] == pytest.approx(expected)
        assert attack != "levels" or values["kept_8bit"] == 1


def test_a_universal_change_is_trained_once_a_model_whatever_the_cells(run, images, tmp_path):
    """Two cells of a model share one training; a run that resumes trains the same again."""
    rows, work, _ = run
    universal = [cell for cell in work.cells if cell.attack_name == "universal"]
    assert len(universal) == 4
    assert len({id(cell.trained) for cell in universal}) == 1
    assert len(universal[0].trained._made) == 2
    again, entrants = _work(images)
    second = [cell for cell in again.cells if cell.attack_name == "universal"][1]
    store = ResultStore(tmp_path)
    work_of_one = replace(again, cells=(second,))
    alone = _rows(store, run_suite(work_of_one, entrants, RunConfig("r", SUITE), store, Runtime(chunk=1)))
    before = rows[rows["cell"] == second.key]
    columns = ["image_id", "objective", "adv_score", "linf"]
    left, right = (
        frame.sort_values(["image_id", "objective"])[columns].reset_index(drop=True)
        for frame in (before, alone)
    )
    assert left.equals(right)


@pytest.mark.slow
def test_training_is_counted_once_a_model_at_the_first_image(run):
    """Every image costs an evaluation an objective, the first one the gradients of the training too."""
    rows, work, _ = run
    universal = rows[rows["attack"] == "universal"]
    attack = next(cell.attack for cell in work.cells if cell.attack_name == "universal")
    images = len(work.training[attack.training_split])
    taken = attack.steps * min(attack.batch, images) * len(attack.objectives)
    assert set(universal["model"]) == {cell.label for cell in work.cells}
    for _, mine in universal.groupby("model"):
        each = mine.groupby("position")[["forwards", "backwards"]].agg(["min", "max"])
        assert (each.xs("min", axis=1, level=1) == each.xs("max", axis=1, level=1)).all(axis=None)
        own = each.xs("min", axis=1, level=1)
        assert tuple(own.loc[0]) == (len(attack.objectives) + taken, taken)
        assert set(own.drop(0).itertuples(index=False, name=None)) == {(len(attack.objectives), 0)}


def test_a_universal_change_needs_images_to_train_on(images):
    """A set without the training split is refused by name."""
    with pytest.raises(RunError, match="no images in split 'train' to train 'universal' on"):
        _work(images, SUITE.replace('training_split = "val"', 'training_split = "train"'))


def test_without_qualities_no_jpeg_is_made(images, tmp_path):
    """The column is null where the suite names none, and the cells are others."""
    text = SUITE.replace("jpeg_qualities = [60, 80]\ncell", "cell")
    store = ResultStore(tmp_path)
    work, entrants = _work(images, text)
    clean = tuple(cell for cell in work.cells if cell.attack is None)
    part = replace(work, cells=clean)
    rows = _rows(store, run_suite(part, entrants, RunConfig("r", text), store))
    assert rows["adv_score_jpeg"].isna().all()
    assert {c.key for c in clean}.isdisjoint(c.key for c in _work(images)[0].cells)
