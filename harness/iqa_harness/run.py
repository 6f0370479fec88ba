"""Compute the cells that are missing, and record the run."""

from __future__ import annotations

import datetime
import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from iqa_harness.cell import Runtime, run_cell, to_tensor
from iqa_harness.check import BLOCKING, Check, check_model
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_harness.examples import Examples
from iqa_harness.plan import Cell, Entrant, Work
from iqa_harness.probes import probe_model
from iqa_harness.provenance import collect_provenance
from iqa_results import BadPart, CellRecord, DataRecord, ModelRecord, ResultStore, RunManifest
from iqa_suites import Suite

OnCell = Callable[[Cell, str], None]
"""Told after every cell: the cell and `cached`, `done` or `failed`."""


def run_suite(
    work: Work,
    entrants: Sequence[Entrant],
    suite_text: str,
    store: ResultStore,
    run: str,
    runtime: Runtime,
    on_cell: OnCell = lambda cell, status: None,
) -> RunManifest:
    """Compute the missing cells of a plan and write the run's manifest.

    A cell that fails is recorded with its error and the others go on. An interrupt (Ctrl-C) leaves the
    finished parts and a manifest that says `interrupted`; the same call later computes the rest.

    Args:
        work: what `plan` returned.
        entrants: the models of the plan.
        suite_text: the suite as TOML, kept in the manifest.
        store: where parts and manifest go.
        run: name of the run.
        runtime: device and chunk sizes.
        on_cell: told after every cell.

    Returns:
        The manifest as written.

    Raises:
        RunError: a model fails a check without which no number can be made, or a run of that name is
            of another suite or data set.
        KeyboardInterrupt: after the manifest is written.
    """
    former = _former(store, run, work, {entrant.label for entrant in entrants})
    models = {entrant.label: entrant.model.to(runtime.device) for entrant in entrants}
    records = [_model_record(entrant, work.images, work.suite, runtime) for entrant in entrants]
    started = former.started if former else _now()
    errors: dict[str, str] = {}
    examples = Examples({cell.key: cell for cell in work.cells}, models, work.images, runtime)

    def record(status: str | None) -> RunManifest:
        manifest = _manifest(work, records, suite_text, store, run, runtime, started, errors, status)
        store.write_manifest(manifest)
        return manifest

    record("running")
    try:
        for cell in work.cells:
            if _is_stored(store, cell):
                on_cell(cell, "cached")
                continue
            images = work.images if cell.split == work.suite.data.split else work.validation
            try:
                rows = run_cell(cell, models[cell.label], images, runtime, examples.of)
                store.write_cell(cell.key, rows)
            except Exception as error:  # noqa: BLE001 - recorded in full; the other cells go on
                errors[cell.key] = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
                on_cell(cell, "failed")
            else:
                on_cell(cell, "done")
    except KeyboardInterrupt:
        record("interrupted")
        raise
    return record(None)


def missing_cells(work: Work, store: ResultStore) -> list[Cell]:
    """Return the cells of a plan whose part is not in the store."""
    return [cell for cell in work.cells if not store.has_cell(cell.key)]


def _is_stored(store: ResultStore, cell: Cell) -> bool:
    """Whether a cell's part is in the store and readable; a damaged one is computed again."""
    if not store.has_cell(cell.key):
        return False
    try:
        store.read_cell(cell.key)
    except BadPart:
        return False
    return True


def refreshed(store: ResultStore, manifest: RunManifest) -> RunManifest:
    """Return a manifest with the state of its cells as the store has them now.

    A killed run leaves the manifest of its start; its parts are there all the same.
    """
    cells = [
        cell.model_copy(update={"status": "done", "error": None})
        if store.has_cell(cell.key)
        else cell.model_copy(update={"status": "failed" if cell.error else "missing"})
        for cell in manifest.cells
    ]
    complete = all(cell.status == "done" for cell in cells)
    status = "complete" if complete else "partial" if manifest.status == "complete" else manifest.status
    return manifest.model_copy(update={"cells": tuple(cells), "status": status, **_cost(store, cells)})


def _former(store: ResultStore, run: str, work: Work, labels: set[str]) -> RunManifest | None:
    """Return the manifest of an earlier start of this run, refusing to take its name from it."""
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
    dropped = [model.name for model in former.models if model.name not in labels]
    if dropped:
        raise RunError(
            f"run {run!r} in {store.root} holds {', '.join(dropped)} too; name all its models again to add "
            "one, or choose another --run name"
        )
    return former


def _model_record(entrant: Entrant, images: ImageSet, suite: Suite, runtime: Runtime) -> ModelRecord:
    pixels = [to_tensor(images.read(i), runtime.device) for i in range(min(4, len(images)))]
    same_size = [image for image in pixels if image.shape == pixels[0].shape]
    if len(same_size) < 2:
        same_size = [pixels[0], pixels[0].flip(-1)]
    draws = suite.eot_samples
    checks = check_model(entrant.model, same_size, draws=draws)
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
    checks |= probe_model(entrant.model, same_size, attack, suite.main_epsilon, draws)
    return ModelRecord(
        name=entrant.label,
        sha256=entrant.sha256,
        card=entrant.model.spec.model_dump(mode="json"),
        checkpoint=str(entrant.checkpoint) if entrant.checkpoint else None,
        checks={name: check._asdict() for name, check in checks.items()},
    )


def _manifest(
    work: Work,
    models: Sequence[ModelRecord],
    suite_text: str,
    store: ResultStore,
    run: str,
    runtime: Runtime,
    started: str,
    errors: dict[str, str],
    status: str | None,
) -> RunManifest:
    cells = [_cell_record(cell, store, errors) for cell in work.cells]
    if status is None:
        status = "complete" if all(cell.status == "done" for cell in cells) else "partial"
    suite, card = work.suite, work.images.card
    cost = _cost(store, cells) if status != "running" else {"forwards": 0, "backwards": 0, "seconds": 0.0}
    return RunManifest.model_validate(
        {
            "run": run,
            "suite": suite.name,
            "suite_sha256": suite.sha256,
            "suite_text": suite_text,
            "main_epsilon": suite.main_epsilon,
            "suite_min": suite.suite_min,
            "step_sweep": suite.step_sweep,
            "seed": suite.seed,
            "models": models,
            "data": DataRecord(
                name=card.name,
                sha256=work.images.fingerprint,
                split=suite.data.split,
                images=len(work.images),
                label=card.label,
                card={
                    "summary": card.summary,
                    "source": card.source,
                    "mos_range": list(card.mos_range),
                    "notes": list(card.notes),
                },
            ),
            "cells": cells,
            "status": status,
            "started": started,
            "ended": None if status == "running" else _now(),
            **cost,
            "provenance": collect_provenance(runtime.device, torch.get_num_threads()),
            "notes": [*_notes(work), *([] if status == "running" else _mixed_code(store, cells))],
        }
    )


def _cell_record(cell: Cell, store: ResultStore, errors: dict[str, str]) -> CellRecord:
    failed = cell.key in errors
    return CellRecord(
        key=cell.key,
        model=cell.label,
        attack=cell.attack_name,
        epsilon=cell.epsilon,
        split=cell.split,
        first=cell.first,
        count=cell.count,
        status="failed" if failed else "done" if store.has_cell(cell.key) else "missing",
        error=errors.get(cell.key),
    )


def _cost(store: ResultStore, cells: Sequence[CellRecord]) -> dict[str, Any]:
    """Add up the work of the stored cells: every image of a cell once, at the full number of steps."""
    forwards = backwards = 0
    seconds = 0.0
    for cell in cells:
        if cell.status != "done":
            continue
        columns = ("image_id", "final", "forwards", "backwards", "seconds")
        part = store.read_cell(cell.key).select(columns).to_pandas()
        each = part[part["final"]].drop_duplicates("image_id")
        forwards += int(each["forwards"].sum())
        backwards += int(each["backwards"].sum())
        seconds += float(each["seconds"].sum())
    if not math.isfinite(seconds):
        raise RunError("the stored seconds of a cell are not finite")
    return {"forwards": forwards, "backwards": backwards, "seconds": seconds}


def _notes(work: Work) -> list[str]:
    notes = []
    if work.images.card.label == "pseudo-MOS":
        notes.append("labels are pseudo-MOS: good for comparing models on equal terms, no human quality")
    transfers = {f"{transfer.name}/{transfer.source[1]}" for transfer in work.suite.transfers}
    if not transfers & set(work.suite.suite_min):
        notes.append("suite_min has no transfer attack: the papers' minimum has one more member")
    if not len(work.validation):
        notes.append("no validation images: the logistic of PLCC is fitted on clean test scores")
    return notes


def _mixed_code(store: ResultStore, cells: Sequence[CellRecord]) -> list[str]:
    """Say so if the stored cells were computed by more than one version of the code."""
    done = [cell.key for cell in cells if cell.status == "done"]
    versions = sorted({store.read_cell(key).column("harness")[0].as_py() for key in done})
    return [f"cells were computed by several versions: {', '.join(versions)}"] if len(versions) > 1 else []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
