"""A run verified: manifest, rows, tables, and what is made again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from iqa_harness.cells.plan import Cell, Rival, Work, draws_of, list_cells, plan_rivals
from iqa_harness.cells.selection import recorded_selection, recorded_suite, remembered_images
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.tables.robustness import RobustnessTable, robustness_table
from iqa_harness.verification.finding import ORDER, Finding, cell_name, place_of
from iqa_harness.verification.manifest import (
    cells_differ,
    checks_contradict,
    costs_differ,
    data_differs,
    models_differ,
    not_as_shipped,
    suite_differs,
)
from iqa_harness.verification.recompute import Again, kept_differ
from iqa_harness.verification.rows import rows_differ, rows_disagree
from iqa_harness.verification.tables import tables_differ, unlike_their_rows
from iqa_results import ResultsError, ResultStore, RunManifest
from iqa_suites import BadSuite, Suite

SAMPLE = 3
"""Attacked cells of each model that are made again: the minimum's, one of another radius, one more."""


@dataclasses.dataclass
class Verified:
    """What a verification saw."""

    findings: list[Finding]
    tables: RobustnessTable | None = dataclasses.field(repr=False)
    """Computed again from the rows; None if a part is damaged or holds what is no number."""
    rows: int
    """Rows that were compared with the plan and with each other."""
    cells: int = 0
    """Cells attacked or scored again."""
    rows_again: int = 0
    """Their rows."""
    checks: int = 0
    """Models whose checks were measured again."""
    not_verified: tuple[str, ...] = ()
    """What is believed as it is stored, because what was made again cannot show it."""
    main_cells: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """By model, its attacked cells at the main radius, and those of them made again."""
    kept: int = 0
    """Rows at the main radius whose image is kept and was scored again."""

    def missed(self, model: str, altered: int) -> float:
        """Return the chance that none of some altered cells of a model at the main radius was made again."""
        there, again = self.main_cells[model]
        return math.comb(there - again, altered) / math.comb(there, altered)


def verify_run(
    store: ResultStore,
    manifest: RunManifest,
    entrants: Sequence[Entrant],
    data: ImageSet | None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    runtime: Runtime = Runtime(),  # noqa: B008 - a frozen record
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> Verified:
    """Verify a run.

    Args:
        store: where its parts are.
        manifest: the run's, with the state of its cells as the store has them now.
        entrants: its models, made again; those left out are verified from the stored files alone.
        data: its images; None makes nothing again and believes labels that agree with each other.
        sample: attacked cells of each model to make again, besides all its clean ones and its checks.
        seed: of the choice of those cells; whoever knows it beforehand knows what is not looked at.
        runtime: device and chunk sizes.
        on_cell: told before a cell is made again.
    """
    parts, findings = _read_parts(store, manifest)
    whole = not findings
    work: Work | None = None
    compared, compressed = 0, set[str]()
    try:
        suite = recorded_suite(manifest)
    except BadSuite as error:
        findings.append(Finding("manifest", "suite_text", str(error)))
    else:
        work, found = _replan(manifest, suite, data, parts)
        findings += [*suite_differs(manifest, suite), *not_as_shipped(suite), *found]
        findings += _rows_of_plan(manifest, suite, work, parts)
        # Attacks through JPEG: their own scores are of what is not stored.
        compressed = {own.name for own in suite.own_attacks if getattr(own, "jpeg_qualities", ())}
    findings += costs_differ(manifest, parts)
    for record in manifest.models:
        findings += checks_contradict(record)
        mine = [parts[c.key] for c in manifest.cells if c.model == record.name and c.key in parts]
        if mine:
            rows = pa.concat_tables(mine)
            compared += len(rows)
            findings += rows_disagree(record.name, rows.to_pandas(), record.card, manifest, compressed)
    tables, believed = None, list[str]()
    if whole and all(map(_is_numeric, parts.values())):
        tables = robustness_table(store, manifest)
        findings += tables_differ(store, manifest, tables)
        differing, believed = unlike_their_rows(store, manifest, tables)
        findings += differing
    findings += (strangers := models_differ(manifest, entrants))
    strange = {finding.where for finding in strangers}
    again = [entrant for entrant in entrants if entrant.label not in strange]
    seen = Verified(findings, tables, compared, not_verified=tuple(believed))
    if work is not None and entrants:
        _make_again(seen, Again(manifest, work, again, parts, runtime), store, sample, seed, on_cell)
    seen.findings.sort(key=lambda finding: ORDER.index(finding.what))
    return seen


def _make_again(
    seen: Verified,
    again: Again,
    store: ResultStore,
    sample: int,
    seed: int,
    on_cell: Callable[[Cell], None],
) -> None:
    """Add to what was seen what is seen by measuring, scoring and attacking again."""
    for count, differing in kept_differ(again, store):  # first, by models that have seen nothing yet
        seen.kept += count
        seen.findings += differing
    seen.checks = len(again.entrants)
    seen.findings += again.checks_differ()
    chosen = again.chosen(sample, seed, _deciding(seen.tables, again.manifest.main_epsilon))
    for count, differing in again.cells_differ(chosen, on_cell):
        seen.cells += 1
        seen.rows_again += count
        seen.findings += differing
    failed, believed = again.after_run(chosen)
    seen.findings += failed
    if sample:
        seen.findings += again.never_again(chosen)
    seen.not_verified, seen.main_cells = (*seen.not_verified, *believed), again.chances(chosen)


def _deciding(tables: RobustnessTable | None, main_epsilon: float) -> dict[str, str]:
    """Return by model the attack that decides its minimum at the main radius."""
    rows = tables.table.to_pylist() if tables is not None else []
    return {
        row["model"]: row["attack"]
        for row in rows
        if (row["row"], row["epsilon"], row["metric"], row["final"])
        == ("suite_min", main_epsilon, "srocc", True)
    }


def _read_parts(store: ResultStore, manifest: RunManifest) -> tuple[dict[str, pa.Table], list[Finding]]:
    """Return the parts of all cells that are done, by key, and what is wrong with the others."""
    parts: dict[str, pa.Table] = {}
    findings = []
    for cell in manifest.cells:
        if cell.status == "done":
            try:
                parts[cell.key] = store.read_cell(cell.key)
            except ResultsError as error:  # damaged, or of a key that is none
                findings.append(Finding("part", cell_name(cell), str(error)))
    return parts, findings


def _replan(
    manifest: RunManifest, suite: Suite, data: ImageSet | None, parts: Mapping[str, pa.Table]
) -> tuple[Work | None, list[Finding]]:
    """Plan a run again on its images; None, and why, if they are not here or give no plan."""
    if data is None:
        return None, []
    if data.fingerprint != manifest.data.sha256:
        detail = f"sha256 {manifest.data.sha256[:12]} was attacked, {data.fingerprint[:12]} is here"
        return None, [Finding("data", manifest.data.name, detail)]
    stored = {image for part in parts.values() for image in pc.unique(part["image_id"]).to_pylist()}
    try:
        selection = recorded_selection(manifest, data, stored)
        work = plan_rivals(suite, _rivals(manifest, suite), data, selection)
    except RunError as error:
        return None, [Finding("manifest", "suite_text", f"gives no plan on these images: {error}")]
    return work, data_differs(manifest, work)


def _rows_of_plan(
    manifest: RunManifest, suite: Suite, work: Work | None, parts: Mapping[str, pa.Table]
) -> list[Finding]:
    """Compare the manifest's cells and their rows with the plan.

    Without images it is planned on what the rows themselves say of them: keys and labels are then believed.
    """
    split = suite.data.split
    images: dict[str, ImageSet]
    if work is not None:
        images = {"val": work.validation, split: work.images}
        planned: Sequence[Cell] = work.cells
    else:
        images = {name: remembered_images(manifest, name, parts.values()) for name in {"val", split}}
        planned = list_cells(suite, _rivals(manifest, suite), images[split], images["val"])
    findings = cells_differ(manifest, planned, keyed=work is not None)
    if len(images[split]) != manifest.data.images:
        detail = f"{manifest.data.images} is stored, the cells are of {len(images[split])}"
        findings.append(Finding("manifest", "data.images", detail))
    records = {place_of(record): record for record in manifest.cells}
    for cell in planned:
        record = records.get(place_of(cell))
        if record is not None and record.key in parts:
            stored = dataclasses.replace(cell, key=record.key)
            findings += rows_differ(stored, parts[record.key], images[cell.split])
    return findings


def _rivals(manifest: RunManifest, suite: Suite) -> list[Rival]:
    """Return the models as the cells' keys name them."""
    return [
        Rival(
            m.name,
            m.sha256,
            draws_of(suite, bool(m.card.get("is_stochastic"))),
            m.bare,
            bool(m.card.get("has_gradient", True)),
        )
        for m in manifest.models
    ]


def _is_numeric(part: pa.Table) -> bool:
    """Return whether every number of a part is one: no table can be made of others."""
    floats = [part[field.name] for field in part.schema if pa.types.is_floating(field.type)]
    return all(pc.all(pc.is_finite(numbers), min_count=0).as_py() for numbers in floats)


def require_entrants(manifest: RunManifest, entrants: Sequence[Entrant]) -> None:
    """Refuse models the run does not have.

    Raises:
        RunError: a model of another name.
    """
    known = [m.name for m in manifest.models]
    for entrant in entrants:
        if entrant.label not in known:
            raise RunError(f"run {manifest.run!r} has no model {entrant.label!r}; it has {', '.join(known)}")
