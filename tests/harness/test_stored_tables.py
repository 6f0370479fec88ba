"""Tables that would be made again as they are, are read; any change of what made them makes them anew."""

import pytest

from iqa_harness.api.reading import aggregate, aggregated
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import RobustnessTable, robustness_table, stored_tables
from iqa_models import create_model
from iqa_results import RUN_TABLES, ResultStore


@pytest.fixture
def store(tmp_path, images, suite):
    """A store with one run, its tables made."""
    entrants = [Entrant("m", create_model("linear", seed=10))]
    store = ResultStore(tmp_path)
    run_suite(plan(suite, entrants, images), entrants, RunConfig("r", ""), store)
    aggregate(store, "r")
    return store


def times(store):
    return {name: store.table_path("r", name).stat().st_mtime_ns for name in RUN_TABLES}


def test_what_is_read_is_what_would_be_made(store):
    """All tables, row by row; nothing is written."""
    before, manifest = times(store), store.read_manifest("r")
    found = stored_tables(store, manifest)
    assert found is not None
    made = robustness_table(store, manifest)
    for name in RUN_TABLES:
        assert getattr(found, name).to_pylist() == getattr(made, name).to_pylist()
    assert aggregated(store, "r").table.to_pylist() == made.table.to_pylist()
    assert times(store) == before


def cell_lost(store):
    store.delete_cell(store.read_manifest("r").cells[-1].key)


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
    "change", [cell_lost, other_radius, table_damaged, table_missing, other_code, fewer_draws]
)
def test_a_change_makes_them_anew(store, change):
    """Another cell, plan, code or number of draws, or a file that cannot be read."""
    change(store)
    before = times(store) if change not in (table_missing,) else None
    manifest = aggregate(store, "r")
    assert times(store) != before
    assert stored_tables(store, manifest) is not None
