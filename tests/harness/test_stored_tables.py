"""Tables that would be made again as they are, are read; any change of what made them makes them anew."""

import shutil

import pytest

import iqa_harness as iqa
from helpers.stored_runs import SMALL, made
from iqa_harness.api.demo import Demo
from iqa_harness.api.reading import aggregated
from iqa_harness.errors import RunError
from iqa_harness.running.ledger import refreshed
from iqa_harness.tables.robustness import RobustnessTable, robustness_table, stored_tables
from iqa_results import RUN_TABLES, ResultStore


@pytest.fixture(scope="module")
def tabled(tmp_path_factory, images):
    """A store with one run, its tables made; to be copied."""
    folder = tmp_path_factory.mktemp("tabled")
    return made(folder, SMALL, images, [("m", "linear", {"seed": 10})])[0]


@pytest.fixture(scope="module")
def drawn(tabled, tmp_path_factory):
    """The same with the run's page; to be copied."""
    store = ResultStore(shutil.copytree(tabled.root, tmp_path_factory.mktemp("drawn") / "store"))
    run = iqa.load_run("r", store)
    demo = Demo(run, ())
    assert demo.page is None  # never drawn
    assert run.report(formats=["html"]).page == demo.page
    return store


@pytest.fixture
def store(tabled, tmp_path):
    """The store without a page, as the test's own."""
    return ResultStore(shutil.copytree(tabled.root, tmp_path / "store"))


def times(store):
    return {name: store.table_path("r", name).stat().st_mtime_ns for name in RUN_TABLES}


def test_what_is_read_is_what_would_be_made(store):
    """All tables, row by row; nothing is written."""
    before, manifest = times(store), store.read_manifest("r")
    found = stored_tables(store, manifest)
    assert found is not None
    anew = robustness_table(store, manifest)
    for name in RUN_TABLES:
        assert getattr(found, name).to_pylist() == getattr(anew, name).to_pylist()
    assert aggregated(store, "r")[1].table.to_pylist() == anew.table.to_pylist()
    assert times(store) == before


def cell_lost(store):
    store.delete_cell(store.read_manifest("r").cells[-1].key)


def cell_computed_anew(store):
    """As elsewhere, in other time: an attack may have come to other scores there."""
    cell = store.read_manifest("r").cells[-1]
    rows = store.read_cell(cell.key).to_pylist()
    store.delete_cell(cell.key)
    aged = [{**row, "seconds": row["seconds"] + 1, "adv_score": row["clean_score"]} for row in rows]
    store.write_cell(cell.key, aged)
    lost = cell.model_copy(update={"bytes": None})  # not known as it is
    cells = tuple(lost if c.key == cell.key else c for c in store.read_manifest("r").cells)
    store.write_manifest(refreshed(store, store.read_manifest("r").model_copy(update={"cells": cells})))


def other_radius(store):
    store.write_manifest(store.read_manifest("r").model_copy(update={"main_epsilon": 0.5}))


def table_damaged(store):
    store.table_path("r", "flags").write_bytes(b"PAR1")


def table_missing(store):
    store.table_path("r", "measures").unlink()


def other_code(store):
    manifest = store.read_manifest("r")
    RobustnessTable(**{**robustness_table(store, manifest)._asdict(), "maker": "other"}).write(store, "r")


def fewer_draws(store):
    robustness_table(store, store.read_manifest("r"), resamples=10).write(store, "r")


@pytest.mark.parametrize(
    "change",
    [cell_lost, cell_computed_anew, other_radius, table_damaged, table_missing, other_code, fewer_draws],
)
def test_a_change_makes_them_anew(store, change):
    """Another cell, plan, code or number of draws, or a file that cannot be read."""
    change(store)
    before = times(store) if change not in (table_missing,) else None
    manifest, _ = aggregated(store, "r")
    assert times(store) != before
    assert stored_tables(store, manifest) is not None


@pytest.mark.parametrize("change", [cell_lost, cell_computed_anew, other_radius, other_code])
def test_who_loads_or_draws_a_run_decides_alike(drawn, tmp_path, change):
    """A loaded run has the tables that would be made now; a page of others is not taken for the run's."""
    store = ResultStore(shutil.copytree(drawn.root, tmp_path / "store"))
    page = Demo(iqa.load_run("r", store), ()).page
    assert page == store.root / "runs" / "r" / "report" / "index.html"
    change(store)
    page.touch()  # the newest file there is, whatever it was drawn from
    again = iqa.load_run("r", store)
    expected = robustness_table(store, again.manifest)
    for name in RUN_TABLES:
        assert getattr(again.tables, name).to_pylist() == getattr(expected, name).to_pylist()
    assert (Demo(again, ()).page == page) == (change is other_code)  # then they come out as they were


def test_a_page_drawn_anew_is_taken_for_the_run_s(drawn, tmp_path):
    """It is of the tables there are now, whatever the former one was drawn from."""
    store = ResultStore(shutil.copytree(drawn.root, tmp_path / "store"))
    cell_lost(store)
    again = iqa.load_run("r", store)
    assert Demo(again, ()).page is None
    page = again.report(formats=["html"]).page
    assert Demo(again, ()).page == page


def test_a_run_of_a_store_that_cannot_be_written_to_is_loaded(store, monkeypatch):
    """Its tables are made anew in memory, and the stored ones stay as they are."""
    other_code(store)
    before = times(store)
    monkeypatch.setattr("iqa_harness.api.reading.require_folder", refuse)
    run = iqa.load_run("r", store)
    assert run.table["value"].notna().any()
    assert times(store) == before


def test_a_store_that_cannot_be_written_to_is_refused_before_any_work(store, tmp_path, monkeypatch):
    """Floors and plants would be lost when they are there; a report elsewhere names no table that is not."""
    for name in ("power", "certify", "reading"):
        monkeypatch.setattr(f"iqa_harness.api.{name}.require_folder", refuse)
    with pytest.raises(RunError, match="cannot be written to"):
        iqa.certify_run("r", store=store, progress=False)
    with pytest.raises(RunError, match="cannot be written to"):
        iqa.power("r", store=store, progress=False)
    store.table_path("r").unlink()
    assert iqa.load_run("r", store).report(tmp_path / "out", formats=["markdown"]).tables == ()


def refuse(place, option):
    raise RunError(f"{option} {place} cannot be written to")
