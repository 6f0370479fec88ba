"""Compute the cells that are missing, and record the run."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from iqa_harness.cells.compute import Runtime, to_tensor
from iqa_harness.cells.plan import UNTRAINED, Cell, Entrant, Work, chosen_by_id
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.sources import sources_of
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import BLOCKING, Check, check_model
from iqa_harness.evidence.probes import probe_model
from iqa_harness.machine.devices import out_of_memory
from iqa_harness.machine.provenance import collect_provenance
from iqa_harness.running.executors import Executor, Inline, Job, tasks_of
from iqa_harness.running.executors.bench import Bench
from iqa_harness.running.executors.snapshot import write_snapshot
from iqa_harness.running.ledger import Ledger, planned
from iqa_harness.running.merge import beside, without
from iqa_results import DataRecord, ModelRecord, PluginRecord, ResultStore, RunManifest
from iqa_suites import Suite

OnCell = Callable[[Cell, str], None]
"""Told after every cell: the cell and `cached`, `done` or `failed`."""

WRITE_EVERY = 60.0
"""Seconds between two writes of the manifest while a run goes on."""


def run_suite(
    work: Work,
    entrants: Sequence[Entrant],
    suite_text: str,
    store: ResultStore,
    run: str,
    runtime: Runtime,
    on_cell: OnCell = lambda cell, status: None,
    *,
    executor: Executor | None = None,
    only: Collection[str] | None = None,
    keep_images: bool = False,
    replace: bool = False,
) -> RunManifest:
    """Compute the missing cells of a plan and write the run's manifest.

    A cell that fails twice is recorded with its error and the others go on; the next call tries it
    again. An interrupt (Ctrl-C) leaves the finished parts and a manifest that says `interrupted`; a
    killed run leaves the parts and a manifest that says `running`. The same call computes the rest.

    Args:
        work: what `plan` returned.
        entrants: the models of the plan.
        suite_text: the suite as TOML, kept in the manifest.
        store: where parts and manifest go.
        run: name of the run.
        runtime: device and chunk sizes.
        on_cell: told after every cell.
        executor: where cells are computed, this process by default. Rows do not depend on it.
        only: compute cells of these attacks only ('clean' is one); the others stay missing.
        keep_images: store the attacked images of every attack too, of cells that are done as well.
        replace: a model may take the name of one with other weights; the cells of that are no run's then.

    Returns:
        The manifest as written.

    Raises:
        RunError: a model fails a check without which no number can be made, a run of that name is of
            another suite, data set or model, or the executor cannot start.
        KeyboardInterrupt: after the manifest is written.
    """
    executor = executor or Inline()
    former = _former(store, run, work, replace)
    models = {entrant.label: entrant.model.to(runtime.device) for entrant in entrants}
    ledger = Ledger(store, planned(work.cells, former))
    cells = {cell.key: cell for cell in work.cells}
    missing = set(ledger.missing())
    busy = {cells[key].label for key in missing}
    records = [
        _model_record(entrant, work, runtime, None if entrant.label in busy else former)
        for entrant in entrants
    ]
    log = _Log(work, records, suite_text, store, run, runtime, ledger, replace, executor.name)
    chosen = {key for key in missing if only is None or cells[key].family in only}
    for cell in work.cells:
        if cell.key not in missing:
            on_cell(cell, "cached")
    tasks = tasks_of(cells, chosen, _to_keep(work, store, missing - chosen, only) if keep_images else ())
    if tasks:
        log.write("running")

    def images_of(split: str) -> ImageSet:
        return work.images if split == work.suite.data.split else work.validation

    bench = Bench(models.__getitem__, images_of, lambda ref: cells[ref.key], store, runtime)
    job = Job(bench.run, lambda folder: write_snapshot(folder, work, entrants, store, runtime))
    outcomes = executor.run(job, tasks)
    try:
        for outcome in outcomes:
            task = tasks[outcome.number]
            states = ledger.take(outcome, [ref.key for ref in task.cells], executor.name)
            for ref in task.cells:
                on_cell(cells[ref.key], {"found": "cached"}.get(states[ref.key], states[ref.key]))
            log.write_now_and_then()
    except BaseException:  # an interrupt, or an executor that cannot go on
        log.write("interrupted")
        raise
    finally:
        outcomes.close()
    return log.write(None)


def missing_cells(work: Work, store: ResultStore) -> list[Cell]:
    """Return the cells of a plan whose part is not in the store."""
    there = store.cell_sizes()
    return [cell for cell in work.cells if cell.key not in there]


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


def _to_keep(
    work: Work, store: ResultStore, left_out: Collection[str], only: Collection[str] | None
) -> list[str]:
    """Return the attacks' own cells whose examples are not in the store; those left out stay out."""
    there = store.example_sizes()
    return [
        cell.key
        for cell in work.cells
        if cell.attack is not None
        and cell.surrogate is None
        and cell.key not in there
        and cell.key not in left_out
        and (only is None or cell.family in only)
    ]


def replaced_models(store: ResultStore, run: str, work: Work) -> dict[str, str]:
    """Return name and hash of the models with stored cells in a run that are others in a plan."""
    return _others(store, store.read_manifest(run), work) if run in store.list_runs() else {}


def _others(store: ResultStore, manifest: RunManifest, work: Work) -> dict[str, str]:
    now = {cell.label: cell.model_sha256 for cell in work.cells}
    other = {m.name: m.sha256 for m in manifest.models if now.get(m.name, m.sha256) != m.sha256}
    if not other:
        return {}
    there = store.cell_sizes()
    stored = {cell.model for cell in manifest.cells if cell.key in there}
    return {name: sha256 for name, sha256 in other.items() if name in stored}


def _former(store: ResultStore, run: str, work: Work, replace: bool) -> RunManifest | None:
    """Return the manifest of an earlier start of this run, refusing to take its name from it."""
    former = _there(store, run, work, replace)
    if former is None:
        return None
    if len(work.images) < former.data.images:
        raise RunError(
            f"run {run!r} in {store.root} holds {former.data.images} images, more than the "
            f"{len(work.images)} of this call; choose another --run name"
        )
    words = (work.selection, former.data.selection)
    if words[0] != words[1] and any(map(chosen_by_id, words)):
        raise RunError(
            f"run {run!r} in {store.root} holds {former.data.selection or 'all images'}; choose another "
            "--run name for others"
        )
    labels = {cell.label for cell in work.cells}
    dropped = [model.name for model in former.models if model.name not in labels]
    if dropped:
        raise RunError(
            f"run {run!r} in {store.root} holds {', '.join(dropped)} too; name all its models again to add "
            "one, or choose another --run name"
        )
    return former


def _there(store: ResultStore, run: str, work: Work, replace: bool) -> RunManifest | None:
    """Return the manifest of a run as it lies in the store, if a plan can be the same run.

    Models that are others now are not in it: with `replace`, or where nothing of them is stored.
    """
    if run not in store.list_runs():
        return None
    former = store.read_manifest(run)
    same = (work.suite.sha256, work.images.fingerprint)
    if (former.suite_sha256, former.data.sha256) != same:
        raise RunError(
            f"run {run!r} in {store.root} is of suite {former.suite!r} ({former.suite_sha256[:12]}) on data "
            f"{former.data.name!r} ({former.data.sha256[:12]}), not of suite {work.suite.name!r} "
            f"({same[0][:12]}) on {work.images.card.name!r} ({same[1][:12]}); choose another --run name"
        )
    others = {} if replace else _others(store, former, work)
    now = {cell.label: cell.model_sha256 for cell in work.cells}
    for name, sha256 in others.items():
        raise RunError(
            f"run {run!r} in {store.root} holds cells of another model {name!r} (sha256 {sha256[:12]}, now "
            f"{now[name][:12]}): its weights, options or source were changed; choose another --run name, or "
            "give this model a name of its own (LABEL=...) beside the former"
        )
    return without(former, {m.name for m in former.models if now.get(m.name, m.sha256) != m.sha256})


def _checks(entrant: Entrant, batch: Sequence[Tensor], suite: Suite, runtime: Runtime) -> dict[str, Check]:
    """Check and probe a model on some images, on two of them if memory does not hold more."""
    draws = suite.eot_samples
    try:
        checks = check_model(entrant.model, batch, draws=draws)
        for name in BLOCKING:
            check = checks.get(name, Check(None, 0, False, "not measured"))
            if not check.passed:
                measured = "not measurable" if check.value is None else f"{check.value:g}"
                raise RunError(
                    f"model {entrant.label!r} fails the check {name!r}: {check.detail} ({measured}, allowed "
                    f"{check.threshold:g}); its numbers would be wrong, so nothing was run"
                )
        settings = next((a for a in suite.own_attacks if a.kind == "pgd"), None)
        attack = settings.attack(suite.main_epsilon, suite.seed, draws) if settings else None
        return checks | probe_model(entrant.model, batch, attack, suite.main_epsilon, draws)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        if len(batch) > 2:
            return _checks(entrant, batch[:2], suite, runtime)
        raise RunError(
            f"model {entrant.label!r}: {runtime.device} has no room for two images at once ({error})"
        ) from error


def measured_checks(entrant: Entrant, work: Work, runtime: Runtime) -> dict[str, Check]:
    """Check and probe a model, which is on the runtime's device, on the first images of a plan.

    Raises:
        RunError: it fails a check without which no number can be made.
    """
    images = work.images
    pixels = [to_tensor(images.read(i), runtime.device) for i in range(min(4, len(images)))]
    same_size = [image for image in pixels if image.shape == pixels[0].shape]
    if len(same_size) < 2:
        same_size = [pixels[0], pixels[0].flip(-1)]
    return _checks(entrant, same_size, work.suite, runtime)


def _model_record(entrant: Entrant, work: Work, runtime: Runtime, former: RunManifest | None) -> ModelRecord:
    """Describe a model and check it, unless an earlier start has and nothing is to be computed on it."""
    sha256 = entrant.sha256
    before = [m.checks for m in former.models if m.sha256 == sha256] if former else []
    checks: Mapping[str, JsonValue]
    if before:
        checks = before[0]
    else:
        checks = {name: check._asdict() for name, check in measured_checks(entrant, work, runtime).items()}
    return ModelRecord(
        name=entrant.label,
        sha256=sha256,
        card=entrant.card.model_dump(mode="json"),
        checkpoint=str(entrant.checkpoint) if entrant.checkpoint else None,
        checks=dict(checks),
        argument=entrant.argument,
        plugins=tuple(_plugin_record(path) for path in entrant.plugins),
        backbone_weights=str(entrant.backbone_weights) if entrant.backbone_weights else None,
    )


def _plugin_record(path: Path) -> PluginRecord:
    (_, sha256), *helpers = sources_of(path).hashes().items()
    return PluginRecord(path=str(path), sha256=sha256, helpers=dict(helpers))


class _Log:
    """The manifest of a run, as it changes while the run goes on."""

    def __init__(
        self,
        work: Work,
        models: Sequence[ModelRecord],
        suite_text: str,
        store: ResultStore,
        run: str,
        runtime: Runtime,
        ledger: Ledger,
        replace: bool,
        executor: str,
    ) -> None:
        self.work, self.models, self.suite_text, self.store, self.run = work, models, suite_text, store, run
        self.runtime, self.ledger, self.replace, self.executor = runtime, ledger, replace, executor
        self.started = _now()
        self.provenance = collect_provenance(runtime.device, torch.get_num_threads())
        self._written, self._took, self._booked = time.monotonic(), 0.0, 0.0

    def write_now_and_then(self) -> None:
        """Write the manifest if the last time was long ago, so that a killed run leaves a recent one."""
        # Not more than a twentieth of the time goes into it, however many cells there are.
        if time.monotonic() - self._written > max(WRITE_EVERY, 20 * self._took):
            self.write("running")

    def write(self, status: str | None) -> RunManifest:
        """Write the manifest; without a status it is `complete` or `partial`, as the cells are."""
        begun = time.monotonic()
        with self.store.locked_run(self.run):
            # Read again each time: another process may have added models to this run, and computes theirs.
            there = _there(self.store, self.run, self.work, self.replace)
            manifest = self._manifest(status, there)
            if there is None or there.data.images <= manifest.data.images:
                if there is not None:
                    manifest = beside(manifest, there, self._booked)
                self.store.write_manifest(manifest)
                self._booked = self.ledger.device_seconds
        self._written = time.monotonic()
        self._took = self._written - begun
        return manifest

    def _manifest(self, status: str | None, there: RunManifest | None) -> RunManifest:
        work, ledger = self.work, self.ledger
        cells = ledger.records
        if status is None:
            status = "complete" if all(cell.status == "done" for cell in cells) else "partial"
        suite, card = work.suite, work.images.card
        return RunManifest.model_validate(
            {
                "run": self.run,
                "suite": suite.name,
                "suite_sha256": suite.sha256,
                "suite_text": self.suite_text,
                "main_epsilon": suite.main_epsilon,
                "suite_min": suite.suite_min,
                "step_sweep": suite.step_sweep,
                "seed": suite.seed,
                "models": [m.model_copy(update=ledger.cost(m.name)) for m in self.models],
                "data": DataRecord(
                    name=card.name,
                    sha256=work.images.fingerprint,
                    split=suite.data.split,
                    images=len(work.images),
                    label=card.label,
                    card=card.as_json(),
                    selection=work.selection,
                ),
                "cells": cells,
                "status": status,
                "started": self.started,
                "ended": None if status == "running" else _now(),
                **ledger.cost(),
                "provenance": self.provenance,
                "executor": self.executor,
                "workers": tuple(ledger.workers.values()),
                "device_seconds": ledger.device_seconds,
                "tuning": self._tuning(there),
                "notes": [*notes_of(work), *_untrained(self.models), *_mixed(ledger)],
            }
        )

    def _tuning(self, there: RunManifest | None) -> dict[str, Any]:
        former = there.tuning.get("reduced_chunks", {}) if there else {}
        reduced = {**(former if isinstance(former, dict) else {}), **self.ledger.chunks}
        return {
            "chunk": self.runtime.chunk,
            "max_states": self.runtime.max_states,
            "cell_images": self.work.suite.cell_images,
            **({"reduced_chunks": reduced} if reduced else {}),
        }


def notes_of(work: Work) -> list[str]:
    """Return what a reader of a run must know of its images and suite."""
    notes = []
    if work.selection:
        notes.append(f"computed from {work.selection}: not the suite's numbers")
    if work.images.card.label == "pseudo-MOS":
        notes.append("labels are pseudo-MOS: good for comparing models on equal terms, no human quality")
    transfers = {f"{transfer.name}/{transfer.source[1]}" for transfer in work.suite.transfers}
    if not transfers & set(work.suite.suite_min):
        notes.append("suite_min has no transfer attack: the papers' minimum has one more member")
    if not len(work.validation):
        notes.append("no validation images: the logistic of PLCC is fitted on clean test scores")
    return notes


def _untrained(models: Sequence[ModelRecord]) -> list[str]:
    """Say which models nobody trained: no table shows it otherwise."""
    cards = ((m.name, m.card.get("notes")) for m in models)
    return [f"{name}: {UNTRAINED}" for name, notes in cards if isinstance(notes, list) and UNTRAINED in notes]


def _mixed(ledger: Ledger) -> list[str]:
    """Say so if the stored cells were computed by more than one version of the code, or kind of device."""
    notes = []
    if len(versions := ledger.versions()) > 1:
        notes.append(f"cells were computed by several versions: {', '.join(versions)}")
    if len(devices := ledger.devices()) > 1:
        notes.append(f"cells were computed on several kinds of device: {', '.join(devices)}")
    return notes


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
