"""The runner at its limits: order, memory, failures, selections, and death at any moment."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers import tiny
from iqa_harness.cells.plan import Selection, plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import out_of_memory
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.executors import Inline, Outcome
from iqa_harness.running.executors.bench import Bench
from iqa_harness.running.ledger import refreshed
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.wording import in_words
from iqa_models import LinearQuality, create_model
from iqa_results import ROW_SCHEMA, ResultStore
from iqa_suites import parse_suite

TEXT = tiny.SHORT + tiny.TRANSFER


def _entrants(*seeds):
    return [Entrant(f"m{seed}", create_model("linear", seed=seed)) for seed in seeds or (1, 2)]


def _run(store, images, text=TEXT, entrants=None, selection=Selection(), runtime=Runtime(), **options):  # noqa: B008
    entrants = entrants or _entrants()
    work = plan(parse_suite(text, "tiny"), entrants, images, selection)
    told = {name: options.pop(name) for name in ("executor", "on_cell") if name in options}
    return run_suite(work, entrants, RunConfig("r", text, **options), store, runtime, **told)


def _rows(store, manifest):
    return store.read_cells(c.key for c in manifest.cells).drop_columns(["seconds"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """Store and manifest of the run that nothing happens to, to be read only."""
    store = ResultStore(tmp_path_factory.mktemp("whole"))
    return store, _run(store, images)


class Shuffled(Inline):
    """Runs tasks in another order than they were given."""

    def run(self, job, tasks):
        order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(1)).tolist()
        assert order != sorted(order)
        return (job.here(tasks[i]) for i in order)


@pytest.mark.slow
def test_rows_do_not_depend_on_the_order_of_cells(tmp_path, images, whole):
    """Tasks in any order leave the same parts; the manifest keeps the plan's order."""
    store = ResultStore(tmp_path)
    shuffled = _run(store, images, executor=Shuffled())
    assert [c.key for c in shuffled.cells] == [c.key for c in whole[1].cells]
    assert _rows(store, shuffled).equals(_rows(*whole))


@pytest.mark.slow
def test_two_runs_at_once_share_one_store(tmp_path, images, whole):
    """What another run has stored meanwhile is taken, not computed again."""
    store, rival, seen = ResultStore(tmp_path / "a"), [], []

    def meanwhile(cell, status):
        seen.append(status)
        if len(seen) == 3:
            rival.append(_run(ResultStore(tmp_path / "a"), images))

    manifest = _run(store, images, on_cell=meanwhile)
    assert (seen.count("done"), seen.count("cached")) == (3, len(manifest.cells) - 3)
    assert _rows(store, manifest).equals(_rows(*whole))
    assert (manifest.forwards, manifest.backwards) == (rival[0].forwards, rival[0].backwards)


@pytest.mark.slow
def test_a_model_added_by_another_process_stays_in_the_run(tmp_path, images):
    """Each writes the manifest while the other computes: in the end it has the models and cells of both."""
    store, seen = ResultStore(tmp_path / "a"), []
    suite = tiny.SHORT  # no transfers, so that one model alone is a plan

    def meanwhile(cell, status):
        seen.append(status)
        if len(seen) == 3:
            both = _run(store, images, suite, _entrants(1, 2), only=["clean"])
            assert [m.name for m in both.models] == ["m1", "m2"]

    _run(store, images, suite, _entrants(1), on_cell=meanwhile)
    now = store.read_manifest("r")
    assert ([m.name for m in now.models], now.status) == (["m1", "m2"], "partial")
    expected = _run(ResultStore(tmp_path / "b"), images, suite, _entrants(1, 2))
    assert {c.key for c in now.cells} == {c.key for c in expected.cells}
    assert {c.key for c in now.cells if c.status == "done"} == {
        c.key for c in expected.cells if c.model == "m1" or c.attack == "clean"
    }
    whole = _run(store, images, suite, _entrants(1, 2))
    assert (whole.status, whole.forwards, len(whole.cells)) == ("complete", expected.forwards, 24)
    assert whole.device_seconds > now.device_seconds > 0


def test_a_manifest_is_written_when_no_other_process_is_at_it(tmp_path, images):
    """A start waits while another one holds the run, and then keeps what that has written."""
    store, begun = ResultStore(tmp_path / "a"), threading.Event()
    other = ResultStore(tmp_path / "b")
    theirs = _run(other, images, tiny.SHORT, _entrants(2), only=["clean"])
    _run(other, images, tiny.SHORT, _entrants(1, 2), only=["clean"])
    shutil.copytree(tmp_path / "b/cells", tmp_path / "a/cells")
    with ThreadPoolExecutor(1) as pool:
        with store.locked_run("r"):
            mine = pool.submit(_run, store, images, tiny.SHORT, _entrants(1), on_cell=lambda *_: begun.set())
            assert begun.wait(60)  # it has found a cell, and no run of this name
            time.sleep(0.2)
            assert store.list_runs() == []
            store.write_manifest(theirs)
        assert [m.name for m in mine.result(60).models] == ["m1", "m2"]
    now = store.read_manifest("r")
    assert {(c.model, c.attack) for c in now.cells if c.status == "done"} > {("m1", "fgsm"), ("m2", "clean")}


def test_a_run_that_grew_meanwhile_does_not_shrink(tmp_path, images):
    """A start with fewer images ends after one with all: the manifest keeps all."""
    store, seen = ResultStore(tmp_path), []

    def meanwhile(cell, status):
        seen.append(status)
        if len(seen) == 3:
            _run(store, images)

    _run(store, images, selection=Selection(limit=8), on_cell=meanwhile)
    now = store.read_manifest("r")
    assert (now.data.images, now.data.selection, now.status) == (12, None, "complete")


class OwnDisk(Inline):
    """Workers that write to a disk the driver does not see."""

    def __init__(self, disk, entrants, work):
        self.disk, self.work = disk, work
        self.models = {entrant.label: entrant.model for entrant in entrants}

    def run(self, job, tasks):
        cells = {cell.key: cell for cell in self.work.cells}
        images = {"test": self.work.images, "val": self.work.validation}
        bench = Bench(
            self.models.__getitem__, images.__getitem__, lambda ref: cells[ref.key], self.disk, Runtime()
        )
        return (bench.run(task) for task in tasks)


def test_cells_on_another_machines_disk_are_not_done(tmp_path, images):
    """A worker's word is not enough: what the driver cannot find in its store has failed, with the reason."""
    entrants = _entrants(1)
    work = plan(parse_suite(tiny.SHORT, "tiny"), entrants, images)
    store, far = ResultStore(tmp_path / "near"), ResultStore(tmp_path / "far")
    for _ in range(2):  # computed there the first time, found there the second
        manifest = _run(store, images, tiny.SHORT, entrants, executor=OwnDisk(far, entrants, work))
        assert manifest.status == "partial"
        assert {cell.status for cell in manifest.cells} == {"failed"}
        assert all("near shared by all workers?" in cell.error for cell in manifest.cells)
    assert len(far.cell_sizes()) == len(manifest.cells)
    assert _run(store, images, tiny.SHORT, entrants).status == "complete"


class DiesAfterStoring(Inline):
    """A worker whose process ends between its last cell and its report."""

    def run(self, job, tasks):
        for task in tasks:
            job.here(task)
            yield Outcome(task.number, (), None, lost="3 worker(s) died on it")


def test_what_a_lost_worker_stored_counts(tmp_path, images):
    """Its cells are read from the store, with their cost, though nobody reported them."""
    few = (images, tiny.SHORT, _entrants(1), Selection(limit=4))
    expected = _run(ResultStore(tmp_path / "b"), *few)
    manifest = _run(ResultStore(tmp_path / "a"), *few, executor=DiesAfterStoring())
    assert (manifest.status, manifest.forwards) == ("complete", expected.forwards)
    assert {cell.error for cell in manifest.cells} == {None}


class Cramped(LinearQuality):
    """Memory for two images at once, as a device that raises above a batch size."""

    def predict(self, images: Tensor) -> Tensor:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError(f"tried to allocate {len(images)} images")
        return super().predict(images)


def _cramped(fits):
    model = create_model("linear", seed=1)
    model.__class__, model.fits = Cramped, fits
    return Entrant("m1", model)


class Shrinking(Inline):
    """Takes memory away once the checks, which need two images at once, are over."""

    def __init__(self, model, fits):
        self.model, self.fits = model, fits

    def run(self, job, tasks):
        self.model.fits = self.fits
        return super().run(job, tasks)


@pytest.mark.parametrize("fits", [1, 3])
def test_out_of_memory_halves_the_chunk_and_changes_no_row(tmp_path, images, fits):
    """Rows are those of a model with room; the manifest says which chunk was used."""
    roomy, cramped = ResultStore(tmp_path / "a"), ResultStore(tmp_path / "b")
    # Of equal room at first: it is an attribute of the model, and so in its keys.
    entrant = _cramped(3)
    expected = _run(roomy, images, tiny.SHORT, [entrant], executor=Shrinking(entrant.model, 10**6))
    entrant = _cramped(3)
    manifest = _run(cramped, images, tiny.SHORT, [entrant], executor=Shrinking(entrant.model, fits))
    assert manifest.status == "complete"
    assert _rows(cramped, manifest).equals(_rows(roomy, expected))
    assert manifest.tuning["reduced_chunks"] == {"m1": {1: 1, 3: 2}[fits]}
    assert "reduced_chunks" not in expected.tuning


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
    ],
)  # fmt: skip
def test_every_library_has_its_words_for_no_memory(error, meant):
    """Torch, the driver, cuBLAS, cuDNN and the CPU say it differently; other errors are not halved away."""
    assert out_of_memory(error) is meant


def test_no_room_for_one_image_is_a_failure(tmp_path, images):
    """Below one image there is nothing to halve: the cells fail with the reason."""
    entrant, store = _cramped(4), ResultStore(tmp_path)
    manifest = _run(store, images, tiny.SHORT, [entrant], executor=Shrinking(entrant.model, 0))
    assert {c.status for c in manifest.cells} == {"failed"}
    assert all("tried to allocate 1 images" in c.error for c in manifest.cells)


def test_a_device_without_room_for_the_checks_is_refused(tmp_path, images):
    """Batch independence needs two images at once; without them nothing is run."""
    with pytest.raises(RunError, match="no room for two images at once"):
        _run(ResultStore(tmp_path), images, tiny.SHORT, [_cramped(1)])


class Moody(LinearQuality):
    """Fails as often as it is told to, then works."""

    def predict(self, images: Tensor) -> Tensor:
        if self.failures > 0:
            self.failures -= 1
            raise RuntimeError("not today")
        return super().predict(images)


class Later(Inline):
    """Lets the model fail from the first cell on, not in the checks."""

    def __init__(self, model, failures):
        self.model, self.failures = model, failures

    def run(self, job, tasks):
        self.model.failures = self.failures
        return super().run(job, tasks)


def _moody(seed=1):
    model = create_model("linear", seed=seed)
    model.__class__, model.failures = Moody, 0
    return Entrant(f"m{seed}", model)


@pytest.mark.parametrize(("failures", "failed"), [(1, 0), (2, 1)])
def test_a_cell_is_tried_twice_and_again_at_the_next_start(tmp_path, images, failures, failed):
    """One failure is forgiven, two mark the cell with the traceback; the next start computes it."""
    entrant, store = _moody(), ResultStore(tmp_path)
    manifest = _run(store, images, tiny.SHORT, [entrant], executor=Later(entrant.model, failures))
    bad = [c for c in manifest.cells if c.status == "failed"]
    assert len(bad) == failed
    for cell in bad:
        assert cell.error.startswith("RuntimeError: not today\nTraceback")
        assert "in predict" in cell.error
        assert not store.has_cell(cell.key)
    assert manifest.status == ("partial" if failed else "complete")
    seen = []
    again = _run(store, images, tiny.SHORT, [entrant], on_cell=lambda cell, status: seen.append(status))
    assert seen.count("done") == failed
    assert again.status == "complete"
    assert all(c.error is None for c in again.cells)


def test_a_failed_surrogate_fails_its_transfers_without_another_try(tmp_path, images):
    """Who needs the examples of an attack that failed says so; its attack is not run a third time."""
    entrants, calls = [_moody(1), *_entrants(2)], []

    class Doomed(Inline):
        def run(self, job, tasks):
            for task in tasks:
                first = task.cells[0]
                if (first.label, first.attack_name) == ("m1", "pgd"):
                    entrants[0].model.failures = 10**6
                    yield job.here(task)
                    calls.append(10**6 - entrants[0].model.failures)
                    entrants[0].model.failures = 0
                else:
                    yield job.here(task)

    manifest = _run(ResultStore(tmp_path), images, entrants=entrants, executor=Doomed())
    lost = [c for c in manifest.cells if c.attack == "transfer:m1"]
    assert {c.status for c in lost} == {"failed"}
    assert all("the attack on m1 that finds the examples failed: RuntimeError" in c.error for c in lost)
    assert set(calls) == {2}
    assert {c.status for c in manifest.cells if c.attack == "transfer:m2"} == {"done"}


# Parts of a suite ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_limited_run_says_so_and_grows_into_the_whole(tmp_path, images):
    """The first images are a run of their own, marked as such; the whole run computes only the others."""
    store, seen = ResultStore(tmp_path), []
    few = _run(store, images, selection=Selection(limit=8))
    assert (few.data.images, few.status) == (8, "complete")
    assert few.data.selection == "the first 8 images of the 12 that the suite names"
    assert few.notes[0] == f"computed from {few.data.selection}: not the suite's numbers"
    table = robustness_table(store, few).table.to_pylist()
    assert {row["images"] for row in table if row["value"] is not None} == {8}
    whole = _run(store, images, on_cell=lambda cell, status: seen.append(status))
    assert seen.count("cached") == len(few.cells)
    assert (whole.data.images, whole.data.selection) == (12, None)
    with pytest.raises(RunError, match="holds 12 images, more than the 8"):
        _run(store, images, selection=Selection(limit=8))


def test_images_can_be_chosen_by_id(tmp_path, images):
    """They are attacked in the set's order, whatever the order of the request."""
    manifest = _run(
        ResultStore(tmp_path), images, selection=Selection(images=("test-7", "test-2", "test-5", "test-3"))
    )
    rows = _rows(ResultStore(tmp_path), manifest).to_pandas()
    tested = rows[(rows["attack"] == "clean") & (rows["split"] == "test") & (rows["model"] == "m1")]
    assert tested["image_id"].tolist() == ["test-2", "test-3", "test-5", "test-7"]
    assert "4 chosen images" in manifest.data.selection
    with pytest.raises(RunError, match=r"no image 'test-77' .* did you mean 'test-7'"):
        plan(parse_suite(TEXT, "t"), _entrants(), images, Selection(images=("test-77",)))


def test_other_images_do_not_take_over_a_run(tmp_path, images):
    """As many images, but others: the former ones would vanish from the run's tables."""
    store = ResultStore(tmp_path)
    _run(store, images, selection=Selection(images=("test-1", "test-2", "test-3")))
    with pytest.raises(RunError, match="choose another --run name"):
        _run(store, images, selection=Selection(images=("test-4", "test-5", "test-6")))


@pytest.mark.parametrize("count", [4, 6])
def test_chosen_images_do_not_take_over_the_first(tmp_path, images, count):
    """The first n of a run are not replaced by n others, nor by more."""
    store = ResultStore(tmp_path)
    first = _run(store, images, selection=Selection(limit=4))
    with pytest.raises(RunError, match=r"holds the first 4 images .*; choose another --run name"):
        _run(store, images, selection=Selection(images=tuple(f"test-{5 + i}" for i in range(count))))
    assert store.read_manifest("r") == first
    assert _run(store, images, selection=Selection(limit=6)).data.images == 6


@pytest.mark.slow
def test_one_attack_can_be_computed_alone(tmp_path, images, whole):
    """The others stay missing, and the table shows holes, not numbers."""
    store = ResultStore(tmp_path)
    part = _run(store, images, only=["fgsm"])
    assert {c.attack for c in part.cells if c.status == "done"} == {"fgsm"}
    assert part.status == "partial"
    rest = _run(store, images, only=["clean", "pgd", "transfer"])
    assert rest.status == "complete"
    assert _rows(store, rest).equals(_rows(*whole))


# Death --------------------------------------------------------------------------------------------------

CHILD = """
import importlib.util, sys
from pathlib import Path
import torch
spec = importlib.util.spec_from_file_location("test_runner", sys.argv[1])
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)
torch.set_num_threads(1)
test._run(test.ResultStore(Path(sys.argv[2])), test.tiny.make_images(), keep_images=True)
"""


def _start(folder):
    root = Path(__file__).resolve().parents[2]
    packages = ("harness", "models", "attacks", "suites", "results", "reports", "tests")
    path = os.pathsep.join(str(root / name) for name in packages)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, __file__, str(folder)], env={**os.environ, "PYTHONPATH": path}
    )


@pytest.mark.slow
def test_a_run_killed_at_several_moments_ends_with_the_same_rows(tmp_path, images, whole):
    """SIGKILL after some cells, twice, then a start that ends: rows as if nothing had been, none twice."""
    store = ResultStore(tmp_path / "cut")
    for enough in (2, 9):
        child = _start(store.root)
        while len(store.cell_sizes()) < enough and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        now = refreshed(store, store.read_manifest("r"))
        assert now.status == "running"
        assert enough <= sum(c.status == "done" for c in now.cells) < len(now.cells)
    seen = []
    manifest = _run(store, images, on_cell=lambda cell, status: seen.append(status))
    assert seen.count("cached") >= 9
    rows = _rows(store, manifest)
    assert rows.equals(_rows(*whole))
    names = ["model", "attack", "epsilon", "objective", "steps", "split", "image_id"]
    assert not rows.to_pandas().duplicated(names).any()
    assert set(rows.schema.names) | {"seconds"} == set(ROW_SCHEMA.names)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.05, "0.05 s"), (119.4, "119 s"), (120, "2 min"), (9000, "2.5 h"), (200_000, "2.31 days")],
)  # fmt: skip
def test_a_time_is_written_without_powers_of_ten(seconds, words):
    """Three digits and the unit a person would use."""
    assert in_words(seconds) == words
