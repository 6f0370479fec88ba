"""What attacks are trained on reaches a worker, through a snapshot opened in this process."""

import pytest

from iqa_harness.cells.compute import run_cell
from iqa_harness.cells.plan import CellRef, plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.executors.snapshot import open_snapshot, write_snapshot
from iqa_harness.running.model_records import model_record
from iqa_harness.running.task import Place, Task
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

SUITE = """
name = "tiny"
summary = "for tests"
seed = 3
main_epsilon = "4/255"
suite_min = ["universal/raise"]
cell_images = 8

[data]
name = "tiny"

[[attacks]]
name = "universal"
kind = "universal"
epsilons = ["4/255"]
objectives = ["raise", "lower"]
steps = 5
training_split = "val"
training_images = 3
"""


def test_a_worker_trains_a_universal_change_as_the_driver_does(csv_set, tmp_path):
    """From the files of a snapshot: the same key, the same training images, the same rows."""
    entrants = [Entrant("plain", create_model("linear", seed=1).eval())]
    work = plan(parse_suite(SUITE, "tiny"), entrants, csv_set)
    assert [len(images) for images in work.training.values()] == [3]
    store = ResultStore(tmp_path / "store")
    known = [(entrant, model_record(entrant, work, Runtime(), None)) for entrant in entrants]
    folder = write_snapshot(tmp_path / "snapshot", work, known, store, Runtime())
    bench = open_snapshot(folder, Place("cpu", None))
    cells = [cell for cell in work.cells if cell.attack is not None]
    outcome = bench.run(Task(0, tuple(CellRef.of(cell) for cell in cells)))
    assert [report.status for report in outcome.cells] == ["done", "done"]
    with pytest.raises(RunError, match=r"plain, universal, images from 0: .*another cell than was planned"):
        bench.run(Task(0, (CellRef.of(cells[0])._replace(key="0" * 64),)))
    for cell in cells:
        here = run_cell(cell, entrants[0].model, work.images, Runtime())
        there = store.read_cell(cell.key).to_pylist()
        assert [{**row, "seconds": 0} for row in there] == [{**row, "seconds": 0} for row in here]
