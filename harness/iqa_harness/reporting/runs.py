"""Runs on disk, found and read for a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iqa_harness.errors import RunError
from iqa_harness.measures.optimality import gradients_of
from iqa_harness.tables.measure_rows import OPTIMALITY
from iqa_reports import ModelCost, StoredRun
from iqa_reports.inputs.stored_run import Optimality
from iqa_results import (
    INTERVAL_SCHEMA,
    RUN_TABLES,
    TABLE,
    Estimate,
    Measure,
    ResultsError,
    ResultStore,
    RunManifest,
    is_made_from,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from iqa_harness.tables.robustness import RobustnessTable

MANIFEST = "manifest.json"
CERTIFICATES = "certificates"
"""Table of a run that `certify` adds."""


class FoundRun(NamedTuple):
    """A run and the store it lies in."""

    store: ResultStore
    run: str


def find_runs(places: Iterable[str | Path]) -> list[FoundRun]:
    """Return the runs below some places, each once, in the order found.

    A place is a store, the folder of one run, or a folder with stores somewhere below it; a URL is a store.

    Raises:
        RunError: a place does not exist, or has no run below it.
    """
    found: dict[str, FoundRun] = {}
    for place in places:
        if "://" in str(place):
            store = ResultStore(place)
            found |= {f"{store.root}/{run}": FoundRun(store, run) for run in store.list_runs()}
            continue
        folders = _run_folders(Path(place))
        if not folders:
            raise RunError(f"{place}: no run there (a run is STORE/runs/NAME/{MANIFEST})")
        for folder in folders:
            key = str(folder.resolve())
            found.setdefault(key, FoundRun(ResultStore(folder.parent.parent), folder.name))
    return list(found.values())


def read_run(found: FoundRun, *, intervals: bool = True) -> StoredRun:
    """Read what a run's aggregation stored: manifest, table, intervals; flags and costs if there are any.

    The manifest has its cells as the store has them now, and a note if the table is of other ones.

    Raises:
        ResultsError: a file is damaged or of another version, or the run was never aggregated.
    """
    store, run = found
    manifest = store.read_manifest(run)
    if not store.has_table(run):
        raise RunError(
            f"run {run!r} in {store.root} has no table yet; make it by "
            f"`iqa-harness report {run} --store {store.root}`"
        )
    table = store.read_table(run)
    reached = store.read_table(run, "intervals") if intervals else INTERVAL_SCHEMA.empty_table()
    rows = {name: store.read_rows(run, name) for name in _READ}
    return _stored(store, _as_stored(store, manifest, table), TABLE.rows(table), reached, rows)


def computed_run(store: ResultStore, manifest: RunManifest, tables: RobustnessTable) -> StoredRun:
    """Return a run with tables as they were just computed from its rows, stored or not."""
    rows = {name: RUN_TABLES[name].rows(getattr(tables, name)) for name in _READ}
    return _stored(store, manifest, TABLE.rows(tables.table), tables.intervals, rows)


_READ = ("flags", "measures", "power")


def _stored(
    store: ResultStore,
    manifest: RunManifest,
    estimates: Sequence[Estimate],
    intervals: pa.Table,
    rows: Mapping[str, Sequence[Any]],
) -> StoredRun:
    measures, norms = rows["measures"], {row.norm for row in estimates}
    # A run may have had fewer images when it was certified: no floor under those of now.
    counts, floors = (0, manifest.data.images), store.read_rows(manifest.run, CERTIFICATES)
    return StoredRun(
        manifest,
        tuple(estimates),
        intervals,
        tuple(rows["flags"]),
        model_costs(measures),
        origin=store.root.name,
        optimalities=attack_optimality(measures),
        radii=radius_measures(measures),
        power=tuple(rows["power"]),
        certificates=tuple(c for c in floors if c.norm in norms and c.images in counts),
    )


def _as_stored(store: ResultStore, manifest: RunManifest, table: pa.Table) -> RunManifest:
    """Return a manifest with the state of its cells now, whatever a killed run left of it.

    A store without a single cell was passed on without its rows: the manifest is all that is known of them.
    """
    from iqa_harness.running.ledger import refreshed

    now = refreshed(store, manifest)
    if not any(cell.status == "done" for cell in now.cells) and not store.cell_sizes():
        return manifest
    # Not by the files' times, which a copy does not keep. A table of an older version does not say.
    if is_made_from(table, (cell.key for cell in now.cells if cell.status == "done")) is not False:
        return now
    note = (
        "the table was made from other cells than the run has now: "
        f"`iqa-harness report {now.run} --store {store.root}` makes it anew"
    )
    return now.model_copy(update={"notes": (note, *now.notes)})


def read_runs(found: Iterable[FoundRun], *, intervals: bool = True) -> tuple[list[StoredRun], list[str]]:
    """Read many runs; one that cannot be read becomes a sentence instead of an end to the rest.

    Without intervals, a row an image, a leaderboard over many images is read in a moment.
    """
    runs, unread = [], []
    for one in found:
        try:
            runs.append(read_run(one, intervals=intervals))
        except (ResultsError, RunError) as error:
            unread.append(str(error))
    return runs, unread


def radius_measures(measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Return what the attacks found that look for the smallest radius, and what they cost."""
    attacks = {m.attack for m in measures if m.measure == "radius_median"}
    own = ("moved_share", "backwards")
    return tuple(
        m for m in measures if m.attack in attacks and (m.measure in own or m.measure.startswith("radius_"))
    )


def model_costs(measures: Sequence[Measure]) -> dict[str, ModelCost]:
    """Return what one image of each model cost in all attacks, at full strength.

    Objectives of one attack share their gradients: an attack at one radius counts once, by its largest value.
    """
    names = ("backwards", "seconds")
    largest: dict[tuple[str, str, str, str, float], float] = {}
    for row in measures:
        if row.measure in names and row.final and row.value is not None:
            key = (row.model, row.measure, row.attack, row.norm, row.epsilon)
            largest[key] = max(largest.get(key, 0.0), row.value)
    totals: dict[str, dict[str, float]] = {}
    for (model, measure, *_), value in largest.items():
        own = totals.setdefault(model, dict.fromkeys(names, 0.0))
        own[measure] += value
    return {model: ModelCost(*(own[name] for name in names)) for model, own in totals.items()}


def attack_optimality(measures: Sequence[Measure]) -> tuple[Optimality, ...]:
    """Return a row a (model, attack) at the main radius, with what the attack cost."""
    values = {(r.model, r.attack, r.epsilon, r.measure): r.value for r in measures if r.objective == "all"}
    falls, moves = OPTIMALITY
    return tuple(
        Optimality(
            model,
            attack,
            fall,
            values.get((model, attack, epsilon, moves)),
            gradients_of(
                *(values.get((model, attack, epsilon, n)) or 0.0 for n in ("forwards", "backwards"))
            ),
        )
        for (model, attack, epsilon, measure), fall in values.items()
        if measure == falls
    )


def _run_folders(place: Path) -> list[Path]:
    if not place.exists():
        raise RunError(f"{place}: no such folder")
    if (place / MANIFEST).is_file():
        return [place]
    if (place / "runs").is_dir():
        return sorted(path.parent for path in (place / "runs").glob(f"*/{MANIFEST}"))
    return sorted(path.parent for path in place.rglob(f"runs/*/{MANIFEST}"))
