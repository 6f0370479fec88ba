"""Processes of one machine: the rows of one process, whoever dies."""

import pytest

from iqa_harness.errors import RunError
from iqa_harness.executors import Place
from iqa_harness.executors.processes import Processes, places
from iqa_harness.plan import Selection

TWO = (Place("cpu", 1), Place("cpu", 1))


def test_two_processes_give_the_rows_of_one_though_one_is_killed(
    tmp_path, run, rows, entrants, expected, deadly
):
    """Made again from plain files, killed in the middle of a cell, started again: every row is bit-equal."""
    entrant, marker = deadly(1)
    store, manifest = run(tmp_path, [entrants[0], entrant], Processes(TWO))
    assert marker.read_text() == ""
    assert manifest.status == "complete"
    assert rows(store, manifest).equals(expected)
    assert manifest.executor == "processes"
    assert 2 <= len(manifest.workers) <= 3
    assert len(manifest.cells) - 3 <= sum(worker.cells for worker in manifest.workers) <= len(manifest.cells)
    assert {(w.device, w.threads) for w in manifest.workers} == {("cpu", 1)}
    assert all(w.peak_memory > 2**20 for w in manifest.workers)


def test_a_cell_that_kills_every_worker_fails_alone(tmp_path, run, entrants, deadly):
    """After the last death its task is marked failed with the reason; the other model's cells are done."""
    entrant, marker = deadly(10_000)
    one = Processes(TWO[:1], attempts=1)
    _, manifest = run(tmp_path, [entrants[0], entrant], one, only=["clean"], selection=Selection(limit=4))
    marker.write_text("")
    assert manifest.status == "partial"
    clean = [cell for cell in manifest.cells if cell.attack == "clean"]
    assert {cell.status for cell in clean if cell.model == "plain"} == {"done"}
    dead = [cell for cell in clean if cell.model == "deadly"]
    assert {(cell.status, cell.error) for cell in dead} == {("failed", "1 worker(s) died on it")}


def test_devices_and_cores_are_shared_out():
    """A process a device or several, each with its share of the cores, at least one thread."""
    assert places(["cuda:0", "cuda:1"], 2, 3) == [
        Place("cuda:0", 3), Place("cuda:1", 3), Place("cuda:0", 3), Place("cuda:1", 3)
    ]  # fmt: skip
    assert [place.threads for place in places(["cpu"], 10_000, None)[:2]] == [1, 1]


def test_a_model_of_this_process_alone_is_refused(tmp_path, run, entrants):
    """An object nobody registered cannot be made again elsewhere: said before anything is computed."""
    model = entrants[0].model
    other = type(entrants[0])(
        "own", type(model)(model.spec.replace(name="own"), model.pattern.data, 0.5).eval()
    )
    with pytest.raises(RunError, match="no worker can make it again"):
        run(tmp_path, [entrants[0], other], Processes(TWO))
