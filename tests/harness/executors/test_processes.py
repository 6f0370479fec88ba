"""Processes of one machine: the rows of one process, whoever dies."""

import shutil
import sys

import pytest

from helpers import tiny
from iqa_harness.cells.plan import Selection, plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.executors import Job, Place
from iqa_harness.running.executors.processes import Processes, places
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

pytestmark = pytest.mark.slow

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


def test_a_gradient_that_a_worker_masks_after_many_calls_is_seen(tmp_path, csv_set):
    """The driver's own model never gets so far; the process that attacked measures its model again."""
    longer = tiny.SHORT.replace("steps = 2\n", "steps = 40\n").replace("restarts = 1", "restarts = 2")
    suite = parse_suite(longer, "tiny")
    models = {
        "plain": create_model("linear", seed=1),
        "tired": create_model("cheat_tired", calls=150),
        "lasting": create_model("cheat_tired", calls=100_000),
    }
    both = [Entrant(label, model) for label, model in models.items()]
    store, executor = ResultStore(tmp_path), Processes(TWO[:1])
    manifest = run_suite(
        plan(suite, both, csv_set), both, RunConfig("r"), store, Runtime(tune="off"), executor=executor
    )
    assert manifest.status == "complete"
    assert models["tired"].seen < 150
    assert models["lasting"].seen < 150
    checks = {model.name: model.checks["gradient_unchanged"] for model in manifest.models}
    assert "in a worker process" in checks["tired"]["detail"]
    assert {name: check["passed"] for name, check in checks.items()} == {
        "plain": True,
        "tired": False,
        "lasting": True,
    }
    assert checks["tired"]["value"] > checks["tired"]["threshold"]
    assert checks["lasting"]["value"] <= checks["lasting"]["threshold"]


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
        run(tmp_path, [entrants[0], other], Processes(TWO[:1]))


class Elsewhere(Processes):
    """Workers of a machine that has none of the user's files."""

    def __init__(self, plugin):
        super().__init__(TWO[:1])
        self.plugin = plugin

    def run(self, job, tasks):
        def folder(path):
            made = job.folder(path)
            shutil.rmtree(self.plugin.parent)
            return made

        return super().run(Job(job.here, folder), tasks)


def test_a_plugins_helpers_travel_with_it(tmp_path, run, monkeypatch):
    """A worker without the driver's files makes the model again from copies of all of them."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugin = tmp_path / "own" / "travelling.py"
    (plugin.parent / "luggage").mkdir(parents=True)
    (plugin.parent / "luggage" / "seeds.py").write_text("SEED = 3\n")
    plugin.write_text(
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent))\n"
        "from luggage.seeds import SEED\nfrom iqa_models import LinearQuality, create_model, register_model\n"
        "class Mine(LinearQuality):\n    pass\n@register_model('travelling')\ndef travelling():\n"
        "    base = create_model('linear', seed=SEED)\n"
        "    return Mine(base.spec.replace(name='travelling', options={}), base.pattern.data, 0.5)\n"
    )
    run_plugin(plugin)
    entrant = Entrant("m", create_model("travelling"), plugins=(plugin,))
    _, manifest = run(
        tmp_path / "store", [entrant, Entrant("plain", create_model("linear", seed=1))], Elsewhere(plugin),
        only=["clean"], selection=Selection(limit=4),
    )  # fmt: skip
    assert not plugin.exists()
    assert [(c.status, c.error) for c in manifest.cells if c.attack == "clean"] == [("done", None)] * 4
