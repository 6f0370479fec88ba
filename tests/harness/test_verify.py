"""A run that was tampered with is found, row by name; one that was not is made again and agrees."""

import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import iqa_harness as iqa
from helpers import tiny
from helpers.stored_runs import SMALL, made
from iqa_harness.cells.plan import Selection, plan
from iqa_harness.cli.printing import code_of
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.flags import VERDICTS
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification import require_entrants, verify_run
from iqa_models import create_model
from iqa_results import ROW_SCHEMA, ResultStore
from iqa_suites import parse_suite


def _entrants():
    return [Entrant("m", create_model("linear", seed=10))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images, suite_text):
    """A finished run of two cells an attack and radius whose tables are written, to be copied."""
    text = suite_text.replace("cell_images = 4", "cell_images = 8")
    store = ResultStore(tmp_path_factory.mktemp("finished"))
    work = plan(parse_suite(text, "tiny"), _entrants(), images)
    manifest = run_suite(work, _entrants(), RunConfig("r", text), store, Runtime())
    robustness_table(store, manifest).write(store, "r")
    return store, manifest


@pytest.fixture
def run(finished, tmp_path):
    """That run in a store of the test's own."""
    store, manifest = finished
    shutil.copytree(store.root, tmp_path, dirs_exist_ok=True)
    return ResultStore(tmp_path), manifest


def _tamper(store, cell, change):
    """Write a cell's part anew with one changed row, checksums and all."""
    rows = store.read_cell(cell.key).to_pylist()
    change(rows)
    path = store.cell_path(cell.key)
    store.write_cell(cell.key, rows)
    assert pq.read_schema(path).equals(ROW_SCHEMA)


def _attacked(manifest, epsilon=4 / 255):
    return next(c for c in manifest.cells if c.attack == "pgd" and c.epsilon == epsilon)


def test_an_honest_run_agrees_with_itself(run, images):
    """Manifest, tables, rows, checks and every cell made again: nothing differs."""
    store, manifest = run
    found = verify_run(store, manifest, _entrants(), images, sample=1000)
    assert found.findings == []
    assert found.cells == len(manifest.cells) == 10
    assert found.checks == 1
    assert found.rows == sum(len(store.read_cell(c.key)) for c in manifest.cells)
    assert found.rows_again == found.rows


def test_one_changed_score_is_found_and_named_without_the_model(run):
    """The attack saw another score for the same pixels, and the table no longer follows."""
    store, manifest = run

    def change(rows):
        row = next(r for r in rows if r["objective"] == "drift" and r["final"])
        row["adv_score"] += 0.01
        change.image = row["image_id"]

    _tamper(store, _attacked(manifest), change)
    found = verify_run(store, manifest, [], None)
    named = [f for f in found.findings if f.what == "row"]
    assert f"pgd/drift at 4/255, 4 steps, image {change.image}" in named[0].where
    assert "another score than the attack saw" in named[0].detail
    assert any(f.what == "table" for f in found.findings)
    assert found.cells == 0


def test_a_consistent_lie_is_found_by_making_it_again(run, images):
    """Score, attack's score and loss changed together: only attacking again tells."""
    store, manifest = run

    def change(rows):
        row = next(r for r in rows if r["objective"] == "raise" and r["final"])
        for name in ("adv_score", "attack_score", "loss"):
            row[name] -= 0.02

    _tamper(store, _attacked(manifest), change)
    robustness_table(store, manifest).write(store, "r")
    assert verify_run(store, manifest, [], None).findings == []
    # Both cells of the attack that decides at the main radius come before the second one of another.
    findings = verify_run(store, manifest, _entrants(), images, sample=3).findings
    assert {f.what for f in findings} == {"row"}
    assert all("pgd/raise at 4/255" in f.where for f in findings)
    assert {f.detail.split(": ")[0] for f in findings} == {"adv_score", "attack_score", "loss"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("linf", 0.2, "outside its radius"),
        ("clean_score", 0.1, "another clean score"),
        ("loss", 9.0, "does not follow from its score"),
    ],
)
def test_rows_that_contradict_each_other_are_named(run, name, value, says):
    """Radius, clean score and loss are held against what is known."""
    store, manifest = run

    def change(rows):
        next(r for r in rows if r["objective"] == "mse")[name] = value

    _tamper(store, _attacked(manifest), change)
    findings = verify_run(store, manifest, [], None).findings
    assert any(says in f.detail and "pgd/mse" in f.where for f in findings)


def test_a_changed_table_is_found(run):
    """A table that its rows do not give names the value."""
    store, manifest = run
    rows = store.read_table("r").to_pylist()
    worst = next(r for r in rows if r["row"] == "suite_min")
    worst["value"] += 0.1
    store.write_table("r", rows)
    (finding,) = verify_run(store, manifest, [], None).findings
    assert finding.what == "table"
    assert finding.where.startswith("m, suite_min")
    assert finding.detail.startswith("value: ")


@pytest.mark.parametrize(
    ("name", "column", "value", "where"),
    [
        ("intervals", "s_min", -9.0, "intervals, m, inf, "),
        ("flags", "raised", None, "flags, m, "),
        ("measures", "value", 9.0, "measures, m, "),
        ("fits", "residual", 9.0, "fits, m"),
    ],
)
def test_every_stored_table_is_compared(run, name, column, value, where):
    """Not only the values: ranges, flags, measures and fits must follow from the rows, too."""
    store, manifest = run
    rows = store.read_table("r", name).to_pylist()
    rows[0][column] = not rows[0][column] if value is None else value
    store.write_table("r", rows, name)
    (finding,) = verify_run(store, manifest, [], None).findings
    assert finding.what == "table"
    assert finding.where.startswith(where)
    assert finding.detail.startswith(f"{column}: ")


def test_a_lowered_flag_and_a_turned_difference_are_found(tmp_path, images):
    """A cheat's flags edited to `not raised`, and a comparison of two models edited to a tie."""
    both = [("m", "linear", {"seed": 10}), ("c", "cheat_constant", {})]
    store, manifest, _ = made(tmp_path, SMALL, images, both)
    flags = store.read_table("r", "flags").to_pylist()
    raised = [(f["model"], f["flag"]) for f in flags if f["raised"]]
    assert ("c", "constant_predictor") in raised
    store.write_table("r", [f | {"raised": False} for f in flags], "flags")
    differences = store.read_table("r", "differences").to_pylist()
    differences[0]["tied"] = not differences[0]["tied"]
    store.write_table("r", differences, "differences")
    findings = verify_run(store, manifest, [], None).findings
    assert [f.where for f in findings[:-1]] == [f"flags, {model}, {flag}" for model, flag in raised]
    assert {f.detail for f in findings[:-1]} == {"raised: False is stored, the rows give True"}
    assert findings[-1].where.startswith("differences, m, c, ")


@pytest.mark.parametrize(
    "selection", [Selection(limit=6), Selection(images=("test-7", "test-2", "test-9", "test-1", "test-4"))]
)
def test_a_run_of_fewer_images_is_made_again(tmp_path, images, selection):
    """The choice of images is found in the rows; without it every cell would have another key."""
    store, text = ResultStore(tmp_path), SMALL.replace("\nimages = 4", "\nimages = 12")
    work = plan(parse_suite(text, "small"), _entrants(), images, selection)
    manifest = run_suite(work, _entrants(), RunConfig("r", text), store)
    robustness_table(store, manifest).write(store, "r")
    found = verify_run(store, manifest, _entrants(), images, sample=1)
    assert found.findings == []
    assert found.cells == sum(c.attack == "clean" for c in manifest.cells) + 1


def test_a_model_that_is_never_made_again_is_a_finding(run, images):
    """A suite that gives other cells than are stored leaves nothing to check, and that is said."""
    store, manifest = run
    other = manifest.model_copy(update={"suite_text": manifest.suite_text.replace("seed = 3", "seed = 4")})
    assert parse_suite(other.suite_text, "tiny") != parse_suite(manifest.suite_text, "tiny")
    found = verify_run(store, other, _entrants(), images)
    assert found.cells == 0
    (finding,) = [f for f in found.findings if f.what == "cell"]
    assert finding.where == "m"
    assert "none of its 6 attacked cells could be made again" in finding.detail
    manifest_says = {f.where: f.detail for f in found.findings if f.what == "manifest"}
    assert manifest_says["seed"] == "3 is stored, the suite's text says 4"
    assert "10 of its 10 cells have other keys" in manifest_says["cells"]
    unasked = verify_run(store, other, _entrants(), images, sample=0)
    assert [f for f in unasked.findings if f.what == "cell"] == []


@pytest.mark.parametrize(("norm", "epsilon"), [("rmse", "2/255"), ("2", "0.5")])
def test_a_radius_is_held_against_the_size_in_its_norm(tmp_path, images, norm, epsilon):
    """An honest run agrees; a row just outside its radius, or below its floor, is named."""
    text = tiny.SUITE.partition("[[attacks]]")[0].replace('step_sweep = "pgd"', f'norm = "{norm}"')
    text = text.replace('["pgd/mse", "pgd/drift", "pgd/pairwise_inversion"]', '["pgd/raise"]')
    text = text.replace('"4/255"', f'"{epsilon}"')
    for name, floor in (("pgd", ""), ("alike", "ssim_floor = 0.9")):
        text += (
            f'[[attacks]]\nname = "{name}"\nkind = "pgd"\nnorm = "{norm}"\nepsilons = ["{epsilon}"]\n'
            f'objectives = ["raise"]\nsteps = 2\nrelative_step_size = 0.6\nbatch = 4\n{floor}\n'
        )
    store = ResultStore(tmp_path)
    work = plan(parse_suite(text, "tiny"), _entrants(), images)
    manifest = run_suite(work, _entrants(), RunConfig("r", text), store)
    robustness_table(store, manifest).write(store, "r")
    found = verify_run(store, manifest, _entrants(), images, sample=6)
    assert found.findings == []
    assert found.cells == 12

    def change(rows):
        far, unlike = [r for r in rows if r["objective"] == "raise" and r["final"]][:2]
        far["rmse" if norm == "rmse" else "l2"] = far["epsilon"] * 1.01
        assert unlike["threat"] == "ssim>=0.9"
        unlike["ssim"] = 0.899

    _tamper(store, next(c for c in manifest.cells if c.attack == "alike"), change)
    findings = verify_run(store, manifest, [], None).findings
    details = [f.detail for f in findings if f.what == "row" and f.detail.split(" ")[0] in ("lies", "has")]
    assert details == ["lies outside its radius", "has less similarity than its threat model asks"]


def test_a_damaged_part_and_a_missing_table_are_findings(run):
    """Neither ends in an error: both are what verification is for."""
    store, manifest = run
    (store.run_folder("r") / "table.parquet").unlink()
    assert "iqa-harness report r" in verify_run(store, manifest, [], None).findings[0].detail
    store.cell_path(manifest.cells[4].key).write_bytes(b"PAR1 nothing PAR1")
    found = verify_run(store, manifest, [], None)
    assert [f.what for f in found.findings] == ["part"]
    assert found.tables is None


def test_another_model_or_other_images_are_named(run, images):
    """Weights and pixels are compared by hash before anything is made again."""
    store, manifest = run
    other = [Entrant("m", create_model("linear", seed=11))]
    assert [f.what for f in verify_run(store, manifest, other, images).findings] == ["model"]
    assert [f.what for f in verify_run(store, manifest, _entrants(), tiny.make_images(seed=9)).findings] == [
        "data"
    ]
    with pytest.raises(RunError, match="has no model 'x'; it has m"):
        require_entrants(manifest, [Entrant("x", create_model("linear"))])


@pytest.mark.slow
def test_verify_on_the_command_line(cli, tmp_path):
    """Exit 0 for a run as it was, 1 with the row's name after one score was changed; flags are explained."""
    smoke = ("attack", "-s", "smoke", "-m", "linear", "--threads", "1")
    code, out, _ = cli(*smoke, "--strict")
    assert code == 0
    assert "linear: sound" in out
    code, out, _ = cli("verify", "smoke", "--sample", "1")
    assert code == 0, out
    assert "5 cells (144 rows) and the checks of 1 models made again" in out
    assert "0 differ" in out
    assert "not verified: linear, gradient_unchanged" in out
    store = ResultStore(tmp_path / "iqa-store")
    cell = next(c for c in store.read_manifest("smoke").cells if c.attack == "pgd")

    def change(rows):
        rows[7]["adv_score"] += 0.05
        change.image = rows[7]["image_id"]

    _tamper(store, cell, change)
    code, out, _ = cli("verify", "smoke", "--sample", "0")
    assert code == 1
    assert change.image in out
    assert "not sound" not in out
    code, out, _ = cli("verify", "--explain", "still_rising")
    assert code == 0
    assert "last tenth of the steps" in out
    code, _, err = cli("verify", "--explain", "still_risng")
    assert code == 3
    assert "did you mean 'still_rising'?" in err
    code, _, err = cli("verify", "smoke", "-m", "x=linear")
    assert code == 3
    assert "has no model 'x'" in err
    assert cli("verify")[0] == 2


@pytest.mark.slow
def test_a_run_is_made_again_with_as_many_threads(cli, monkeypatch):
    """Of another number the sums are rounded otherwise; the caller's own number comes back."""
    seen = []

    def spied(*arguments, **options):
        seen.append(torch.get_num_threads())
        return verify_run(*arguments, **options)

    monkeypatch.setattr("iqa_harness.api.verify.verify_run", spied)
    assert cli("attack", "-s", "smoke", "-m", "linear", "--limit", "4", "--threads", "1")[0] == 0
    torch.set_num_threads(2)
    try:
        assert cli("verify", "smoke", "--sample", "1")[0] == 0
        assert cli("verify", "smoke", "--sample", "1", "--threads", "2")[0] in (0, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [1, 2]


@pytest.mark.slow
def test_strict_refuses_what_is_not_to_be_believed(cli):
    """A cheat runs and is reported; with --strict the exit code says that a check said no."""
    cheat = ("attack", "-s", "smoke", "-m", "cheat_constant", "--limit", "4", "--threads", "1")
    assert code_of(iqa.attack("smoke", "cheat_constant", limit=4, threads=1, progress=False)) == 0
    code, out, _ = cli(*cheat, "--strict")
    assert code == 1
    assert "cheat_constant: invalid" in out
    assert "constant_predictor (invalid)" in out


@pytest.mark.parametrize("page", ["README.md", "results/columns.md", "harness/flags.md"])
def test_every_verdict_is_documented(page):
    """Whoever reads a verdict finds its word where the verdicts are explained."""
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert [verdict for verdict in VERDICTS if not re.search(rf"\b{verdict}\b", text)] == []
