"""Runs as facts: resumed equals uninterrupted, failures leave holes, keys name everything that matters."""

import hashlib
import json
import shutil
from dataclasses import asdict, replace

import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import tiny
from iqa_attacks import PGD, AttackResult, Cost, Example, Found, ThreatModel
from iqa_harness.cells.compute import run_cell, to_tensor
from iqa_harness.cells.plan import Cell, plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import check_model
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.ledger import refreshed
from iqa_harness.running.manifest import RunConfig, replaced_models
from iqa_harness.running.run import missing_cells, run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import LinearQuality, create_model
from iqa_results import ROW_SCHEMA, SCHEMA_VERSION, ResultStore
from iqa_suites import parse_suite


def _entrants():
    return [
        Entrant("first", create_model("linear", seed=4)),
        Entrant("second", create_model("linear", seed=2)),
    ]


def _run(store, images, suite, text="", entrants=None, on_cell=lambda *_: None, runtime=Runtime(), run="r"):  # noqa: B008
    entrants = entrants or _entrants()
    return run_suite(plan(suite, entrants, images), entrants, RunConfig(run, text), store, runtime, on_cell)


def _rows(store, manifest):
    """All rows without the one column that is a timing."""
    return store.read_cells(c.key for c in manifest.cells).drop_columns(["seconds"])


@pytest.fixture(scope="module")
def suite_text():
    """The shared suite with one start and three objectives: nothing here hangs on more."""
    fewer = tiny.SUITE.replace("restarts = 2", "restarts = 1")
    return fewer.replace(', "raise", "lower"]\nsteps', "]\nsteps")


@pytest.fixture(scope="module")
def suite(suite_text):
    """That suite, read."""
    return parse_suite(suite_text, "tiny")


@pytest.fixture(scope="module")
def told():
    """What was told of the cells of `finished`."""
    return []


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images, suite, suite_text, told):
    """Store and manifest of a whole run, to be read only."""
    store = ResultStore(tmp_path_factory.mktemp("finished"))
    return store, _run(store, images, suite, suite_text, on_cell=lambda cell, status: told.append(status))


@pytest.fixture
def copy(finished, tmp_path):
    """The same in a store of the test's own."""
    shutil.copytree(finished[0].root, tmp_path, dirs_exist_ok=True)
    return ResultStore(tmp_path), finished[1]


def test_a_run_computes_every_cell_once(copy, told, images, suite, suite_text):
    """A complete run has a part for every cell; a second call computes nothing and changes no row."""
    (store, manifest), seen = copy, []
    assert manifest.status == "complete"
    # 2 models x (3 val + 3 clean + 3 fgsm + 2 radii x 3 pgd)
    assert told == ["done"] * 30
    assert manifest.suite_text == suite_text
    before = _rows(store, manifest)
    assert before.schema.names == [n for n in ROW_SCHEMA.names if n != "seconds"]
    again = _run(store, images, suite, suite_text, on_cell=lambda cell, status: seen.append(status))
    assert seen == ["cached"] * 30
    assert _rows(store, again).equals(before)
    assert (again.started, again.forwards) == (manifest.started, manifest.forwards)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 7, 29])
def test_resumed_equals_uninterrupted(finished, tmp_path, images, suite, stop_after):
    """An interrupt between any two cells loses nothing: the resumed run has the same rows."""
    expected = _rows(*finished)
    store, done = ResultStore(tmp_path / "cut"), []

    def stop(cell: Cell, status: str) -> None:
        done.append(status)
        if len(done) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(store, images, suite, on_cell=stop)
    cut = store.read_manifest("r")
    assert cut.status == "interrupted"
    assert sum(c.status == "done" for c in cut.cells) == stop_after
    assert len(missing_cells(plan(suite, _entrants(), images), store)) == 30 - stop_after
    resumed = _run(store, images, suite)
    assert resumed.status == "complete"
    assert _rows(store, resumed).equals(expected)


@pytest.mark.slow
def test_results_do_not_depend_on_order_chunk_or_cell_size(finished, tmp_path, images, suite_text):
    """Models in another order, other chunks and other cells give the same numbers."""
    columns = [n for n in ROW_SCHEMA.names if n not in ("cell", "seconds")]
    order = [
        (n, "ascending") for n in ("model", "attack", "epsilon", "objective", "steps", "split", "position")
    ]

    def numbers(name, entrants, text, runtime):
        store = ResultStore(tmp_path / name)
        rows = _rows(store, _run(store, images, parse_suite(text, name), entrants=entrants, runtime=runtime))
        return rows.select(columns).sort_by(order)

    expected = _rows(*finished).select(columns).sort_by(order)
    assert numbers("b", _entrants()[::-1], suite_text, Runtime(chunk=1)).equals(expected)
    larger = suite_text.replace("cell_images = 4", "cell_images = 12")
    assert numbers("c", _entrants(), larger, Runtime(chunk=3)).equals(expected)


def test_a_damaged_part_is_computed_again(copy, images, suite):
    """A part that does not read back is a missing cell, not an error and not a number."""
    store, manifest = copy
    expected = _rows(store, manifest)
    store.cell_path(manifest.cells[5].key).write_bytes(b"PAR1 nothing PAR1")
    seen = []
    again = _run(store, images, suite, on_cell=lambda cell, status: seen.append(status))
    assert seen.count("done") == 1
    assert _rows(store, again).equals(expected)


class Fragile(LinearQuality):
    """Cannot score one of the images."""

    def predict(self, images: Tensor) -> Tensor:
        if bool(((images[:, :, 0] - self.hates).abs().amax((1, 2)) < 0.05).any()):
            raise RuntimeError("this image breaks me")
        return super().predict(images)


def test_a_failed_cell_leaves_a_hole_not_a_number(tmp_path, images, suite):
    """One failing cell: the others are stored, the run is partial, its values are undefined with a reason."""
    model = create_model("linear", seed=4)
    model.__class__ = Fragile
    model.hates = torch.from_numpy(images.pixels[10][0] / 255).float().T  # none of the images checked before
    store = ResultStore(tmp_path)
    manifest = _run(store, images, suite, entrants=[Entrant("fragile", model)])
    assert manifest.status == "partial"
    failed = [c for c in manifest.cells if c.status == "failed"]
    assert {c.first for c in failed} == {8}
    assert all("this image breaks me" in c.error for c in failed)
    table = robustness_table(store, manifest).table.to_pylist()
    assert [r["value"] for r in table] == [None] * len(table)
    assert "4 of 12 images have no clean score" in table[0]["undefined"]
    assert {r["images"] for r in table} == {0}


@pytest.mark.slow
def test_a_missing_member_leaves_no_minimum(finished, suite):
    """If an attack's part is lost, its value and the minimum over it are undefined, others stay."""
    store, manifest = finished
    lost = next(c for c in manifest.cells if c.attack == "pgd" and c.epsilon > 0.01 and c.model == "first")
    cells = tuple(replace_status(c, "missing") if c.key == lost.key else c for c in manifest.cells)
    table = robustness_table(store, manifest.model_copy(update={"cells": cells})).table.to_pylist()
    mine = [r for r in table if r["model"] == "first" and r["metric"] == "srocc" and r["final"]]
    at_main = [r for r in mine if r["epsilon"] == suite.main_epsilon]
    assert {r["value"] for r in at_main if r["row"] == "suite_min"} == {None}
    assert any("4 of 12 images are missing" in (r["undefined"] or "") for r in at_main)
    composed = {r["epsilon"]: r for r in mine if r["row"] == "composed"}
    assert composed[suite.main_epsilon]["value"] is None
    assert "1 cell of pgd" in composed[suite.main_epsilon]["undefined"]
    assert composed[2 / 255]["value"] is not None  # a smaller ball has nothing of the lost cell
    assert all(r["value"] is not None for r in at_main if r["attack"] == "fgsm")
    assert all(r["value"] is not None for r in table if r["model"] == "second")


class OnlyCleanIsFinite(LinearQuality):
    """NaN above a score that only an attack reaches."""

    def predict(self, images: Tensor) -> Tensor:
        scores = super().predict(images)
        return scores + float("nan") if bool((scores > self.ceiling).any()) else scores


def test_a_score_that_is_no_number_fails_its_cell(tmp_path, images, suite):
    """An attacked score of NaN is a failed cell, never a row and never a robust model."""
    model = create_model("linear", seed=10)
    clean = [images.read(i) for i in range(len(images))]
    tensors = torch.stack([torch.from_numpy(x).permute(2, 0, 1) for x in clean]).float() / 255
    with torch.no_grad():
        highest = float((model(tensors)).max())
    model.__class__ = OnlyCleanIsFinite
    model.ceiling = highest + 0.003
    store = ResultStore(tmp_path)
    manifest = _run(store, images, suite, entrants=[Entrant("nan", model)])
    assert manifest.status == "partial"
    assert any("the score is not finite" in (c.error or "") for c in manifest.cells)
    table = robustness_table(store, manifest).table.to_pylist()
    at_main = [r for r in table if r["epsilon"] == 4 / 255]
    assert all(r["value"] is None for r in at_main if r["row"] in ("composed", "suite_min"))


def test_the_validation_split_can_be_attacked(tmp_path, images, suite_text):
    """With split = "val" the numbers are of those images, and the logistic says where it was fitted."""
    suite = parse_suite(suite_text.replace("images = 12", 'images = 12\nsplit = "val"'), "val")
    store = ResultStore(tmp_path)
    manifest = _run(store, images, suite, entrants=[Entrant("m", create_model("linear", seed=10))])
    assert manifest.status == "complete"
    table = robustness_table(store, manifest).table.to_pylist()
    assert all(r["value"] is not None for r in table)
    assert {r["mapping"] for r in table if r["metric"] == "plcc"} == {
        "logistic on the attacked val images, clean"
    }
    assert any(note.endswith("the logistic of PLCC is fitted on clean val scores") for note in manifest.notes)


def test_a_run_keeps_all_its_models(copy, images, suite):
    """A call that names fewer models than the run holds is refused: they would vanish from its table."""
    store, _ = copy
    with pytest.raises(RunError, match="holds second too"):
        _run(store, images, suite, entrants=_entrants()[:1])


def test_a_killed_run_is_reported_from_what_is_there(copy):
    """The manifest of a start and the parts of the store give the state as it is now."""
    store, manifest = copy
    missing = tuple(c.model_copy(update={"status": "missing"}) for c in manifest.cells)
    started = manifest.model_copy(update={"cells": missing, "status": "running", "backwards": 0})
    assert refreshed(store, started).cells == manifest.cells
    assert refreshed(store, started).backwards == manifest.backwards
    store.cell_path(manifest.cells[3].key).unlink()
    again = refreshed(store, manifest)
    assert (again.status, again.cells[3].status) == ("partial", "missing")


def replace_status(cell, status):
    return cell.model_copy(update={"status": status})


def test_the_harness_measures_and_scores_again(images, suite):
    """What an attack claims is projected, measured and scored again, once more after 8 bits."""

    class Cheat(PGD):
        """Attacks a ball twice the size it says."""

        @property
        def schedule(self):
            return replace(super().schedule, threat=ThreatModel("inf", 2 * self.threat.epsilon))

    epsilon = 4 / 255
    attack = Cheat(
        threat=ThreatModel("inf", epsilon), objectives=("raise",), steps=5, step_size=epsilon, restarts=1
    )
    cell = Cell("0" * 64, "m", "1" * 64, "cheat", attack, "test", 0, 4)
    model = create_model("linear", seed=4)
    rows = run_cell(cell, model, images.split("test"), Runtime())
    assert rows
    for row in rows:
        assert row["linf"] <= epsilon + 1e-7
        assert row["linf"] == pytest.approx(epsilon, rel=1e-4)
        assert 0 < row["projection_moved"] <= epsilon + 1e-6
        if row["objective"] == "raise":
            clean = torch.from_numpy(images.read(row["position"])).permute(2, 0, 1).double() / 255
            weight = model.weight(16, 16).detach().double()
            best = (clean + epsilon * weight.sign()).clamp(0, 1)
            optimum = 0.5 + float((weight * best).mean())
            assert row["adv_score"] == pytest.approx(optimum, abs=1e-5)
            rounded = (best * 255).round() / 255
            assert row["adv_score_8bit"] == pytest.approx(0.5 + float((weight * rounded).mean()), abs=1e-4)
            assert row["attack_score"] > row["adv_score"]


class Largest(TorchDispatchMode):
    """Notes the largest tensor any operator makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_the_memory_of_a_cell_does_not_grow_with_the_versions_of_an_image(images):
    """Sixty versions of each image are projected, measured and scored with no larger tensors than eight."""
    threat = ThreatModel("inf", 4 / 255)
    attack = PGD(threat=threat, objectives=("raise",), steps=60, step_size=1 / 255)
    cell = Cell("0" * 64, "m", "1" * 64, "pgd", attack, "test", 0, 2)
    model, test = create_model("linear", seed=4), images.split("test")
    clean = [to_tensor(test.read(i), "cpu") for i in range(2)]

    def needed(versions):
        generator = torch.Generator().manual_seed(0)
        found = [
            Found(i, "raise", step, 0.0, Example(threat.random_start(image, generator), 0.5, 0, step))
            for i, image in enumerate(clean)
            for step in range(versions)
        ]
        cost = {(f.image, f.steps): Cost(1, 1, 0) for f in found}
        claimed = AttackResult(found, cost, torch.zeros(2))
        with Largest() as largest:
            rows = run_cell(cell, model, test, Runtime(), lambda cell: claimed)
        assert len(rows) == 2 * versions
        return largest.numbers

    assert needed(60) == needed(8) > needed(1)


def test_budgets_and_scores_of_all_rows(finished):
    """No stored example exceeds its radius, and the harness's score is the attack's up to rounding."""
    rows = _rows(*finished).to_pandas()
    clean = rows["attack"] == "clean"
    assert (rows["threat"][clean] == "none").all()
    assert (rows["threat"][~clean] == "ball").all()
    assert (rows["ssim"][clean] == 1).all()
    assert rows["ssim"][~clean].between(0.5, 1, inclusive="neither").all()
    assert (rows["linf"] <= rows["epsilon"] + 1e-6).all()
    assert (rows["projection_moved"] <= 1e-6).all()
    assert ((rows["adv_score"] - rows["attack_score"]).abs() <= 1e-6).all()
    attacked = rows[rows["attack"] != "clean"]
    assert (attacked["zero_gradients"] == 0).all()
    assert (attacked.groupby(["model", "image_id"])["clean_score"].nunique() == 1).all()
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == "test")]
    both = attacked.merge(clean[["model", "image_id", "clean_score"]], on=["model", "image_id"])
    assert (both["clean_score_x"] == both["clean_score_y"]).all()


def _keys(images, suite, entrants=None):
    return {c.key for c in plan(suite, entrants or _entrants(), images).cells}


@pytest.mark.parametrize(
    ("old", "new", "shared"),
    [
        ("seed = 3", "seed = 4", 12),  # clean cells are drawn from no seed ... but carry it
        ("steps = 4", "steps = 5", 18),
        ("batch = 4", "batch = 2", 18),
        ('summary = "for tests"', 'summary = "other words"', 30),
        ('main_epsilon = "4/255"', 'main_epsilon = "2/255"', 30),
        ("images = 12", "images = 8", 22),
    ],
)
def test_what_a_cell_depends_on_changes_its_key(images, suite, suite_text, old, new, shared):
    """Attack settings and images are in the key; words and the choice of the main radius are not."""
    changed = parse_suite(suite_text.replace(old, new), "changed")
    common = _keys(images, suite) & _keys(images, changed)
    expected = 0 if old.startswith("seed") else shared
    assert len(common) == expected


def test_other_models_data_and_names_are_other_cells(images, suite):
    """Weights, labels and the model's name in the run are in the key; another model adds cells only."""
    base = _keys(images, suite)
    heavier = create_model("linear", seed=4)
    heavier.bias.data += 1e-3
    assert not base & _keys(images, suite, [Entrant("first", heavier)])
    assert not base & _keys(images, suite, [Entrant("renamed", create_model("linear", seed=4))])
    assert not base & _keys(tiny.make_images(seed=1), suite)
    more = _keys(images, suite, [*_entrants(), Entrant("third", create_model("linear", seed=3))])
    assert base < more


def test_impossible_plans_are_refused(images, suite):
    """No model, two of one name, or more images than there are: one clear reason each."""
    twice = [Entrant("same", create_model("linear")), Entrant("same", create_model("linear", seed=2))]
    with pytest.raises(RunError, match="no model"):
        plan(suite, [], images)
    with pytest.raises(RunError, match="two models are called 'same'"):
        plan(suite, twice, images)
    with pytest.raises(RunError, match="wants 12 images of split 'test', 'tiny' has 5"):
        plan(suite, _entrants(), tiny.make_images(test=5))


def test_a_run_name_belongs_to_one_suite(copy, images, suite_text):
    """A second suite cannot silently take over a run's name."""
    store, _ = copy
    other = parse_suite(suite_text.replace("steps = 4", "steps = 5"), "other")
    with pytest.raises(RunError, match="choose another --run name"):
        _run(store, images, other)


@pytest.mark.parametrize(("fault", "check"), [("mask", "gradient_alive"), ("round", "gradient_agrees")])
def test_a_masked_gradient_is_seen(fault, check):
    """A gradient of zero, and one that finite differences cannot confirm, are failed checks."""

    class Masked(LinearQuality):
        def predict(self, images: Tensor) -> Tensor:
            scores = super().predict(images)
            return scores.detach() + 0 * scores if fault == "mask" else scores * 0 + 0.5

    model = create_model("linear", seed=10)
    model.__class__ = Masked
    batch = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    assert not check_model(model.eval(), batch)[check].passed
    assert all(c.passed for c in check_model(create_model("linear"), batch).values())


def test_the_manifest_says_what_was_checked_and_spent(finished):
    """Checks, provenance and the number of gradients are in the record."""
    store, manifest = finished
    checks = manifest.models[0].checks
    first = ["finite_scores", "score_range", "repeatable", "batch_independent", "gradient_finite"]
    probes = ["tones_alive", "noise_weaker", "ends_reached", "converged"]
    first += ["gradient_alive", "gradient_agrees", "score_slope", "gain_on_fresh"]
    assert list(checks) == [*first, *probes, "gradient_unchanged"]
    assert all(check["passed"] for check in checks.values())
    assert checks["gradient_agrees"]["value"] < 0.01  # the model is linear
    rows = store.read_cells(c.key for c in manifest.cells)
    final = rows.filter(pc.field("final")).to_pandas().drop_duplicates(["cell", "image_id"])
    assert manifest.backwards == final["backwards"].sum() > 0
    assert manifest.provenance.packages["torch"] == torch.__version__.split("+")[0]
    assert any("pseudo-MOS" in note for note in manifest.notes)
    assert any("transfer" in note for note in manifest.notes)


def test_a_key_is_the_hash_of_one_canonical_json_object(images, suite):
    """However keys are put together, anybody can compute them: sorted JSON of what decides the content."""
    first, model = _entrants()[0], _entrants()[0].model
    cell = next(c for c in plan(suite, [first], images).cells if c.attack_name == "pgd" and c.first == 4)
    records = [r for r in images.records if r.split == "test"][4:8]
    content = {
        "schema": SCHEMA_VERSION,
        "model": [first.label, Entrant(first.label, model).sha256],
        "attack": ["pgd", "pgd", asdict(cell.attack)],
        "surrogate": None,
        "seed": 3,
        "draws": None,
        "gradient": False,
        "jpeg": list(suite.jpeg_qualities),
        "data": [images.card.name, images.fingerprint, list(images.card.mos_range)],
        "first": 4,
        "images": [
            [r.image_id, r.sha256, r.mos, r.split, r.reference, r.distortion, r.level] for r in records
        ],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    assert cell.key == hashlib.sha256(text.encode()).hexdigest()


def test_a_run_name_belongs_to_one_data_set(copy, suite):
    """Images of the same number and ids, but others, do not take it over either."""
    store, before = copy
    with pytest.raises(RunError, match=r"is of suite 'tiny' .* on data 'tiny' .*, not of suite 'tiny'"):
        _run(store, tiny.make_images(seed=1), suite)
    assert store.read_manifest("r") == before


def test_a_models_name_in_a_run_belongs_to_its_weights(copy, images, suite):
    """Other weights under the name are refused, what is stored stays the run's; `replace` says otherwise."""
    store, before = copy
    other = [_entrants()[0], Entrant("second", create_model("linear", seed=9))]
    with pytest.raises(RunError, match=r"another model 'second' .*choose another --run name, or"):
        _run(store, images, suite, entrants=other)
    assert store.read_manifest("r") == before
    work = plan(suite, other, images)
    assert replaced_models(store, "r", work) == {"second": before.models[1].sha256}
    after = run_suite(work, other, RunConfig("r", "", replace=True), store)
    assert (after.status, len(after.cells)) == ("complete", 30)
    assert [m.sha256 for m in after.models] == [other[0].sha256, other[1].sha256]
    assert replaced_models(store, "r", work) == {}


def test_a_model_of_which_nothing_is_stored_can_be_mended(tmp_path, images, suite):
    """A model that failed everywhere is edited and started again under the same name and run."""
    model = create_model("linear", seed=4)
    model.__class__, model.hates = Fragile, torch.full((3, 16), 9.0)
    broken, store = Entrant("m", model), ResultStore(tmp_path)

    def stop(cell: Cell, status: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(store, images, suite, entrants=[broken], on_cell=stop)
    for key in store.cell_sizes():
        store.delete_cell(key)
    mended = _run(store, images, suite, entrants=[Entrant("m", create_model("linear", seed=2))])
    assert (mended.status, len(mended.cells), len(mended.models)) == ("complete", 15, 1)
