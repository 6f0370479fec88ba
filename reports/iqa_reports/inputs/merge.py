"""Runs of different days and machines: which can stand in one table, and that table's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from iqa_reports import text
from iqa_reports.inputs.stored_run import StoredRun
from iqa_results import Estimate, RunManifest

_ROWS = ("estimates", "flags", "triptychs", "optimalities", "radii", "power", "certificates")


class Comparable(NamedTuple):
    """What must be equal for two values to stand in one table."""

    suite_sha256: str
    data_sha256: str
    split: str
    images: int
    selection: str | None
    """Which images were chosen on the command line: few images are another, mostly easier, judgement."""
    surrogates: tuple[str, ...]
    """Hashes of the models whose examples were transferred, sorted: others make another worst case."""


class Group(NamedTuple):
    """Runs whose values may stand in one table, and the run they make together."""

    key: Comparable
    runs: tuple[StoredRun, ...]
    merged: StoredRun
    dropped: tuple[str, ...]
    """Sentences on models that are in several runs: which run's values are shown."""


def comparable(run: StoredRun) -> Comparable:
    """Return what a run must share with another one to be compared with it."""
    manifest = run.manifest
    data = manifest.data
    return Comparable(
        manifest.suite_sha256, data.sha256, data.split, data.images, data.selection, _surrogates(manifest)
    )


def _surrogates(manifest: RunManifest) -> tuple[str, ...]:
    """Return the hashes of the models that a run's transfer cells, named ATTACK:SURROGATE, come from.

    Not those of undefended models whose examples are tried on their defended forms: ATTACK is then their own.
    """
    hashes = {model.name: model.sha256 for model in manifest.models}
    own = {cell.attack for cell in manifest.cells}
    split = (cell.attack.partition(":") for cell in manifest.cells)
    names = (surrogate for attack, _, surrogate in split if attack not in own)
    return tuple(sorted({hashes.get(name, name) for name in names if name}))


def group_runs(runs: Sequence[StoredRun]) -> list[Group]:
    """Return the runs grouped by what `Comparable` names, larger groups first; a group's models in one run.

    One model (equal name and hash) in several runs is shown once, from the run that ended last. Different
    models of one name are all shown, named ``NAME (RUN)``.
    """
    found: dict[Comparable, list[StoredRun]] = {}
    for run in runs:
        found.setdefault(comparable(run), []).append(run)
    groups = [_merge(key, members) for key, members in found.items()]
    return sorted(groups, key=lambda g: (-len(g.merged.manifest.models), g.merged.manifest.suite))


def why_apart(groups: Sequence[Group]) -> list[str]:
    """Say of every further group what keeps it from being compared with the first one."""
    sentences = []
    for group in groups[1:]:
        first, own = groups[0].key, group.key
        reasons = [
            what
            for what, differs in (
                ("another suite", first.suite_sha256 != own.suite_sha256),
                ("other images or labels", first.data_sha256 != own.data_sha256),
                ("another split", first.split != own.split),
                (_chosen(own), (first.images, first.selection) != (own.images, own.selection)),
                ("transfer from other models", first.surrogates != own.surrogates),
            )
            if differs
        ]
        sentences.append(
            f"Not comparable with {_called(groups[0])}: {_called(group)} ({', '.join(reasons)})."
        )
    return sentences


def _chosen(key: Comparable) -> str:
    """Say which of its suite's images a run was computed from."""
    return f"only {key.selection}" if key.selection else f"all {text.count(key.images, 'image')} of its suite"


def _called(group: Group) -> str:
    """Return the names of a group's runs, with their stores: runs of two stores often share a name."""
    return ", ".join(
        f"{run.manifest.run} in {run.origin}" if run.origin else run.manifest.run for run in group.runs
    )


def _merge(key: Comparable, runs: Sequence[StoredRun]) -> Group:
    if len(runs) == 1:
        return Group(key, tuple(runs), runs[0], ())
    latest = sorted(runs, key=lambda r: (r.manifest.ended or "", r.manifest.run), reverse=True)
    names = _names(latest)
    kept: dict[tuple[str, str], StoredRun] = {}
    dropped = []
    for run in latest:
        for model in run.manifest.models:
            shown = kept.setdefault((model.name, model.sha256), run)
            if shown is not run:
                dropped.append(
                    f"{model.name} is in {run.manifest.run} too; shown from the later {shown.manifest.run}."
                )
    renamed = [_only(run, {m: names[m] for m, owner in kept.items() if owner is run}) for run in latest]
    return Group(key, tuple(latest), _joined(renamed), tuple(dropped))


def _names(runs: Sequence[StoredRun]) -> dict[tuple[str, str], str]:
    """Return the name each (name, hash) is shown by; the run's name tells two models of one name apart."""
    hashes: dict[str, dict[str, str]] = {}
    for run in runs:
        for model in run.manifest.models:
            hashes.setdefault(model.name, {}).setdefault(model.sha256, run.manifest.run)
    shown: dict[tuple[str, str], str] = {}
    for name, owners in hashes.items():
        for sha256, owner in owners.items():
            alone = len(owners) == 1
            twice = list(owners.values()).count(owner) > 1
            label = name if alone else f"{name} ({owner}{', ' + sha256[:6] if twice else ''})"
            shown[name, sha256] = label
    return shown


def _only(run: StoredRun, names: Mapping[tuple[str, str], str]) -> StoredRun:
    """Return the part of a run that holds some models, under the names given."""
    rename = {name: shown for (name, _), shown in names.items()}
    models = tuple(
        m.model_copy(update={"name": rename[m.name]})
        for m in run.manifest.models
        if (m.name, m.sha256) in names
    )
    cells = tuple(
        c.model_copy(update={"model": rename[c.model]}) for c in run.manifest.cells if c.model in rename
    )
    manifest = run.manifest.model_copy(update={"models": models, "cells": cells})
    rows: dict[str, Any] = {
        kind: tuple(
            row._replace(model=rename[row.model]) for row in getattr(run, kind) if row.model in rename
        )
        for kind in _ROWS
    }
    rows["estimates"] = tuple(_with_ties(row, rename) for row in rows["estimates"])
    costs = {rename[name]: cost for name, cost in run.costs.items() if name in rename}
    return StoredRun(
        manifest=manifest, intervals=_renamed(run.intervals, rename), costs=costs, origin=run.origin, **rows
    )


def _with_ties(row: Estimate, rename: Mapping[str, str]) -> Estimate:
    return row._replace(ties_with=row.ties_with and ", ".join(rename.get(name, name) for name in row.ties))


def _renamed(table: pa.Table, rename: Mapping[str, str]) -> pa.Table:
    chosen = table.filter(pc.is_in(table.column("model"), pa.array(list(rename), pa.string())))
    models = [rename[name] for name in chosen.column("model").to_pylist()]
    place = chosen.schema.get_field_index("model")
    return chosen.set_column(place, chosen.schema.field("model"), pa.array(models, pa.string()))


def _joined(parts: Sequence[StoredRun]) -> StoredRun:
    parts = [part for part in parts if part.manifest.models]
    manifests = [part.manifest for part in parts]
    complete = all(m.status == "complete" for m in manifests)
    first = manifests[0]
    manifest = first.model_copy(
        update={
            "run": " + ".join(m.run for m in manifests),
            "models": tuple(model for m in manifests for model in m.models),
            "cells": tuple(cell for m in manifests for cell in m.cells),
            "status": "complete" if complete else "partial",
            "started": min(m.started for m in manifests),
            "ended": max((m.ended for m in manifests if m.ended), default=None),
            "forwards": sum(m.forwards for m in manifests),
            "backwards": sum(m.backwards for m in manifests),
            "seconds": sum(m.seconds for m in manifests),
            "notes": tuple(dict.fromkeys(note for m in manifests for note in m.notes)),
        }
    )
    return StoredRun(
        manifest=manifest,
        intervals=pa.concat_tables(part.intervals for part in parts),
        costs={name: cost for part in parts for name, cost in part.costs.items()},
        origin=", ".join(dict.fromkeys(part.origin for part in parts if part.origin)),
        compared=False,
        **{kind: tuple(row for part in parts for row in getattr(part, kind)) for kind in _ROWS},
    )


def describe_run(manifest: RunManifest, origin: str = "") -> str:
    """Return one line on a run: when, where, with what, how far."""
    made = manifest.provenance
    commit = "installed package" if made.commit is None else f"commit {made.commit[:12]}"
    where = f", from {origin}" if origin else ""
    return (
        f"{manifest.run}: {text.count(len(manifest.models), 'model')}, {manifest.status}, started "
        f"{manifest.started}, {made.device} on {made.platform}, {commit}{where}"
    )
