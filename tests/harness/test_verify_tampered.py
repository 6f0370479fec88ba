"""Every field of a manifest and every column of a row that decides a number: changed, it is found."""

import math
import shutil
from collections import Counter

import pytest
import torch

from helpers import tiny
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import DataError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig, refreshed
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification import verify_run
from iqa_harness.verification.manifest import not_as_shipped
from iqa_harness.verification.recompute import Again
from iqa_models import LinearQuality, create_model
from iqa_results import ROW_SCHEMA, ResultStore, RunManifest, Selection
from iqa_suites import load_suite, parse_suite

SMALL = """
name = "small"
summary = "one attack in one cell"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/raise", "pgd/pairwise_inversion"]
step_sweep = "pgd"
jpeg_qualities = [80]
cell_images = 4

[data]
name = "small"
images = 4

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["4/255"]
objectives = ["raise", "pairwise_inversion"]
steps = 2
report_steps = [1]
relative_step_size = 0.6
batch = 4
"""

NOT_HELD = {
    "row": {"seconds", "device", "harness", "cell"},  # a part with another cell's rows is refused unread
    "manifest": {
        "format", "run", "started", "ended", "provenance", "executor", "workers", "device_seconds", "tuning"
    },
    "models": {"checkpoint", "argument", "plugins", "backbone_weights", "flops"},
    "cells": {"error", "bytes"},
}  # fmt: skip
"""What says when, where and by what a run was made: no number follows from it."""


def _made(folder, text, images, models):
    entrants = [Entrant(label, create_model(name, **options)) for label, name, options in models]
    store = ResultStore(folder)
    work = plan(parse_suite(text, "suite"), entrants, images)
    manifest = run_suite(work, entrants, RunConfig("r", text), store)
    robustness_table(store, manifest).write(store, "r")
    return store, manifest, entrants


@pytest.fixture(scope="module")
def small_images():
    return tiny.make_images(test=8, val=4)


@pytest.fixture(scope="module")
def small(tmp_path_factory, small_images):
    return _made(tmp_path_factory.mktemp("small"), SMALL, small_images, [("m", "linear", {"seed": 10})])


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


def _retabled(store, manifest):
    """Write the tables anew: a liar does not forget them."""
    robustness_table(store, manifest).write(store, manifest.run)


def test_what_was_not_touched_has_no_findings(copy, small_images):
    """The run all these tests change agrees with itself."""
    store, manifest, entrants = copy
    found = verify_run(store, manifest, entrants, small_images, sample=9)
    assert found.findings == []
    assert (found.cells, found.checks) == (3, 1)


@pytest.mark.parametrize("attack", ["clean", "pgd"])
@pytest.mark.parametrize("column", [n for n in ROW_SCHEMA.names if n not in NOT_HELD["row"]])
def test_a_changed_column_is_found(copy, small_images, attack, column):
    """Whatever column of whatever kind of row: with model and images at hand nothing stays unseen."""
    store, manifest, entrants = copy
    cell = next(c for c in manifest.cells if c.attack == attack and c.split == "test")
    rows = store.read_cell(cell.key).to_pylist()
    kind = str(ROW_SCHEMA.field(column).type)
    rows[2][column] = _other(rows[2][column], kind)
    store.write_cell(cell.key, rows)
    assert verify_run(store, manifest, entrants, small_images, sample=9).findings


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
        _retabled(store, manifest)
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
    _retabled(store, manifest)
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
    _retabled(store, manifest)
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
        return {**value, "added": 1}
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
    assert verify_run(store, edited, entrants, small_images, sample=9).findings


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
    _retabled(store, edited)
    findings = verify_run(store, edited, entrants, small_images).findings
    assert any(f.where == "cells" and f.detail.endswith("is planned and not listed") for f in findings)


def test_the_checks_of_a_cheat_are_measured_again(tmp_path, small_images):
    """All checks edited to passed, the tables made from them: sound on paper, and found."""
    images = small_images
    store, manifest, entrants = _made(tmp_path, SMALL, images, [("c", "cheat_jpeg", {})])
    checks = {name: {**c, "passed": True, "value": 0.0} for name, c in manifest.models[0].checks.items()}
    bad = {name for name, check in manifest.models[0].checks.items() if not check["passed"]}
    assert bad

    def with_checks(new):
        edited = manifest.model_copy(
            update={"models": (manifest.models[0].model_copy(update={"checks": new}),)}
        )
        _retabled(store, edited)
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
    text = SMALL.replace("steps = 2", "steps = 40")
    _, _, (counted,) = _made(tmp_path / "long", text, small_images, [("t", "cheat_tired", {"calls": 999})])
    calls = counted.model.seen - 10  # of 40 in the attack, and a few after it
    tired = ("t", "cheat_tired", {"calls": calls})
    store, manifest, _ = _made(tmp_path / "short", text, small_images, [tired])
    record = manifest.models[0]
    assert not record.checks["gradient_unchanged"]["passed"]
    assert all(check["passed"] for name, check in record.checks.items() if name != "gradient_unchanged")
    hidden = {**record.checks["gradient_unchanged"], "passed": True, "value": 0.0}
    checks = {**record.checks, "gradient_unchanged": hidden}
    edited = manifest.model_copy(update={"models": (record.model_copy(update={"checks": checks}),)})
    _retabled(store, edited)

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
        _retabled(store, cut)
        assert verify_run(store, cut, entrants, small_images, sample=9).findings == []


def test_a_cell_of_a_billion_images_is_damage(copy):
    """It is no reason to make room for a billion records."""
    store, manifest, _ = copy
    cells = [cell.model_copy(update={"count": 10**9}) for cell in manifest.cells]
    with pytest.raises(DataError, match=r"go up to image 1,000,000,\d{3}, .* its manifest is damaged"):
        verify_run(store, manifest.model_copy(update={"cells": tuple(cells)}), [], None)


FORGED = (
    SMALL.replace('epsilons = ["4/255"]', 'epsilons = ["2/255", "4/255"]')
    .replace('objectives = ["raise"', 'objectives = ["mse", "raise", "lower"')
    .replace("\nimages = 4", "\nimages = 8")
)
"""Two radii, two cells at each."""


@pytest.fixture(scope="module")
def forged(tmp_path_factory, small_images):
    models = [("m", "linear", {"seed": 10}), ("other", "linear", {"seed": 3})]
    return _made(tmp_path_factory.mktemp("forged"), FORGED, small_images, models)


@pytest.fixture
def forgery(forged, tmp_path):
    """The finished run in a store that may be forged."""
    store, manifest, entrants = forged
    shutil.copytree(store.root, tmp_path / "store")
    return ResultStore(tmp_path / "store"), manifest, entrants


def _soften(store, cells, share=0.5):
    """Move every attacked score towards the clean one, with all that follows from it in its row."""
    for cell in cells:
        rows = store.read_cell(cell.key).to_pylist()
        for row in rows:
            for name in ("adv_score", "attack_score", "adv_score_8bit", "adv_score_jpeg"):
                row[name] = row["clean_score"] + share * (row[name] - row["clean_score"])
            unit = {"raise": row["adv_score"], "lower": -row["adv_score"]}.get(row["objective"])
            if row["objective"] == "mse":
                unit = (row["adv_score"] - (row["mos"] - 1) / 4) ** 2
            row["loss"] = row["loss"] if unit is None else unit
        store.write_cell(cell.key, rows)


def test_cells_of_the_main_radius_softened_consistently_are_found(forgery, small_images):
    """Rows agree with each other and with the tables; whatever the draw, a cell of that radius is in it."""
    store, manifest, entrants = forgery
    _soften(store, [c for c in manifest.cells if c.model == "m" and c.epsilon == 4 / 255])
    _retabled(store, manifest)
    assert verify_run(store, manifest, [], None).findings == []
    found = verify_run(store, manifest, entrants[:1], small_images, sample=1, seed=5)
    assert found.findings
    assert all(f.where.startswith("m, ") for f in found.findings)
    assert found.main_cells == {"m": (2, 1)}
    assert (found.missed("m", 1), found.missed("m", 2)) == (0.5, 0)


def test_what_is_drawn_is_of_the_main_radius_then_of_another_and_nobody_knows_which(forged, small_images):
    """By the seed alone either cell of the main radius comes first; an attack that decides goes before."""
    store, manifest, entrants = forged
    work = plan(parse_suite(FORGED, "suite"), entrants, small_images)
    parts = {cell.key: store.read_cell(cell.key) for cell in manifest.cells}
    again = Again(manifest, work, entrants[:1], parts, Runtime())

    def drawn(sample, seed, deciding=None):
        return [c for c in again.chosen(sample, seed, deciding) if c.attack is not None]

    firsts = [drawn(1, seed) for seed in range(40)]
    assert {len(cells) for cells in firsts} == {1}
    assert {cells[0].epsilon for cells in firsts} == {4 / 255}
    counts = Counter(cells[0].first for cells in firsts)
    assert set(counts) == {0, 4}
    assert min(counts.values()) >= 10
    for seed in range(5):
        assert sorted(cell.epsilon for cell in drawn(2, seed)) == [2 / 255, 4 / 255]
        assert sorted(cell.epsilon for cell in drawn(3, seed)) == [2 / 255, 4 / 255, 4 / 255]
        assert drawn(9, seed) == [c for c in again.possible("m") if c.attack is not None]
        assert drawn(1, seed, {"m": "pgd"}) == drawn(1, seed)


@pytest.mark.parametrize(
    ("objective", "end", "says"),
    [("lower", "lowest_seen", "beyond the lowest"), ("raise", "highest_seen", "beyond the highest")],
)
def test_a_score_beyond_all_that_was_seen_is_found(forgery, objective, end, says):
    """The adversary's best rows softened alone: what another row of the image holds is then beyond them."""
    store, manifest, _ = forgery
    cell = next(c for c in manifest.cells if c.model == "m" and c.epsilon == 4 / 255)
    rows = store.read_cell(cell.key).to_pylist()
    for row in rows:
        if row["objective"] == end:
            for name in ("adv_score", "attack_score"):
                row[name] = row["clean_score"]
    store.write_cell(cell.key, rows)
    _retabled(store, manifest)
    findings = verify_run(store, manifest, [], None).findings
    assert any(says in f.detail and f"pgd/{objective}" in f.where for f in findings)


def test_ends_that_draw_together_with_more_steps_are_found(forgery):
    """The whole last step softened: one step had seen a score beyond it."""
    store, manifest, _ = forgery
    cell = next(c for c in manifest.cells if c.model == "m" and c.epsilon == 4 / 255)
    rows = store.read_cell(cell.key).to_pylist()
    kept = [dict(row) for row in rows if row["steps"] == 1]
    _soften(store, [cell], 0.1)
    changed = {(r["objective"], r["position"]): r for r in kept}
    rows = [
        changed.get((r["objective"], r["position"]), r) if r["steps"] == 1 else r
        for r in store.read_cell(cell.key).to_pylist()
    ]
    store.write_cell(cell.key, rows)
    _retabled(store, manifest)
    findings = verify_run(store, manifest, [], None).findings
    assert {f.detail.partition(" score seen")[0] for f in findings} == {"is the lowest", "is the highest"}


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("", "", False),
        ('split = "test"\nimages = 16', 'split = "test"', False),  # `--data`: all images of another set
        ('name = "smoke"\nsummary', 'name = "mine"\nsummary', False),
        ('["pgd/mse", "pgd/drift", ', '["pgd/mse", ', True),
        ("steps = 3", "steps = 2", True),
        ("images = 16", "images = 8", True),
        ('split = "test"', 'split = "val"', True),
    ],
)
def test_a_weakened_suite_under_a_shipped_name_is_told(old, new, differs):
    """A member dropped from suite_min, steps, images: its hash is its own, and not that of its name."""
    shipped = load_suite("smoke")
    assert old in shipped.text
    suite = parse_suite(shipped.text.replace(old, new, 1), "x")
    found = not_as_shipped(suite)
    assert [f.where for f in found] == ["suite"] * differs
    assert bool(not_as_shipped(suite, load_suite("demo").suite))


def test_a_run_of_a_weakened_suite_is_not_sound(tmp_path, small_images):
    """Hash, cells and tables all follow from the new text."""
    text = (
        load_suite("smoke").on_data("small", None).text.replace('"pgd/drift", "pgd/pairwise', '"pgd/pairwise')
    )
    text = text.replace('epsilons = ["1/255", "2/255"]', 'epsilons = ["2/255"]')
    store, manifest, _ = _made(tmp_path, text, small_images, [("m", "linear", {"seed": 10})])
    (finding,) = verify_run(store, manifest, [], None).findings
    assert finding.where == "suite"
    assert finding.detail.startswith("smoke with hash ")


class Remembers(LinearQuality):
    """Moves a tenth as far from the first score it gave near an image."""

    def predict(self, images):
        values, seen = super().predict(images), self.__dict__.setdefault("known", [])
        anchors = []
        for image, value in zip(images.detach(), values.detach(), strict=True):
            near = (v for i, v in seen if float((i - image).abs().max()) < 16 / 255)
            anchors.append(next(near, value))
            if anchors[-1] is value:
                seen.append((image.clone(), value))
        first = torch.stack(anchors)
        return first + 0.1 * (values - first)


@pytest.mark.parametrize("remembers", [False, True])
def test_kept_images_are_scored_by_a_model_that_has_seen_nothing(tmp_path, small_images, remembers):
    """A model that remembers agrees with itself in every order but another one."""

    def fresh():
        model = create_model("linear", seed=10).eval()
        if remembers:
            model.__class__ = Remembers
        return [Entrant("m", model)]

    store, text = ResultStore(tmp_path), FORGED
    entrants = fresh()
    work = plan(parse_suite(text, "suite"), entrants, small_images)
    manifest = run_suite(work, entrants, RunConfig("r", text, keep_images=True), store)
    tables = robustness_table(store, manifest)
    tables.write(store, "r")
    passed = {name: check["passed"] for name, check in manifest.models[0].checks.items()}
    assert all(passed.values()), passed
    found = verify_run(store, manifest, fresh(), small_images, sample=0)
    assert found.kept == 2 * 4 * 2 * 6
    assert bool(found.findings) == remembers
    assert any("where no other was scored before it" in f.detail for f in found.findings) == remembers
