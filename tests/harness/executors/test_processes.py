"""Processes of one machine: the rows of one process, whoever dies."""

import pytest

from iqa_harness.errors import RunError
from iqa_harness.executors import Place
from iqa_harness.executors.processes import Processes

TWO = (Place("cpu", 1), Place("cpu", 1))


def test_two_processes_give_the_rows_of_one(tmp_path, run, rows, entrants, expected):
    """Models, images and suite are made again from plain files; every row is bit-equal."""
    store, manifest = run(tmp_path, entrants, Processes(TWO))
    assert manifest.status == "complete"
    assert rows(store, manifest).equals(expected)
    assert manifest.executor == "processes"
    assert 1 <= len(manifest.workers) <= 2
    assert sum(worker.cells for worker in manifest.workers) == len(manifest.cells)
    assert {(w.device, w.threads) for w in manifest.workers} == {("cpu", 1)}
    assert all(w.peak_memory > 2**20 for w in manifest.workers)


def test_a_worker_killed_in_the_middle_of_a_cell_costs_nothing(
    tmp_path, run, rows, entrants, expected, deadly
):
    """Its task goes to a new process; no cell is lost, failed or doubled."""
    entrant, marker = deadly(2)
    store, manifest = run(tmp_path, [entrants[0], entrant], Processes(TWO))
    assert marker.read_text() == ""
    assert manifest.status == "complete"
    assert rows(store, manifest).equals(expected)


def test_a_cell_that_kills_every_worker_fails_alone(tmp_path, run, entrants, deadly):
    """After three deaths its task is marked failed with the reason; the other model's cells are done."""
    entrant, marker = deadly(10_000)
    _, manifest = run(tmp_path, [entrants[0], entrant], Processes(TWO[:1]), only=["clean"])
    assert manifest.status == "partial"
    clean = [cell for cell in manifest.cells if cell.attack == "clean"]
    assert {cell.status for cell in clean if cell.model == "plain"} == {"done"}
    dead = [cell for cell in clean if cell.model == "deadly"]
    assert {(cell.status, cell.error) for cell in dead} == {("failed", "3 workers died on it")}
    marker.write_text("")


def test_a_model_of_this_process_alone_is_refused(tmp_path, run, entrants):
    """An object nobody registered cannot be made again elsewhere: said before anything is computed."""
    model = entrants[0].model
    other = type(entrants[0])("own", type(model)(model.spec.replace(name="own"), model.pattern.data, 0.5))
    with pytest.raises(RunError, match="no worker can make it again"):
        run(tmp_path, [entrants[0], other], Processes(TWO))
