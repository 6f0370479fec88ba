"""The manifest of a run: found again, refused where it is another run's, written as the run goes on."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from iqa_harness.cells.plan import Work
from iqa_harness.entrants.entrant import UNTRAINED
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import blocked_by
from iqa_harness.machine.provenance import collect_provenance
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import choices_of
from iqa_harness.measures.correlation import MIN_FIT
from iqa_harness.running.ledger import Ledger
from iqa_harness.running.merge import beside, without
from iqa_models.adapters.foreign import TOLD
from iqa_results import BadManifest, DataRecord, ModelRecord, ResultStore, RunManifest

AUTO = "auto"
"""What a manifest says of a chunk that each model's need and the GPU's memory decided."""
WRITE_EVERY = 60.0
"""Seconds between two writes of the manifest while a run goes on."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is, beside its plan: its name, its suite's text, and which of its cells are computed now."""

    name: str
    """Name of the run in its store."""
    suite_text: str = ""
    """The suite as TOML, kept in the manifest."""
    only: tuple[str, ...] = ()
    """Compute cells of these attacks only ('clean' is one), all if empty; the others stay missing."""
    keep_images: bool = False
    """Store the attacked images of every attack too, of cells that are done as well."""
    replace: bool = False
    """A model may take the name of one with other weights; the cells of that are no run's then."""


def readable(store: ResultStore) -> Iterator[RunManifest]:
    """Yield the manifests of a store; one that is damaged is no reason not to run."""
    for name in store.list_runs():
        with suppress(BadManifest):
            yield store.read_manifest(name)


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


def former_manifest(store: ResultStore, work: Work, config: RunConfig) -> RunManifest | None:
    """Return the manifest of an earlier start of this run, refusing to take its name from another one.

    Raises:
        RunError: the run holds more or other images, other models, or is of another suite or data set.
    """
    former, run = _there(store, work, config), config.name
    if former is None:
        return None
    if len(work.images) < former.data.images:
        raise RunError(
            f"run {run!r} in {store.root} holds {former.data.images} images, more than the "
            f"{len(work.images)} of this call; choose another --run name"
        )
    by_id = any(each and each.images for each in (work.chosen, former.data.chosen))
    if by_id and work.selection != former.data.selection:
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


def _there(store: ResultStore, work: Work, config: RunConfig) -> RunManifest | None:
    """Return the manifest of a run as it lies in the store, if a plan can be the same run.

    Models that are others now are not in it: with `replace`, or where nothing of them is stored.
    """
    run = config.name
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
    others = {} if config.replace else _others(store, former, work)
    now = {cell.label: cell.model_sha256 for cell in work.cells}
    for name, sha256 in others.items():
        raise RunError(
            f"run {run!r} in {store.root} holds cells of another model {name!r} (sha256 {sha256[:12]}, now "
            f"{now[name][:12]}): its weights, options or source were changed; choose another --run name, or "
            "give this model a name of its own (LABEL=...) beside the former"
        )
    return without(former, {m.name for m in former.models if now.get(m.name, m.sha256) != m.sha256})


class ManifestLog:
    """The manifest of a run, as it changes while the run goes on."""

    def __init__(
        self,
        store: ResultStore,
        work: Work,
        config: RunConfig,
        models: Sequence[ModelRecord],
        ledger: Ledger,
        runtime: Runtime,
        executor: str,
    ) -> None:
        """Take the run, its models' records, the ledger of its cells, and who computes them."""
        self.store, self.work, self.config, self.models = store, work, config, models
        self.ledger, self.runtime, self.executor = ledger, runtime, executor
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
        with self.store.locked_run(self.config.name):
            # Read again each time: another process may have added models to this run, and computes theirs.
            there = _there(self.store, self.work, self.config)
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
                "run": self.config.name,
                "suite": suite.name,
                "suite_sha256": suite.sha256,
                "suite_text": self.config.suite_text,
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
                    chosen=work.chosen,
                    chosen_from=work.chosen_from,
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
                "notes": [*notes_of(work), *_of_models(self.models), *_mixed(ledger)],
            }
        )

    def _tuning(self, there: RunManifest | None) -> dict[str, Any]:
        names = "chunks" if self.runtime.chunk_by_memory else "reduced_chunks"
        former = there.tuning.get(names, {}) if there else {}
        reduced = {**(former if isinstance(former, dict) else {}), **self.ledger.chunks}
        return {
            "chunk": AUTO if self.runtime.chunk_by_memory else self.runtime.at_most,
            "cell_images": self.work.suite.cell_images,
            **({"choices": choices} if (choices := self._choices(there)) else {}),
            **({names: reduced} if reduced else {}),
        }

    def _choices(self, there: RunManifest | None) -> list[dict[str, Any]]:
        """Return how gradients are computed, by model and device; another process's choices stay."""
        held = {(c.model_sha256, c.device): c for c in (choices_of(there) if there else ())}
        if self.runtime.tune == "off":  # nothing of our models is stored that was computed otherwise
            ours = {model.sha256 for model in self.models}
            held = {key: choice for key, choice in held.items() if key[0] not in ours}
        held |= {(c.model_sha256, c.device): c for c in self.runtime.choices}
        names = {model.sha256 for model in (*self.models, *(there.models if there else ()))}
        return [c.model_dump(mode="json") for c in held.values() if c.model_sha256 in names]


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
    if len(work.validation) < MIN_FIT:
        notes.append(
            f"fewer than {MIN_FIT} validation images: the logistic of PLCC is fitted on clean "
            f"{work.suite.data.split} scores"
        )
    return notes


def _of_models(models: Sequence[ModelRecord]) -> list[str]:
    """Say which models nobody trained, and which are invalid and were not run."""
    cards = ((m.name, m.card.get("notes")) for m in models)
    plain = [
        f"{name}: {UNTRAINED}" for name, notes in cards if isinstance(notes, list) and UNTRAINED in notes
    ]
    plain += [
        f"{m.name} has no gradient: attacks that need one are left out; it is attacked by queries and by "
        "examples of the other models"
        for m in models
        if m.card.get("has_gradient") is False
    ]
    blocked = ((m.name, blocked_by(m.checks)) for m in models)
    told = [f"{m.name}: {note}" for note in TOLD for m in models if note in str(m.card.get("notes"))]
    return [*plain, *told, *(f"{name}: invalid, {words}; not run" for name, words in blocked if words)]


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
