"""Two manifests of one run made one: of another machine's store, or of a process that ran beside this one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import JsonValue

from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import UNCHANGED
from iqa_harness.machine.tuning import choices_of, known
from iqa_results import CellRecord, ModelRecord, RunManifest


def joined(ours: RunManifest, theirs: RunManifest) -> RunManifest:
    """Return a run with the models and cells of both; where both have one, ours is kept.

    Raises:
        RunError: they are of other suites, images or weights.
    """
    for what, a, b in (
        ("suite", ours.suite_sha256, theirs.suite_sha256),
        ("images", ours.data.sha256, theirs.data.sha256),
    ):
        if a != b:
            raise RunError(f"run {ours.run!r} is of other {what} here than there; they cannot be one run")
    here, there = _which(ours), _which(theirs)
    if here != there:
        raise RunError(
            f"run {ours.run!r} is of {here} here and of {there} there; they cannot be one run: compute "
            "the same images in both, or merge into another --store"
        )
    hashes = {model.name: model.sha256 for model in ours.models}
    for model in theirs.models:
        if hashes.get(model.name, model.sha256) != model.sha256:
            raise RunError(f"run {ours.run!r}: model {model.name!r} has other weights here than there")
    cells = {cell.key: cell for cell in theirs.cells} | {c.key: c for c in ours.cells}
    order = [*(c.key for c in ours.cells), *(c.key for c in theirs.cells)]
    workers = {worker.id: worker for worker in (*ours.workers, *theirs.workers)}
    same = set(ours.workers) == set(theirs.workers)
    ends = [end for end in (ours.ended, theirs.ended) if end]
    return ours.model_copy(
        update={
            "models": (
                *_as_changed(ours.models, theirs),
                *(m for m in theirs.models if m.name not in hashes),
            ),
            "cells": tuple(cells[key] for key in dict.fromkeys(order)),
            "started": min(ours.started, theirs.started),
            "ended": max(ends) if ends else None,
            "workers": tuple(workers.values()),
            "device_seconds": ours.device_seconds + (0.0 if same else theirs.device_seconds),
            "notes": tuple(dict.fromkeys((*ours.notes, *theirs.notes))),
            "tuning": {**ours.tuning, **_choices(ours, theirs)},
        }
    )


def _as_changed(models: Sequence[ModelRecord], other: RunManifest) -> tuple[ModelRecord, ...]:
    """Return models, those that had changed after the other's cells with that check: its cells are joined."""
    checks = {(m.name, m.sha256): m.checks.get(UNCHANGED, {"passed": True}) for m in other.models}
    failed = {key: check for key, check in checks.items() if not check["passed"]}
    return tuple(
        m.model_copy(update={"checks": {**m.checks, UNCHANGED: failed[m.name, m.sha256]}})
        if (m.name, m.sha256) in failed
        else m
        for m in models
    )


def _choices(ours: RunManifest, theirs: RunManifest) -> dict[str, JsonValue]:
    """Return how gradients were computed here and there, for a model of both as here."""
    mine = choices_of(ours)
    kept = [*mine, *(c for c in choices_of(theirs) if known(mine, c.model_sha256) is None)]
    return {"choices": [c.model_dump(mode="json") for c in kept]} if kept else {}


def beside(mine: RunManifest, there: RunManifest, booked: float) -> RunManifest:
    """Return what a process writes of a run whose manifest another one may have written meanwhile.

    Models and cells that are not of this process's plan stay in it. A cell of the plan replaces the one in
    its place: an earlier start's, of fewer images or of another version.

    Args:
        mine: the run as this process knows it.
        there: the manifest that lies in the store, of the same suite and data.
        booked: device seconds of this process that are in it already.
    """
    workers = {worker.id for worker in mine.workers}
    changes: dict[str, object] = {
        "started": min(mine.started, there.started),
        "workers": (*(w for w in there.workers if w.id not in workers), *mine.workers),
        "device_seconds": there.device_seconds - booked + mine.device_seconds,
    }
    if _which(mine) == _which(there):
        names = {model.name for model in mine.models}
        places = {_place(cell) for cell in mine.cells}
        cells = [cell for cell in there.cells if _place(cell) not in places]
        done = [cell for cell in cells if cell.status == "done"]
        changes |= {
            "models": (
                *_as_changed(mine.models, there),
                *(model for model in there.models if model.name not in names),
            ),
            "cells": (*mine.cells, *cells),
            "forwards": mine.forwards + sum(cell.forwards for cell in done),
            "backwards": mine.backwards + sum(cell.backwards for cell in done),
            "seconds": mine.seconds + sum(cell.seconds for cell in done),
        }
        if mine.status == "complete" and len(done) < len(cells):
            changes["status"] = "partial"
    return mine.model_copy(update=changes)


def _place(cell: CellRecord) -> tuple[str, str, float, str, int, int]:
    return cell.model, cell.attack, cell.epsilon, cell.split, cell.first, cell.count


def without(manifest: RunManifest, names: Collection[str]) -> RunManifest:
    """Return a run without some models, and without the transfers from and to them."""
    models = tuple(model for model in manifest.models if model.name not in names)
    gone = {cell.key for cell in manifest.cells if {cell.model, cell.attack.partition(":")[2]} & {*names}}
    cells = tuple(cell for cell in manifest.cells if cell.key not in gone)
    return manifest.model_copy(update={"models": models, "cells": cells})


def _which(manifest: RunManifest) -> str:
    """Say which images of its data a run is of; equal words are equal images."""
    data = manifest.data
    return f"{data.selection or f'all {data.images} images'} ({data.split} split)"
