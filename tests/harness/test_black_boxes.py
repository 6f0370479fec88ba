"""Models without a gradient through whole runs, beside models with one; the mean of several surrogates."""

import json

import numpy as np
import pytest
import torch

from helpers.views import view_run
from iqa_attacks import Ensemble
from iqa_harness.cells.compute import craft
from iqa_harness.cells.plan import Rival, list_cells, plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification import verify_run
from iqa_models import ModelSpec, create_model, wrap
from iqa_reports.tables import attack_table
from iqa_results import ResultStore
from iqa_suites import parse_suite

TEXT = """
name = "boxes"
summary = "the suite blackbox with queries for tests"
seed = 1
main_epsilon = "4/255"
suite_min = ["square/mse", "spsa/mse"]
step_sweep = "square"
cell_images = 4

[data]
name = "tiny"
images = 8

[[attacks]]
name = "square"
kind = "square"
epsilons = ["4/255"]
objectives = ["mse", "raise", "lower"]
queries = 24
report_steps = [4, 12]

[[attacks]]
name = "spsa"
kind = "spsa"
epsilons = ["4/255"]
objectives = ["mse", "raise", "lower"]
queries = 24
report_steps = [4, 12]
side = 2

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["4/255"]
objectives = ["mse", "raise", "lower"]
steps = 4
relative_step_size = 0.6

[[attacks]]
name = "transfer"
kind = "transfer"
of = "pgd/mse"

[[attacks]]
name = "ensemble"
kind = "ensemble"
of = "pgd/mse"
"""
ALONE = TEXT.partition('[[attacks]]\nname = "transfer"')[0]


def contrast(images):
    """Return the contrast of images as a program without gradients would."""
    pixels = images.detach().cpu().numpy().astype(np.float64)
    return torch.from_numpy(pixels.std(axis=(1, 2, 3)).astype(np.float32))


def _box():
    return Entrant("box", wrap(contrast, score_range=(0, 0.5), has_gradient=False))


def _entrants():
    return [
        Entrant("a", create_model("linear", seed=4)),
        Entrant("b", create_model("linear", seed=2)),
        _box(),
    ]


def _run(folder, images, text, entrants):
    store = ResultStore(folder)
    manifest = run_suite(
        plan(parse_suite(text, "boxes"), entrants, images), entrants, RunConfig("r", text), store
    )
    tables = robustness_table(store, manifest)
    tables.write(store, "r")
    return store, manifest, tables


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A finished run of two models with gradients and a black box."""
    return _run(tmp_path_factory.mktemp("store"), images, TEXT, _entrants())


def _attacks(manifest, model):
    return {cell.attack for cell in manifest.cells if cell.model == model and cell.attack != "clean"}


def test_a_black_box_gets_queries_and_the_examples_of_others(run):
    """What needs a gradient is left out, said in the run's notes, and nobody is lent its examples."""
    _, manifest, tables = run
    assert manifest.status == "complete"
    assert _attacks(manifest, "box") == {"square", "spsa", "transfer:a", "transfer:b", "ensemble"}
    assert _attacks(manifest, "a") == {"square", "spsa", "pgd", "transfer:b"}  # one other is no mean
    assert [
        note for note in manifest.notes if note.startswith("box has no gradient: attacks that need one are")
    ]
    rows = tables.table.to_pandas()
    worst = rows[(rows["row"] == "suite_min") & rows["final"] & (rows["metric"] == "srocc")].set_index(
        "model"
    )
    assert worst["value"].notna().all()
    assert set(rows["verdict"]) == {"sound"}
    table = attack_table(view_run(manifest, tables.table), "srocc")
    assert "left out: the model has no gradient" in dict(table.notes).values()


def test_damage_against_queries_is_a_curve(run):
    """At 4, 12 and 24 queries of each search, and of their minimum; what an image lost never shrinks."""
    store, manifest, tables = run
    rows = tables.table.to_pandas()
    own = rows[(rows["model"] == "box") & (rows["metric"] == "srocc")]
    mse = own[(own["row"] == "attack") & (own["objective"] == "mse")]
    for name in ("square", "spsa"):
        assert sorted(mse[mse["attack"] == name]["steps"]) == [4, 12, 24]
    assert sorted(own[own["row"] == "suite_min"]["steps"]) == [4, 12, 24]
    frame = store.read_cells(c.key for c in manifest.cells).to_pandas()
    for (_, _, objective), group in frame[frame["attack"].isin(["square", "spsa"])].groupby(
        ["model", "attack", "objective"]
    ):
        if objective in ("raise", "lower"):
            curve = group.pivot_table(index="image_id", columns="steps", values="adv_score").diff(axis=1)
            signs = curve.iloc[:, 1:] * (1 if objective == "raise" else -1)
            assert (signs >= 0).all().all()
            assert (signs > 0).any().any()


def test_the_mean_of_others_is_attacked_and_what_it_is_tried_on_left_out(run, images):
    """Its examples are those of the attack on that mean; loss and cost are the mean's own."""
    store, manifest, _ = run
    cell = next(c for c in manifest.cells if c.attack == "ensemble")
    rows = store.read_cells([cell.key]).to_pandas()
    entrants = _entrants()
    work = plan(parse_suite(TEXT, "boxes"), entrants, images)
    planned = next(c for c in work.cells if c.key == cell.key)
    assert planned.sources == ("a", "b")
    mean = Ensemble([entrants[0].model, entrants[1].model])
    batch = torch.rand(2, 3, 16, 16)
    assert torch.allclose(mean(batch), (entrants[0].model(batch) + entrants[1].model(batch)) / 2)
    found = craft(planned, mean, work.images, Runtime())
    losses = [f.loss for f in found.found if f.objective == "mse"]
    assert rows.sort_values("position")["loss"].tolist() == losses
    assert set(rows["kind"]) == {"transfer"}
    assert set(rows["objective"]) == {"mse"}
    assert (rows["backwards"] == 4).all()
    sent = [Rival(*rival) for rival in json.loads(json.dumps(work.rivals))]  # as a worker gets them
    assert list_cells(work.suite, sent, work.images, work.validation) == list(work.cells)
    a, b, box = work.rivals
    other = list_cells(work.suite, (a, b._replace(sha256="0" * 64), box), work.images, work.validation)
    assert planned.key not in {cell.key for cell in other}


def test_weights_are_no_surrogate_of_themselves_behind_a_defence(images):
    """A model's defended form is left out of the mean that is tried on it, and the other way round."""
    from iqa_harness.entrants.defended import with_bare
    from iqa_harness.entrants.naming import as_entrants

    entrants = with_bare(as_entrants(["linear?seed=1|quantise:6", "linear?seed=2", "linear?seed=3"]))
    work = plan(parse_suite(TEXT, "boxes"), entrants, images)
    members = {cell.label: cell.sources for cell in work.cells if cell.ensemble}
    assert (
        members["linear?seed=1"] == members["linear?seed=1|quantise:6"] == ("linear?seed=2", "linear?seed=3")
    )
    assert members["linear?seed=3"] == ("linear?seed=1", "linear?seed=1|quantise:6", "linear?seed=2")


def test_a_run_with_a_black_box_and_an_ensemble_is_made_again_and_agrees(run, images):
    store, manifest, _ = run
    found = verify_run(store, manifest, _entrants(), images, sample=4)
    assert found.findings == []
    assert found.rows_again > 0


def test_a_minimum_that_needs_a_gradient_is_undefined_with_the_reason(tmp_path, images):
    """The run goes on; nothing stands in for what was left out."""
    text = ALONE.replace('["square/mse", "spsa/mse"]', '["square/mse", "pgd/mse"]')
    _, _, tables = _run(tmp_path, images, text, [_box()])
    rows = tables.table.to_pandas()
    worst = rows[(rows["row"] == "suite_min") & rows["final"]]
    assert set(worst["undefined"]) == {"no results of pgd/mse (left out: the model has no gradient)"}
    assert set(rows["verdict"]) == {"incomplete"}


def test_a_black_box_alone_is_attacked_by_queries(tmp_path, images):
    """A transfer that the minimum does not hang on comes from whom there is: nobody."""
    _, manifest, tables = _run(tmp_path, images, TEXT, [_box()])
    assert _attacks(manifest, "box") == {"square", "spsa"}
    assert set(tables.table.to_pandas()["verdict"]) == {"sound"}


def test_a_card_that_says_nothing_of_gradients_has_the_text_it_always_had():
    card = create_model("linear").spec
    assert "has_gradient" not in card.model_dump(mode="json")
    blind = card.replace(has_gradient=False)
    assert ModelSpec.model_validate(blind.model_dump(mode="json")) == blind
    assert not ModelSpec.model_validate(blind.model_dump()).has_gradient


def test_the_curve_and_members_of_the_small_suite_are_those_of_the_shipped_one():
    """So that what is tested is what is run: kinds, objectives, minimum."""
    from iqa_suites import load_suite

    shipped, small = load_suite("blackbox").suite, parse_suite(TEXT, "boxes")
    assert shipped.suite_min == small.suite_min
    assert shipped.step_sweep == small.step_sweep
    assert {a.name: a.kind for a in small.attacks}.items() <= {
        a.name: a.kind for a in shipped.attacks
    }.items()
    square = next(a for a in shipped.attacks if a.name == "square")
    assert (*square.report_steps, square.queries) == (100, 1_000, 10_000)
