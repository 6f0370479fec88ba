"""Attacked images that are kept: the same bits, and no attack is run again for a new target."""

import functools
import shutil

import pytest
import torch

import iqa_harness.cells.compute
import iqa_harness.running.executors.bench
from helpers import tiny
from iqa_harness.cells.compute import craft
from iqa_harness.cells.examples import decode, encode, recreate
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import create_model
from iqa_results import EXAMPLE_SCHEMA, BadPart, ResultStore
from iqa_suites import parse_suite

TEXT = tiny.SUITE + tiny.TRANSFER
RUN = TEXT.replace("images = 12", "images = 8").replace(
    "steps = 4\nreport_steps = [1, 2]", "steps = 2\nreport_steps = [1]"
)
"""Of whole runs: two cells an attack and radius, of fewer steps."""
L2 = TEXT.replace('name = "tiny"\nsummary', 'name = "tiny"\nnorm = "2"\nsummary').replace(
    'epsilons = ["', 'norm = "2"\nepsilons = ["'
)


def _entrants(*seeds):
    return [Entrant(f"m{seed}", create_model("linear", seed=seed)) for seed in seeds]


def _run(store, images, seeds, keep=True, text=RUN, on_cell=lambda *_: None):
    entrants = _entrants(*seeds)
    work = plan(parse_suite(text, "tiny"), entrants, images)
    return run_suite(work, entrants, RunConfig("r", text, keep_images=keep), store, on_cell=on_cell)


@pytest.fixture(scope="module")
def made(tmp_path_factory, images):
    """Return a function from whether images were kept to a run of two models, made once, to be copied."""

    @functools.cache
    def of(keep):
        store = ResultStore(tmp_path_factory.mktemp("made"))
        return store, _run(store, images, (1, 2), keep=keep)

    return of


@pytest.fixture
def copied(made, tmp_path):
    """The same in a store of the test's own."""

    def of(keep):
        store, manifest = made(keep)
        return ResultStore(shutil.copytree(store.root, tmp_path / "copied")), manifest

    return of


def _rows(store, manifest):
    return store.read_cells(c.key for c in manifest.cells).drop_columns(["seconds"])


@pytest.fixture
def attacks_run(monkeypatch):
    """A list that grows by the kind of every attack that is run for a cell; the models' checks are not."""
    runs = []

    def counted(cell, *args):
        runs.append(cell.attack.kind)
        return craft(cell, *args)

    for module in (iqa_harness.running.executors.bench, iqa_harness.cells.compute):
        monkeypatch.setattr(module, "craft", counted)
    return runs


def _own_cells(images, text=TEXT):
    entrants = _entrants(1, 2)
    work = plan(parse_suite(text, "tiny"), entrants, images)
    return (
        work,
        entrants[0].model,
        [c for c in work.cells if c.label == "m1" and c.attack and not c.surrogate],
    )


@pytest.mark.parametrize("text", [TEXT, L2], ids=["inf", "2"])
def test_what_an_attack_found_comes_back_bit_for_bit(tmp_path, images, text):
    """Pixels, scores, losses, costs, order, and which objectives share an example: all equal."""
    work, model, cells = _own_cells(images, text)
    store = ResultStore(tmp_path)
    for cell in cells[::3]:
        found = craft(cell, model, work.images, Runtime())
        table = encode(found, cell, work.images)
        assert table.schema.equals(EXAMPLE_SCHEMA)
        store.write_examples(cell.key, table)
        back = decode(store.read_examples(cell.key), cell, work.images, "cpu")
        assert back.cost == found.cost
        assert torch.equal(back.clean, found.clean)
        assert len(back.found) == len(found.found)
        names: dict[int, int] = {}
        for old, new in zip(found.found, back.found, strict=True):
            assert old._replace(example=None) == new._replace(example=None)
            assert old.example._replace(pixels=None) == new.example._replace(pixels=None)
            assert torch.equal(old.example.pixels.view(torch.int32), new.example.pixels.view(torch.int32))
            assert names.setdefault(id(old.example), id(new.example)) == id(new.example)
        assert len(set(names.values())) == len(names)


def test_values_that_a_projection_never_gives_come_back_too(images):
    """Negative zero, denormals, and values outside the ball: bits are bits."""
    work, model, cells = _own_cells(images)
    found = craft(cells[0], model, work.images, Runtime())
    odd = found.found[0].example.pixels
    odd.view(-1)[:4] = torch.tensor([-0.0, 1e-42, 0.999999, 5.0])
    back = decode(encode(found, cells[0], work.images), cells[0], work.images, "cpu")
    assert torch.equal(back.found[0].example.pixels.view(torch.int32), odd.view(torch.int32))


def test_kept_images_take_less_room_than_their_pixels(tmp_path):
    """What an attack drove to the edge of the ball costs next to nothing."""
    work, model, cells = _own_cells(tiny.make_images(val=3, size=64))
    fgsm = next(cell for cell in cells if cell.attack_name == "fgsm")
    table = encode(craft(fgsm, model, work.images, Runtime()), fgsm, work.images)
    store = ResultStore(tmp_path)
    store.write_examples(fgsm.key, table)
    raw = table.num_rows * 3 * 64 * 64 * 4
    assert store.example_sizes()[fgsm.key] < raw / 10


@pytest.mark.slow
def test_a_new_target_is_tried_on_kept_images(tmp_path, images, copied, attacks_run):
    """A third model joins: only it is attacked, and its rows are those of a run of all three."""
    whole = ResultStore(tmp_path / "whole")
    expected = _rows(whole, _run(whole, images, (1, 2, 3), keep=False))
    store, _ = copied(keep=True)
    assert len(store.example_sizes()) == 2 * 6
    attacks_run.clear()
    more = _run(store, images, (1, 2, 3))
    assert len(attacks_run) == 6  # two ranges of FGSM at one radius and PGD at two, on the third model
    assert _rows(store, more).equals(expected)


@pytest.mark.slow
def test_without_kept_images_the_same_attack_finds_them_again(images, copied, attacks_run):
    """The attacks whose examples the new target needs are run again, no others; the rows are the same."""
    store, _ = copied(keep=False)
    assert store.example_sizes() == {}
    attacks_run.clear()
    _run(store, images, (1, 2, 3), keep=False)
    assert attacks_run.count("fgsm") == 2
    assert attacks_run.count("pgd") == 3 * 4


@pytest.mark.slow
def test_transfer_rows_alone_are_lost_and_come_back_without_an_attack(images, copied, attacks_run):
    """Resumed between an attack and its transfers, kept images serve; damaged ones are found again."""
    store, manifest = copied(keep=True)
    expected = _rows(store, manifest)
    transfers = [c for c in manifest.cells if c.attack.startswith("transfer")]
    for cell in transfers:
        store.cell_path(cell.key).unlink()
    attacks_run.clear()
    assert _rows(store, _run(store, images, (1, 2))).equals(expected)
    assert attacks_run == []
    for path in (store.root / "examples").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    store.cell_path(transfers[0].key).unlink()
    assert _rows(store, _run(store, images, (1, 2))).equals(expected)
    assert attacks_run == ["pgd"]


@pytest.mark.slow
def test_images_of_a_finished_run_can_be_kept_later(images, copied):
    """Asked for afterwards, they are found again and stored; no row is computed again."""
    (store, manifest), seen = copied(keep=False), []
    again = _run(store, images, (1, 2), on_cell=lambda cell, status: seen.append(status))
    assert set(seen) == {"cached"}
    assert len(store.example_sizes()) == 2 * 6
    assert [c.bytes for c in again.cells] == [c.bytes for c in manifest.cells]
    work, model, cells = _own_cells(images, RUN)
    kept = recreate(cells[0], model, work.images, Runtime(), store)
    found = recreate(cells[0], model, work.images, Runtime())
    assert all(
        torch.equal(a.example.pixels, b.example.pixels) for a, b in zip(kept.found, found.found, strict=True)
    )


def test_examples_of_another_cell_are_refused(tmp_path, images):
    """A file under another cell's key is not taken for that cell's."""
    work, model, cells = _own_cells(images)
    store = ResultStore(tmp_path)
    table = encode(craft(cells[0], model, work.images, Runtime()), cells[0], work.images)
    with pytest.raises(BadPart, match="rows of another cell"):
        store.write_examples(cells[1].key, table)
    path = store.write_examples(cells[0].key, table)
    other = store.examples_path(cells[1].key)
    other.parent.mkdir(parents=True, exist_ok=True)
    path.rename(other)
    with pytest.raises(BadPart, match="examples of another cell"):
        store.read_examples(cells[1].key)
