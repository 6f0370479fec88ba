"""What a worker does with a task: cell after cell, each stored once done, none lost to another's error."""

from __future__ import annotations

import functools
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from iqa_attacks import AttackResult
from iqa_harness.cells.compute import attacked_model, craft, run_cell, to_tensor
from iqa_harness.cells.examples import Examples, encode, stored, used_elsewhere
from iqa_harness.cells.plan import Cell, CellRef
from iqa_harness.data.ahead import ReadAhead
from iqa_harness.data.image_set import ImageSet
from iqa_harness.evidence.check import Check
from iqa_harness.machine.devices import device_name, out_of_memory, peak_memory
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import Copies
from iqa_harness.running.choices import chunk_of
from iqa_harness.running.ledger import read_report, report_of
from iqa_harness.running.model_records import Before
from iqa_harness.running.task import CellReport, Outcome, Task, WorkerReport
from iqa_models import QualityModel
from iqa_results import ResultStore
from iqa_results.storage import no_room

ATTEMPTS = 2
"""Times a cell is computed before its error is believed."""

T = TypeVar("T")


class Bench:
    """A worker's models, images and store, and the chunks that fit its memory."""

    def __init__(
        self,
        model: Callable[[str], QualityModel],
        images: Callable[[str], ImageSet],
        cell: Callable[[CellRef], Cell],
        store: ResultStore,
        runtime: Runtime,
        before: Before | None = None,
    ) -> None:
        """Take what a worker has.

        Args:
            model: returns a model by its name in the run, on the runtime's device.
            images: returns the evaluated images of a split.
            cell: makes a cell of its parts.
            store: where parts go.
            runtime: device and chunk sizes.
            before: what models are measured against after their last task.
        """
        self._model, self._images, self._cell = model, images, cell
        if runtime.devices[0].startswith("cuda"):
            self._images = functools.cache(lambda split: ReadAhead(images(split)))
        self._store, self._runtime = store, runtime
        self._before = before
        self._attacked: dict[str, str] = {}
        self._fitting: dict[str, Runtime] = {}
        self._device = runtime.devices[0]
        self._copies = Copies(runtime.choices, self._device)
        self._peak: int | None = None
        if self._device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self._device)

    def run(self, task: Task) -> Outcome:
        """Compute a task's cells and store each as it is done."""
        started = time.perf_counter()
        cells = {ref.key: self._cell(ref) for ref in (*task.sources, *task.cells)}
        self._attacked |= {c.label: c.model_sha256 for c in cells.values() if c.attack and not c.surrogate}
        shared = used_elsewhere(cells.values()) | set(task.keep)

        def source_of(cell: Cell) -> Cell:
            return cells[cell.surrogate.cell] if cell.surrogate else cell

        def find(source: Cell) -> AttackResult:
            images, runtime = self._images(source.split), self._runtime_of(source.label)
            result = stored(source, images, runtime.device, self._store)
            if result is None:
                model = attacked_model(source, self._model)
                result = craft(source, model, images, runtime, self._copies)
                if source.key in task.keep:
                    self._store.write_examples(source.key, encode(result, source, images))
            return result

        examples = Examples(find, source_of, shared)
        reports = {}
        for ref in task.cells:
            cell = cells[ref.key]
            report = self._compute(cell, source_of(cell), examples)
            if report.status == "failed":
                examples.give_up(cell, (report.error or "").partition("\n")[0])
            reports[ref.key] = report
        for key in task.keep:
            before = reports.get(key)
            if (before is None or before.status != "failed") and not self._store.has_examples(key):
                reports[key] = self._keep(cells[key], examples)
        return Outcome(task.number, tuple(reports.values()), self._describe(), time.perf_counter() - started)

    def measured_again(
        self, label: str, sha256: str, stored: Callable[[], str | None], elsewhere: Check | None = None
    ) -> Check:
        """Measure a model again after its attacks; see `Before.compare`."""
        assert self._before is not None  # noqa: S101 - of a bench that is asked for it
        model = self._model(label)
        copy = self._copies.of(model, sha256)
        return self._before.compare(label, model, self._device, copy, stored, elsewhere)

    def last(self) -> Outcome:
        """Measure again every model that was asked for gradients here: this object, after all its calls."""
        started = time.perf_counter()
        found = {}
        for label, sha256 in self._attacked.items():
            check = self.measured_again(label, sha256, lambda: None)
            found[label] = check._replace(detail=f"{check.detail} (in a worker process)")
        return Outcome(None, (), self._describe()._replace(unchanged=found), time.perf_counter() - started)

    def _compute(self, cell: Cell, source: Cell, examples: Examples) -> CellReport:
        there = read_report(self._store, cell.key)
        if there is not None:  # an earlier attempt at this task, or another run on the same store
            return there
        started = time.perf_counter()
        error = ""
        for _ in range(ATTEMPTS):
            try:
                self._predict(source)
                rows = self._fitted(
                    source.label,
                    lambda runtime: run_cell(
                        cell,
                        self._model(cell.label),
                        self._images(cell.split),
                        runtime,
                        examples.of,
                        self._copies,
                    ),
                )
                self._store.write_cell(cell.key, rows)
            except Exception as raised:  # reported whole; the other cells go on
                if no_room(raised):  # nor will there be any for them
                    raise
                error = _told(raised)
            else:
                return report_of(cell.key, rows, "done")
        return CellReport(cell.key, "failed", error, seconds=time.perf_counter() - started)

    def _keep(self, cell: Cell, examples: Examples) -> CellReport:
        """Store the examples of a cell whose rows are stored already."""
        error = None
        try:
            self._fitted(cell.label, lambda runtime: examples.of(cell))
        except Exception as raised:  # the cell's rows are whole; only its images are not kept
            if no_room(raised):
                raise
            error = f"its examples are not kept: {_told(raised)}"
        report = read_report(self._store, cell.key)
        assert report is not None  # noqa: S101 - a kept cell without rows is computed above
        return report._replace(error=error)

    def _runtime_of(self, label: str) -> Runtime:
        return self._fitting.get(label, self._runtime)

    def _predict(self, cell: Cell) -> None:
        """Ask the GPU's memory for the chunk of a cell's model, if nobody has said one; once a model."""
        if not self._runtime.chunk_by_memory or cell.label in self._fitting or cell.attack is None:
            return
        self._peak = self._peak_now()  # measuring begins anew
        images = self._images(cell.split)
        pixels = [to_tensor(images.read(cell.first + i), self._device) for i in range(cell.count)]
        chunk = chunk_of(self._model(cell.label), pixels, self._runtime)
        self._fitting[cell.label] = replace(self._runtime, chunk=chunk)

    def _peak_now(self) -> int | None:
        now = peak_memory(self._device)
        return now if now is None or self._peak is None else max(now, self._peak)

    def _fitted(self, label: str, compute: Callable[[Runtime], T]) -> T:
        """Call with the chunk sizes that fit the memory, halved for as long as it runs out.

        A smaller chunk changes no result (see `Runtime`), so the cells before and after need no mark.
        """
        while True:
            runtime = self._runtime_of(label)
            try:
                return compute(runtime)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                smaller = replace(runtime, chunk=max(1, runtime.at_most // 2))
                if not out_of_memory(error) or smaller.chunk == runtime.at_most:
                    raise
                self._fitting[label] = smaller
            if self._device.startswith("cuda"):
                torch.cuda.empty_cache()

    def _describe(self) -> WorkerReport:
        device = self._device
        return WorkerReport(
            token=_token(),
            device=device,
            device_name=device_name(device),
            threads=torch.get_num_threads(),
            peak_memory=self._peak_now(),
            chunks={label: runtime.at_most for label, runtime in self._fitting.items()},
        )


@functools.cache
def _token() -> str:
    return uuid.uuid4().hex


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"
