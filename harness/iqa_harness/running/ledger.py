"""The state of a plan's cells: which are stored, what they cost, which failed, who computed them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from iqa_harness.errors import RunError
from iqa_harness.evidence.check import Check, worse
from iqa_harness.running.task import CellReport, Outcome, Status
from iqa_results import BadPart, CellRecord, ResultStore, RunManifest, WorkerRecord

if TYPE_CHECKING:
    from iqa_harness.cells.plan import Cell

COST_COLUMNS = ("image_id", "final", "forwards", "backwards", "seconds", "device", "harness")
"""Columns that `report_of` reads."""
_READERS = 8


class Ledger:
    """What is known of the cells of one run.

    A part is read once, in full and against its checksums, before it counts as stored. Its size and
    cost are then in the run's manifest, and a later start reads it again only if its size differs. No
    number is made from that: whoever reads rows has every page verified.
    """

    def __init__(self, store: ResultStore, records: Iterable[CellRecord]) -> None:
        """Look up the cells of a plan in a store.

        Args:
            store: where parts are.
            records: the plan, each cell with what an earlier start knew of it.
        """
        self._store = store
        self._records = {record.key: record for record in records}
        self.workers: dict[str, WorkerRecord] = {}
        self.device_seconds = 0.0
        self.chunks: dict[str, int] = {}
        self.unchanged: dict[str, Check] = {}
        sizes = store.cell_sizes()
        unread = []
        for key, record in self._records.items():
            if key not in sizes:
                self._records[key] = _missing(record)
            elif record.bytes == sizes[key]:
                if record.status != "done" or record.error:
                    self._records[key] = record.model_copy(update={"status": "done", "error": None})
            else:
                unread.append(key)
        with ThreadPoolExecutor(_READERS) as pool:
            for key, report in zip(
                unread, pool.map(lambda key: read_report(store, key), unread), strict=True
            ):
                if report is None:
                    self._records[key] = _missing(self._records[key])
                else:
                    self._enter(report._replace(bytes=sizes[key]))

    @property
    def records(self) -> tuple[CellRecord, ...]:
        """The cells in the order of the plan."""
        return tuple(self._records.values())

    def missing(self) -> list[str]:
        """Return the keys of the cells that are not stored, failed ones too."""
        return [key for key, record in self._records.items() if record.status != "done"]

    def take(self, outcome: Outcome, keys: Sequence[str], executor: str) -> dict[str, Status]:
        """Enter what became of a task; return the state of each of its cells.

        Args:
            outcome: the worker's report.
            keys: the cells of the task, which a worker that died says nothing about.
            executor: who ran it.
        """
        reports = {report.key: report for report in outcome.cells}
        for key in keys:
            if key not in reports:
                there = read_report(self._store, key)  # it may have died after storing it
                reports[key] = there or CellReport(key, "failed", outcome.lost or "no report came back")
        for key, report in reports.items():
            size = self._store.cell_size(key)
            if report.status != "failed" and size is None:
                # A worker on another machine that writes to a disk of its own under the same path.
                lost = f"stored where the driver cannot see it: is {self._store.root} shared by all workers?"
                reports[key] = CellReport(key, "failed", lost)
            self._enter(reports[key]._replace(bytes=size))
        self.device_seconds += outcome.seconds
        if outcome.worker is not None:
            self._meet(outcome, sum(report.status == "done" for report in reports.values()), executor)
        return {key: report.status for key, report in reports.items()}

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Enter cells that are not computed, each with the reason."""
        for key, reason in reasons.items():
            self._enter(CellReport(key, "failed", reason))

    def look_again(self) -> None:
        """Compare with the store once more: a cell that somebody deleted or damaged meanwhile is not done."""
        sizes = self._store.cell_sizes()
        for key, record in self._records.items():
            if record.status != "done" or record.bytes == sizes.get(key):
                continue
            report = read_report(self._store, key)  # None: gone, or damaged
            why = f"{self._store.cell_path(key)} was deleted or damaged while the run went on"
            gone = CellReport(key, "failed", why)
            self._enter(gone if report is None else report._replace(bytes=sizes.get(key)))

    def cost(self, label: str | None = None) -> dict[str, Any]:
        """Add up the work of the stored cells, of one model or all: every image once, at full strength."""
        mine = [r for r in self._records.values() if r.status == "done" and label in (None, r.model)]
        seconds = math.fsum(record.seconds for record in mine)
        if not math.isfinite(seconds):
            raise RunError("the stored seconds of a cell are not finite")
        return {
            "forwards": sum(record.forwards for record in mine),
            "backwards": sum(record.backwards for record in mine),
            "seconds": seconds,
        }

    def versions(self) -> list[str]:
        """Return the versions of the code that computed the stored cells, sorted."""
        return sorted({r.harness for r in self._records.values() if r.status == "done" and r.harness})

    def devices(self) -> list[str]:
        """Return the kinds of device the stored cells were computed on, sorted."""
        return sorted({r.device.partition(":")[0] for r in self._records.values() if r.device})

    def _enter(self, report: CellReport) -> None:
        record = self._records[report.key]
        if report.status == "failed":
            self._records[report.key] = _missing(record).model_copy(
                update={"status": "failed", "error": report.error}
            )
            return
        self._records[report.key] = record.model_copy(update={**report._asdict(), "status": "done"})

    def _meet(self, outcome: Outcome, cells: int, executor: str) -> None:
        seen = outcome.worker
        assert seen is not None  # noqa: S101 - the caller's branch
        self.chunks |= {label: min(size, self.chunks.get(label, size)) for label, size in seen.chunks.items()}
        for label, check in seen.unchanged.items():
            self.unchanged[label] = worse(check, self.unchanged.get(label))
        former = self.workers.get(seen.token)
        self.workers[seen.token] = WorkerRecord(
            id=seen.token[:8],
            executor=executor,
            device=seen.device,
            device_name=seen.device_name,
            threads=seen.threads,
            peak_memory=seen.peak_memory,
            cells=cells + (former.cells if former else 0),
            seconds=outcome.seconds + (former.seconds if former else 0.0),
        )


def refreshed(store: ResultStore, manifest: RunManifest) -> RunManifest:
    """Return a manifest with the state of its cells as the store has them now.

    A killed run leaves a manifest from before its end; its parts are there all the same.
    """
    ledger = Ledger(store, manifest.cells)
    cells = ledger.records
    complete = all(cell.status == "done" for cell in cells)
    status = "complete" if complete else "partial" if manifest.status == "complete" else manifest.status
    models = tuple(model.model_copy(update=ledger.cost(model.name)) for model in manifest.models)
    return manifest.model_copy(update={"cells": cells, "status": status, "models": models, **ledger.cost()})


def planned(cells: Iterable[Cell], former: RunManifest | None) -> list[CellRecord]:
    """Return a plan's cells as records, with what the manifest of an earlier start says of them."""
    known: Mapping[str, CellRecord] = {c.key: c for c in former.cells} if former else {}
    return [
        known.get(cell.key)
        or CellRecord(
            key=cell.key,
            model=cell.label,
            attack=cell.attack_name,
            epsilon=cell.epsilon,
            split=cell.split,
            first=cell.first,
            count=cell.count,
            status="missing",
        )
        for cell in cells
    ]


def read_report(store: ResultStore, key: str) -> CellReport | None:
    """Return the state of a cell from its part, read whole; None if there is none or it is damaged."""
    if not store.has_cell(key):
        return None
    try:
        part = store.read_cell(key)
    except BadPart:
        return None
    return report_of(key, part.filter(pc.field("final")).select(COST_COLUMNS).to_pylist(), "found")


def report_of(key: str, rows: Sequence[Mapping[str, Any]], status: Status) -> CellReport:
    """Add up a cell's cost: every image once, at the full number of steps."""
    each = {row["image_id"]: row for row in reversed(rows) if row["final"]}
    return CellReport(
        key,
        status,
        forwards=sum(row["forwards"] for row in each.values()),
        backwards=sum(row["backwards"] for row in each.values()),
        seconds=math.fsum(row["seconds"] for row in each.values()),
        device=rows[0]["device"] if rows else None,
        harness=rows[0]["harness"] if rows else None,
    )


def _missing(record: CellRecord) -> CellRecord:
    """Return a record of a cell without a part; why it failed the last time stays."""
    place = record.model_dump(include={"key", "model", "attack", "epsilon", "split", "first", "count"})
    return CellRecord(**place, status="failed" if record.error else "missing", error=record.error)
