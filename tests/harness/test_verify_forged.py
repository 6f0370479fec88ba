"""Forged stores, consistent in themselves, and what of them verification finds."""

import shutil
from collections import Counter

import pyarrow as pa
import pytest
import torch

from helpers import tiny
from helpers.stored_runs import SMALL, made, retabled
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification import verify_run
from iqa_harness.verification.manifest import not_as_shipped
from iqa_harness.verification.recompute import Again
from iqa_models import LinearQuality, create_model
from iqa_results import ResultStore
from iqa_suites import load_suite, parse_suite


@pytest.fixture(scope="module")
def small_images():
    return tiny.make_images(test=8, val=4)


FORGED = (
    SMALL.replace('epsilons = ["4/255"]', 'epsilons = ["2/255", "4/255"]')
    .replace('objectives = ["raise"', 'objectives = ["mse", "raise", "lower"')
    .replace("\nimages = 4", "\nimages = 8")
)
"""Two radii, two cells at each."""


@pytest.fixture(scope="module")
def forged(tmp_path_factory, small_images):
    models = [("m", "linear", {"seed": 10}), ("other", "linear", {"seed": 3})]
    return made(tmp_path_factory.mktemp("forged"), FORGED, small_images, models)


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
    retabled(store, manifest)
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
    retabled(store, manifest)
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
    retabled(store, manifest)
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
    store, manifest, _ = made(tmp_path, text, small_images, [("m", "linear", {"seed": 10})])
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


def _unmoved(store, key):
    """Keep the clean images, under the scores of the attacked ones."""
    table = store.read_examples(key)
    clean = [{**r, **{n: bytes(len(r[n])) for n in ("nearest", "pixels")}} for r in table.to_pylist()]
    store.write_examples(key, pa.Table.from_pylist(clean, schema=table.schema))


def _cut(store, key):
    store.examples_path(key).write_bytes(store.examples_path(key).read_bytes()[:-9])


@pytest.mark.parametrize(("change", "what"), [(_unmoved, "row"), (_cut, "part")])
def test_kept_images_that_are_others_or_damaged_are_found(tmp_path, small_images, change, what):
    """What is kept to be looked at is no proof of a score it does not have, or that nobody can read."""
    store, entrants = ResultStore(tmp_path), [Entrant("m", create_model("linear", seed=10))]
    work = plan(parse_suite(SMALL, "suite"), entrants, small_images)
    manifest = run_suite(work, entrants, RunConfig("r", SMALL, keep_images=True), store)
    retabled(store, manifest)
    whole = verify_run(store, manifest, entrants, small_images, sample=0)
    assert (whole.findings, whole.kept) == ([], 4 * 2 * 4)
    for key in store.example_sizes():
        change(store, key)
    found = verify_run(store, manifest, entrants, small_images, sample=0).findings
    assert {f.what for f in found} == {what}
