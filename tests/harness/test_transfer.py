"""Transfer and EOT through whole runs: examples found once, scored on every other model, minimised over."""

import pytest
import torch
from torch import Tensor

from helpers import tiny
from iqa_attacks import Attack
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import check_model
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import LinearQuality, create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

TEXT = (
    tiny.SUITE.replace('"pgd/pairwise_inversion"]', '"pgd/pairwise_inversion", "transfer/mse"]')
    .replace("steps = 4\nreport_steps = [1, 2]", "steps = 2\nreport_steps = [1]")
    .replace('"pairwise_inversion", "raise", "lower"]', '"pairwise_inversion"]')
    .replace("images = 12", "images = 8")
    + tiny.TRANSFER
)


def _entrants(*seeds):
    return [Entrant(f"m{seed}", create_model("linear", seed=seed + 3)) for seed in seeds]


def _run(store, images, entrants, text=TEXT, on_cell=lambda *_: None):
    suite = parse_suite(text, "tiny")
    return run_suite(plan(suite, entrants, images), entrants, RunConfig("r", text), store, on_cell=on_cell)


def _rows(store, manifest):
    return store.read_cells(c.key for c in manifest.cells).drop_columns(["seconds"])


@pytest.fixture(scope="module")
def three(tmp_path_factory, images):
    """A run of three models, with how often an attack was run."""
    runs = []
    original = Attack.run

    def counted(self, *args, **kwargs):
        runs.append(self.kind)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attack, "run", counted)
        store = ResultStore(tmp_path_factory.mktemp("store"))
        manifest = _run(store, images, _entrants(1, 2, 3))
    return store, manifest, runs


def test_examples_are_found_once_and_scored_on_every_other_model(three):
    """Each PGD-MSE set is scored on two models, and PGD runs as often as without a transfer."""
    store, manifest, runs = three
    assert manifest.status == "complete"
    # models x radii x ranges, and three probes of every model before the run
    assert runs.count("pgd") == 3 * 2 * 2 + 3 * 3
    rows = _rows(store, manifest).to_pandas()
    transfer = rows[rows["kind"] == "transfer"]
    assert set(transfer["attack"]) == {"transfer:m1", "transfer:m2", "transfer:m3"}
    assert set(transfer["objective"]) == {"mse"}
    assert len(transfer) == 3 * 2 * 2 * 8 * 2
    assert set(transfer["steps"]) == {1, 2}
    assert not (transfer["attack"] == "transfer:" + transfer["model"]).any()
    assert (transfer[["forwards", "backwards"]] == 0).all().all()
    assert (transfer["final"] == (transfer["steps"] == 2)).all()


def test_a_transferred_example_is_the_surrogates_own(three):
    """Its budget, loss and the score the attack saw are those of the surrogate's own row."""
    store, manifest, _ = three
    rows = _rows(store, manifest).to_pandas()
    own = rows[(rows["attack"] == "pgd") & (rows["objective"] == "mse")]
    for surrogate, target in (("m1", "m2"), ("m3", "m1")):
        mine = rows[(rows["attack"] == f"transfer:{surrogate}") & (rows["model"] == target)]
        both = mine.merge(own[own["model"] == surrogate], on=["image_id", "epsilon", "steps"])
        assert len(both) == 16 * 2
        for column in ("linf", "l2", "loss", "attack_score", "best_step", "best_restart"):
            assert (both[f"{column}_x"] == both[f"{column}_y"]).all()
        clean = rows[(rows["attack"] == "clean") & (rows["model"] == target)]
        again = mine.merge(clean, on="image_id")
        assert (again["clean_score_x"] == again["clean_score_y"]).all()
        assert (mine["adv_score"] != mine["clean_score"]).all()


@pytest.mark.slow
def test_the_minimum_and_the_composed_case_hold_every_surrogate(three):
    """suite_min <= each transfer, and so is the composed worst case, which also holds their scores."""
    store, manifest, _ = three
    table = robustness_table(store, manifest).table.to_pandas()
    at = table[(table["metric"] == "srocc") & table["final"] & (table["epsilon"] == manifest.main_epsilon)]
    for model in ("m1", "m2", "m3"):
        mine = at[at["model"] == model]
        transfers = mine[mine["attack"].str.startswith("transfer:") & (mine["row"] == "attack")]
        assert len(transfers) == 2
        least = mine[mine["row"] == "suite_min"]["value"].item()
        assert least <= transfers["value"].min()
        assert mine[mine["row"] == "composed"]["value"].item() <= least + 1e-12
    sweep = table[(table["row"] == "suite_min") & (table["epsilon"] == manifest.main_epsilon)]
    assert set(sweep["steps"]) == {1, 2}  # the transfer has the prefixes of its source


@pytest.mark.slow
def test_resumed_equals_uninterrupted_with_transfers(three, tmp_path, images):
    """Cut between a model's own cell and its transfer cells, the resumed run has the same rows."""
    store, manifest, _ = three
    expected = _rows(store, manifest)
    names = [c.attack for c in manifest.cells]
    cut, done = ResultStore(tmp_path), []
    stop_after = names.index("transfer:m1") + 1

    def stop(cell, status):
        done.append(status)
        if len(done) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(cut, images, _entrants(1, 2, 3), on_cell=stop)
    assert _rows(cut, _run(cut, images, _entrants(1, 2, 3))).equals(expected)


@pytest.mark.slow
def test_another_model_adds_cells_and_changes_none(three, tmp_path, images):
    """A third model joins a run of two: what is stored stays, both ways of its transfers are added."""
    _, manifest, _ = three
    store = ResultStore(tmp_path)
    two = _run(store, images, _entrants(1, 2))
    seen = []
    more = _run(store, images, _entrants(1, 2, 3), on_cell=lambda cell, status: seen.append(status))
    assert seen.count("cached") == len(two.cells)
    assert {c.key for c in more.cells} == {c.key for c in manifest.cells}
    assert _rows(store, more).equals(_rows(three[0], manifest))


def test_a_lost_surrogate_leaves_no_minimum(tmp_path, images, three):
    """The minimum over fewer surrogates than planned is undefined, with the reason."""
    store, manifest, _ = three
    lost = ("m1", "transfer:m2")
    cells = tuple(
        c.model_copy(update={"status": "missing"}) if (c.model, c.attack) == lost else c
        for c in manifest.cells
    )
    table = robustness_table(store, manifest.model_copy(update={"cells": cells})).table.to_pylist()
    least = [r for r in table if r["row"] == "suite_min" and r["metric"] == "srocc"]
    mine = [r for r in least if r["model"] == "m1"]
    assert {r["value"] for r in mine} == {None}
    assert all("no results of transfer:m2/mse" in r["undefined"] for r in mine)
    assert all(r["value"] is not None for r in least if r["model"] != "m1")


def test_a_transfer_needs_another_model(images):
    """One model alone has nobody to transfer from: refused before anything runs."""
    with pytest.raises(RunError, match="at least two models"):
        plan(parse_suite(TEXT, "tiny"), _entrants(1), images)


class Noisy(LinearQuality):
    """A linear model that jitters its input, from torch's global generator or from one of its own."""

    own = None

    def predict(self, images: Tensor) -> Tensor:
        noise = torch.randn(images.shape[1:], generator=self.own)
        return super().predict((images + 0.02 * noise).clamp(0, 1))


def _noisy(own=None):
    model = create_model("linear", seed=4)
    model.__class__, model.own = Noisy, own
    model.spec = model.spec.replace(name="noisy", is_stochastic=True)
    return model.eval()


@pytest.mark.slow
def test_a_stochastic_model_runs_under_eot(tmp_path):
    """Its stored scores are means over K draws and repeat exactly; it also takes part in transfers."""
    text = TEXT.replace("seed = 3", "seed = 3\neot_samples = 2").replace("images = 8", "images = 4")
    images, tables = tiny.make_images(test=4, val=4), []
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        store = ResultStore(tmp_path / name)
        manifest = _run(store, images, [Entrant("noisy", _noisy()), *_entrants(2)], text)
        assert manifest.status == "complete"
        assert all(check["passed"] for check in manifest.models[0].checks.values())
        tables.append(_rows(store, manifest))
    assert tables[0].equals(tables[1])
    rows = tables[0].to_pandas()
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == "test")]
    # Two draws for the score and two for the input gradient.
    assert set(clean[clean["model"] == "noisy"]["forwards"]) == {4}
    attacked = rows[rows["attack"] != "clean"].merge(clean, on=["model", "image_id"])
    assert (attacked["clean_score_x"] == attacked["clean_score_y"]).all()
    fgsm = rows[rows["attack"] == "fgsm"]
    assert set(fgsm[fgsm["model"] == "noisy"]["forwards"]) == {2 + 4}  # the start, and an end each way
    assert set(fgsm[fgsm["model"] == "m2"]["backwards"]) == {1}


def test_eot_changes_no_cell_of_a_deterministic_model(images):
    """The number of draws is in the keys of stochastic models only."""
    keys = [
        {c.key for c in plan(parse_suite(text, "t"), _entrants(1, 2), images).cells}
        for text in (TEXT, TEXT.replace("seed = 3", "seed = 3\neot_samples = 4"))
    ]
    assert keys[0] == keys[1]


def test_a_stochastic_model_without_eot_is_refused_by_the_plan(images):
    """Before anything runs, with the key to set."""
    with pytest.raises(RunError, match="set eot_samples in suite 'tiny'"):
        plan(parse_suite(TEXT, "tiny"), [Entrant("noisy", _noisy()), *_entrants(2)], images)


def test_draws_out_of_reach_are_found(images):
    """A stochastic model with a generator of its own cannot be repeated: the check says so."""
    pixels = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    assert check_model(_noisy(), pixels, draws=3)["repeatable"].passed
    own = check_model(_noisy(torch.Generator().manual_seed(0)), pixels, draws=3)
    assert not own["repeatable"].passed
