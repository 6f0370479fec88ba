"""Every field of a manifest and every column of a row that decides a number: changed, it is found."""

import math
import shutil

import pytest

from helpers import tiny
from helpers.stored_runs import SMALL, made, retabled
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import DataError
from iqa_harness.running.ledger import refreshed
from iqa_harness.verification import verify_run
from iqa_models import create_model
from iqa_results import ROW_SCHEMA, ResultStore, RunManifest, Selection

NOT_HELD = {
    "row": {"seconds", "device", "harness", "cell"},  # a part with another cell's rows is refused unread
    "manifest": {
        "format", "run", "started", "ended", "provenance", "executor", "workers", "device_seconds", "tuning"
    },
    "models": {"checkpoint", "argument", "plugins", "backbone_weights", "flops"},
    "cells": {"error", "bytes"},
}  # fmt: skip
"""What says when, where and by what a run was made: no number follows from it."""


@pytest.fixture(scope="module")
def small_images():
    return tiny.make_images(test=8, val=4)


@pytest.fixture(scope="module")
def small(tmp_path_factory, small_images):
    return made(tmp_path_factory.mktemp("small"), SMALL, small_images, [("m", "linear", {"seed": 10})])


@pytest.fixture
def copy(small, tmp_path):
    """The finished run in a store of the test's own."""
    store, manifest, entrants = small
    shutil.copytree(store.root, tmp_path / "store")
    return ResultStore(tmp_path / "store"), manifest, entrants


def _other(value, kind):
    """Return another value of a column's type."""
    if kind == "bool":
        return not value
    if kind == "string":
        return f"{value}x"
    return value + 1 if value is not None else 1


def test_what_was_not_touched_has_no_findings(copy, small_images):
    """The run all these tests change agrees with itself."""
    store, manifest, entrants = copy
    found = verify_run(store, manifest, entrants, small_images, sample=9)
    assert found.findings == []
    assert (found.cells, found.checks) == (3, 1)


@pytest.mark.parametrize("column", [n for n in ROW_SCHEMA.names if n not in NOT_HELD["row"]])
def test_a_changed_column_is_found(copy, small_images, column):
    """Whatever column of whatever kind of row: with model and images at hand nothing stays unseen.

    One row without attack and one with are changed at once; a finding names each, or its cell.
    """
    store, manifest, entrants = copy
    kind = str(ROW_SCHEMA.field(column).type)
    for attack in ("clean", "pgd"):
        cell = next(c for c in manifest.cells if c.attack == attack and c.split == "test")
        rows = store.read_cell(cell.key).to_pylist()
        rows[2][column] = _other(rows[2][column], kind)
        store.write_cell(cell.key, rows)

    def named(found):
        places = [f.where.removeprefix("cells, ") for f in found.findings if f.what != "table"]
        return {a for a in ("clean", "pgd") if any(place.startswith(f"m, {a}") for place in places)}

    # What is found without the model is found with it too, which takes longer.
    without = named(verify_run(store, manifest, [], small_images))
    both = {"clean", "pgd"}
    assert without == both or named(verify_run(store, manifest, entrants, small_images, sample=9)) == both


@pytest.mark.parametrize("column", ["mos", "reference", "distortion", "level", "position", "image_id"])
def test_a_label_is_held_against_the_images_in_every_row(copy, small_images, column):
    """All rows of an image agree on another label, the tables too: the images say otherwise, model or not."""
    store, manifest, _ = copy
    for cell in manifest.cells:
        rows = store.read_cell(cell.key).to_pylist()
        for row in rows:
            kind = str(ROW_SCHEMA.field(column).type)
            row[column] = (
                (4 if column == "position" else 0) + _other(row[column], kind)
                if (kind != "string")
                else _other(row[column], kind)
            )
        store.write_cell(cell.key, rows)
    if column != "position":
        retabled(store, manifest)
    findings = verify_run(store, manifest, [], small_images).findings
    assert {f.what for f in findings} <= {"row", "cell", "table"}
    assert len([f for f in findings if f.what in {"row", "cell"}]) >= len(manifest.cells)


def test_validation_scores_are_made_again(copy, small_images):
    """A logistic fitted on scores that are the labels themselves makes a fine PLCC."""
    store, manifest, entrants = copy
    cell = next(c for c in manifest.cells if c.split == "val")
    rows = store.read_cell(cell.key).to_pylist()
    for row in rows:
        for name in ("clean_score", "adv_score", "adv_score_8bit", "attack_score"):
            row[name] = row["mos"] / 5
    store.write_cell(cell.key, rows)
    retabled(store, manifest)
    assert verify_run(store, manifest, [], small_images).findings == []
    findings = verify_run(store, manifest, entrants, small_images, sample=0).findings
    assert {f.detail.split(": ")[0] for f in findings} >= {"clean_score", "adv_score"}
    assert all(f.where.startswith("m, clean, image val-") for f in findings)


@pytest.mark.parametrize("column", ["loss", "linf", "ssim", "seconds"])
def test_what_is_no_number_is_found(copy, column):
    """A NaN is larger than no bound and must not pass one for that."""
    store, manifest, _ = copy
    cell = next(c for c in manifest.cells if c.attack == "pgd")
    rows = store.read_cell(cell.key).to_pylist()
    rows[3][column] = math.nan
    store.write_cell(cell.key, rows)
    found = verify_run(store, manifest, [], None)
    assert any(f.detail.startswith(f"{column}: nan is stored") for f in found.findings)
    assert found.tables is None


@pytest.mark.parametrize(
    "lost",
    [
        lambda r: r["objective"] == "pairwise_inversion" and r["steps"] == 2,
        lambda r: r["objective"] == "highest_seen",
        lambda r: r["objective"] == "raise" and r["steps"] == 1 and r["position"] == 1,
    ],
)
def test_rows_that_are_gone_are_missed(copy, lost):
    """Without the strongest rows a model looks better, and the rest of the rows agrees with itself."""
    store, manifest, _ = copy
    cell = next(c for c in manifest.cells if c.attack == "pgd")
    store.write_cell(cell.key, [r for r in store.read_cell(cell.key).to_pylist() if not lost(r)])
    manifest = refreshed(store, manifest)
    retabled(store, manifest)
    findings = verify_run(store, manifest, [], None).findings
    assert any(f.what == "cell" and "are not stored" in f.detail for f in findings)


def _edited(value):
    """Return another value of a manifest's field."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return {"complete": "partial", "done": "missing", "pseudo-MOS": "MOS", "test": "val"}.get(
            value, f"{value}x"
        )
    if isinstance(value, tuple | list):
        return value[:-1]
    if isinstance(value, dict):
        first = next(iter(value.values()), 1)
        return {**value, "added": first if isinstance(first, dict) else 1}
    return "x"


def _fields(kind, record):
    return [n for n in type(record).model_fields if n not in NOT_HELD.get(kind, set())]


def _manifest_edits():
    annotations = RunManifest.model_fields
    names = [n for n in annotations if n not in NOT_HELD["manifest"] | {"models", "data", "cells"}]
    model, data, cell = (annotations[n].annotation for n in ("models", "data", "cells"))
    records = {"models": model.__args__[0], "data": data, "cells": cell.__args__[0]}
    return [("", n) for n in names] + [
        (part, n)
        for part, record in records.items()
        for n in record.model_fields
        if n not in NOT_HELD.get(part, set())
    ]


@pytest.mark.parametrize(("part", "name"), _manifest_edits())
def test_a_changed_manifest_is_found(copy, small_images, part, name):
    """Tables made by the changed manifest agree with it: suite, plan, images and models do not."""
    store, manifest, entrants = copy
    record = {"": manifest, "data": manifest.data, "models": manifest.models[0]}.get(part, manifest.cells[-1])
    told = {"main_epsilon": 0.25, "chosen": Selection(limit=3), "chosen_from": 9}
    value = told[name] if name in told else _edited(getattr(record, name))
    edited = record.model_copy(update={name: value})
    if part:
        whole = getattr(manifest, part)
        new = edited if part == "data" else tuple(edited if r is record else r for r in whole)
        edited = manifest.model_copy(update={part: new})
    # As above: what is found without the model is found with it too.
    without = verify_run(store, edited, [], small_images)
    assert without.findings or verify_run(store, edited, entrants, small_images, sample=9).findings


@pytest.mark.parametrize("name", ["score_range", "is_stochastic", "summary"])
def test_a_card_is_held_against_the_model(copy, small_images, name):
    """Another range makes other gains and tolerances; a model called stochastic is excused from others."""
    store, manifest, entrants = copy
    card = {
        **manifest.models[0].card,
        name: {"score_range": [-100, 100], "is_stochastic": True}.get(name, ""),
    }
    models = (manifest.models[0].model_copy(update={"card": card}),)
    edited = manifest.model_copy(update={"models": models})
    findings = verify_run(store, edited, entrants, small_images).findings
    assert any(f.what == "model" and f.detail.startswith(f"card.{name}: ") for f in findings)


@pytest.mark.parametrize("keep", [lambda c: c.attack == "clean", lambda c: c.split != "val"])
def test_cells_left_out_of_the_manifest_are_missed(copy, small_images, keep):
    """A run without its attack, or without what its logistic is fitted on, is not complete."""
    store, manifest, entrants = copy
    edited = manifest.model_copy(update={"cells": tuple(c for c in manifest.cells if keep(c))})
    edited = refreshed(store, edited)
    retabled(store, edited)
    findings = verify_run(store, edited, entrants, small_images).findings
    assert any(f.where == "cells" and f.detail.endswith("is planned and not listed") for f in findings)


def test_the_checks_of_a_cheat_are_measured_again(tmp_path, small_images):
    """All checks edited to passed, the tables made from them: sound on paper, and found."""
    images = small_images
    store, manifest, entrants = made(tmp_path, SMALL, images, [("c", "cheat_jpeg", {})])
    checks = {name: {**c, "passed": True, "value": 0.0} for name, c in manifest.models[0].checks.items()}
    bad = {name for name, check in manifest.models[0].checks.items() if not check["passed"]}
    assert bad

    def with_checks(new):
        edited = manifest.model_copy(
            update={"models": (manifest.models[0].model_copy(update={"checks": new}),)}
        )
        retabled(store, edited)
        return edited

    edited = with_checks(checks)
    findings = verify_run(store, edited, entrants, images, sample=0).findings
    assert {f"c, {name}" for name in bad} <= {f.where for f in findings if f.what == "check"}
    # A bound that everything keeps, and a `passed` against its own value, are seen without the model.
    laxer = with_checks(
        {n: {**c, "threshold": 9.0, "passed": True} for n, c in manifest.models[0].checks.items()}
    )
    assert any("held against 9.0" in f.detail for f in verify_run(store, laxer, [], None).findings)
    passed = with_checks({n: {**c, "passed": True} for n, c in manifest.models[0].checks.items()})
    assert any(
        "passed is True with a value" in f.detail for f in verify_run(store, passed, [], None).findings
    )


def test_masking_after_many_calls_is_found_when_all_its_cells_are_made_again(tmp_path, small_images):
    """The check after the run edited to passed: a sample leaves it open and says so, all cells find it."""
    text = SMALL.replace("steps = 2", "steps = 12")
    _, _, (counted,) = made(tmp_path / "long", text, small_images, [("t", "cheat_tired", {"calls": 999})])
    calls = counted.model.seen - 10  # of 40 in the attack, and a few after it
    tired = ("t", "cheat_tired", {"calls": calls})
    store, manifest, _ = made(tmp_path / "short", text, small_images, [tired])
    record = manifest.models[0]
    assert not record.checks["gradient_unchanged"]["passed"]
    assert all(check["passed"] for name, check in record.checks.items() if name != "gradient_unchanged")
    hidden = {**record.checks["gradient_unchanged"], "passed": True, "value": 0.0}
    checks = {**record.checks, "gradient_unchanged": hidden}
    edited = manifest.model_copy(update={"models": (record.model_copy(update={"checks": checks}),)})
    retabled(store, edited)

    def verified(sample):
        fresh = Entrant("t", create_model("cheat_tired", calls=calls))
        return verify_run(store, edited, [fresh], small_images, sample=sample)

    some, every = verified(0), verified(9)
    assert some.findings == []
    assert [words.partition(":")[0] for words in some.not_verified] == ["t, gradient_unchanged"]
    assert [(f.what, f.where) for f in every.findings] == [("check", "t, gradient_unchanged")]
    assert every.not_verified == ()


def test_a_run_cut_after_any_cell_is_verified(small, small_images, tmp_path):
    """Only clean rows, no rows, half of them: what is there agrees, what is not there is no lie."""
    whole, manifest, entrants = small
    for count in range(len(manifest.cells)):
        store = ResultStore(tmp_path / str(count))
        for cell in manifest.cells[:count]:
            store.copy_cell(cell.key, whole)
        cut = refreshed(store, manifest)
        assert cut.status == "partial"
        retabled(store, cut)
        assert verify_run(store, cut, entrants, small_images, sample=9).findings == []


def test_a_cell_of_a_billion_images_is_damage(copy):
    """It is no reason to make room for a billion records."""
    store, manifest, _ = copy
    cells = [cell.model_copy(update={"count": 10**9}) for cell in manifest.cells]
    with pytest.raises(DataError, match=r"go up to image 1,000,000,\d{3}, .* its manifest is damaged"):
        verify_run(store, manifest.model_copy(update={"cells": tuple(cells)}), [], None)
