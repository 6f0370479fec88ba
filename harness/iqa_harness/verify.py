"""Is a run what it says? Its tables from its rows, its rows against each other, and a sample made again.

Nothing stored is believed: all tables are computed again from the rows; rows that must agree are compared
with each other; and of every model some cells are attacked again from their seeds, measured and scored,
in the process that verifies, which is never the one that attacked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from iqa_harness.aggregate import RobustnessTable, robustness_table
from iqa_harness.cell import Runtime, craft, run_cell
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_harness.examples import Examples
from iqa_harness.judged import column, range_of
from iqa_harness.plan import Cell, Entrant, Selection, Work, plan
from iqa_results import BadPart, CellRecord, ResultStore, RunManifest
from iqa_suites import parse_suite

BUDGET_SLACK = 1e-6
"""Slack on a measured radius: rounding of float32 pixels."""
SCORE_SLACK = 1e-4
"""Largest difference of two evaluations of one image, in score ranges: rounding of float32."""
AGAIN_SLACK = 1e-3
"""The same for an attack made again: rounding decides signs of gradients that are nearly zero."""
LOSS_SLACK = 1e-3
SSIM_SLACK = 1e-5
"""Slack on a stored similarity: rounding of float32 and of the floor, which rows name with six digits."""
TABLE_SLACK = 1e-9
"""Largest difference of a table's number made twice from the same rows, relative above 1."""
FIT_SLACK = 1e-6
"""The same for the parameters of a logistic, which an iteration finds."""

TABLES = {
    "table": ("model", "row", "attack", "objective", "epsilon", "steps", "metric"),
    "intervals": ("model", "norm", "epsilon", "image_id"),
    "flags": ("model", "flag"),
    "differences": ("model_a", "model_b", "row", "norm", "epsilon", "metric"),
    "measures": ("model", "attack", "objective", "epsilon", "steps", "measure"),
    "fits": ("model",),
}
"""Every stored table, with the columns that name one of its rows."""

ROW = ("attack", "objective", "epsilon", "steps", "image_id")


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    what: str
    """table, row, part, cell or model."""
    where: str
    """Which one."""
    detail: str
    """What is stored and what was found."""


class Verified(NamedTuple):
    """What a verification saw."""

    findings: list[Finding]
    tables: RobustnessTable | None
    """Computed again from the rows; None if a part is damaged."""
    rows: int
    """Rows that were compared with each other."""
    cells: int
    """Cells attacked or scored again."""
    rows_again: int
    """Their rows."""


def verify_run(
    store: ResultStore,
    manifest: RunManifest,
    entrants: Sequence[Entrant],
    data: ImageSet | None,
    *,
    sample: int = 2,
    seed: int = 0,
    runtime: Runtime = Runtime(),  # noqa: B008 - a frozen record
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> Verified:
    """Verify a run.

    Args:
        store: where its parts are.
        manifest: the run's, with the state of its cells as the store has them now.
        entrants: its models, made again; those left out are verified from the stored rows alone.
        data: its images; None makes nothing again.
        sample: attacked cells of each model to make again, besides its first clean one.
        seed: of the choice of those cells.
        runtime: device and chunk sizes.
        on_cell: told before a cell is made again.
    """
    findings: list[Finding] = []
    frames: dict[str, pd.DataFrame] = {}
    for cell in manifest.cells:
        if cell.status == "done":
            try:
                frames[cell.key] = store.read_cell(cell.key).to_pandas()
            except BadPart as error:
                findings.append(Finding("part", cell_name(cell), str(error)))
    tables = None
    if not findings:
        tables = robustness_table(store, manifest)
        findings += _tables_differ(store, manifest, tables)
    compared = 0
    for record in manifest.models:
        mine = [frames[c.key] for c in manifest.cells if c.model == record.name and c.key in frames]
        if mine:
            rows = pd.concat(mine, ignore_index=True)
            compared += len(rows)
            findings += _rows_disagree(record.name, rows, record.card, manifest)
    cells = rows_again = 0
    if data is not None and entrants:
        suite = parse_suite(manifest.suite_text, manifest.suite)
        work = plan(suite, entrants, data, _selection(manifest, frames.values(), data))
        strangers = _strangers(manifest, work, entrants)
        again_of: set[str] = set()
        for again, made in _made_again(manifest, work, entrants, frames, sample, seed, runtime, on_cell):
            cells += 1
            rows_again += len(made)
            if again.attack is not None:
                again_of.add(again.label)
            card = next(m.card for m in manifest.models if m.name == again.label)
            findings += _made_differently(again, frames[again.key], made, card)
        findings += strangers
        if sample and not strangers:  # a stranger's cells are other ones; that is said already
            findings += _never_again(manifest, entrants, frames, again_of)
    order = ("part", "data", "model", "row", "cell", "table")  # causes before what follows from them
    findings.sort(key=lambda finding: order.index(finding.what))
    return Verified(findings, tables, compared, cells, rows_again)


def _selection(manifest: RunManifest, frames: Iterable[pd.DataFrame], data: ImageSet) -> Selection:
    """Return the choice of images a run was made with, from what it stored of them.

    The manifest says it in words alone; the ids stand in the clean rows. Where those are incomplete it is
    the first images, the usual choice; if it was another one, no planned cell is the run's, which is found.
    """
    if manifest.data.selection is None:
        return Selection()
    here = {record.image_id for record in data.split(manifest.data.split).records}
    stored: set[str] = set()
    for rows in frames:
        stored |= set(rows.loc[rows["split"] == manifest.data.split, "image_id"])
    if len(stored) == manifest.data.images and stored <= here:
        return Selection(images=tuple(sorted(stored)))
    return Selection(limit=manifest.data.images)


def _never_again(
    manifest: RunManifest, entrants: Sequence[Entrant], frames: Mapping[str, Any], again_of: set[str]
) -> list[Finding]:
    """Say which models were attacked in the run and not once here: nothing was checked by attacking."""
    findings = []
    for entrant in entrants:
        mine = [c for c in manifest.cells if c.model == entrant.label and c.attack != "clean"]
        done = sum(c.key in frames for c in mine)
        if done and entrant.label not in again_of:
            detail = (
                f"none of its {done} attacked cells could be made again: suite, images and models as they "
                "are here give cells of other keys (another iqa-harness or other images)"
            )
            findings.append(Finding("cell", entrant.label, detail))
    return findings


def _tables_differ(store: ResultStore, manifest: RunManifest, tables: RobustnessTable) -> list[Finding]:
    """Compare every stored table with the one the rows give."""
    run = manifest.run
    readers: dict[str, Callable[[str], pa.Table]] = {
        "table": store.read_table,
        "intervals": store.read_intervals,
        "flags": store.read_flags,
        "differences": store.read_differences,
        "measures": store.read_measures,
        "fits": store.read_fits,
    }
    findings = []
    for name, names in TABLES.items():
        try:
            stored = readers[name](run).to_pylist()
        except BadPart as error:
            findings.append(Finding("table", run, f"{error}; `iqa-harness report {run}` writes it"))
            continue
        fresh = getattr(tables, name).to_pylist()
        if len(stored) != len(fresh):
            detail = f"{len(stored)} rows are stored, the parts give {len(fresh)}"
            findings.append(Finding("table", run if name == "table" else f"{run}, {name}", detail))
            continue
        slack = FIT_SLACK if name == "fits" else TABLE_SLACK
        for old, new in zip(stored, fresh, strict=True):
            place = ", ".join(str(new[c]) for c in names)
            findings += [
                Finding(
                    "table",
                    place if name == "table" else f"{name}, {place}",
                    f"{c}: {old[c]} is stored, the rows give {new[c]}",
                )
                for c in [c for c in new if not _same(old[c], new[c], slack)][:1]
            ]
    return findings


def _rows_disagree(
    model: str, rows: pd.DataFrame, card: Mapping[str, Any], manifest: RunManifest
) -> list[Finding]:
    """Compare stored rows with each other and with their own radius."""
    low, high = range_of(dict(card))
    span = high - low
    attacked = rows[rows["attack"] != "clean"]
    clean = rows[(rows["attack"] == "clean") & (rows["split"] == manifest.data.split)]
    known = dict(zip(clean["image_id"], clean["clean_score"], strict=True))
    findings = []
    checks: list[tuple[pd.Series[bool], str]] = []
    norm = attacked["norm"]
    size = attacked["l2"].where(norm == "2", attacked["rmse"].where(norm == "rmse", attacked["linf"]))
    checks.append((~(size <= attacked["epsilon"] + BUDGET_SLACK), "lies outside its radius"))
    floor = attacked["threat"].map(_ssim_floor).astype(float)
    checks.append((attacked["ssim"] < floor - SSIM_SLACK, "has less similarity than its threat model asks"))
    theirs = attacked["image_id"].map(known)
    apart = (attacked["clean_score"] - theirs).abs() > SCORE_SLACK * span
    checks.append((apart, "has another clean score than the image's clean row"))
    own = (attacked["kind"] != "transfer") & (attacked["projection_moved"] <= BUDGET_SLACK)
    if not card.get("is_stochastic"):
        moved = (attacked["adv_score"] - attacked["attack_score"]).abs() > SCORE_SLACK * span
        checks.append((own & moved, "has another score than the attack saw for the same pixels"))
        mos = _unit_mos(attacked, manifest)
        unit = (attacked["adv_score"] - low) / span
        before = (attacked["clean_score"] - low) / span
        losses = {"raise": unit, "lower": -unit, "drift": (unit - before) ** 2}
        losses |= {"mse": (unit - mos) ** 2} if mos is not None else {}
        for objective, expected in losses.items():
            off = (attacked["loss"] - expected).abs() > LOSS_SLACK
            mine = own & (attacked["objective"] == objective) & attacked["loss"].notna()
            checks.append((mine & off, f"has a loss of {objective} that does not follow from its score"))
    for broken, what in checks:
        findings += [
            Finding("row", f"{model}, {_row_name(row)}", what) for row in attacked[broken].to_dict("records")
        ]
    same = (clean["clean_score"] - clean["adv_score"]).abs() > SCORE_SLACK * span
    findings += [
        Finding("row", f"{model}, clean, {row['image_id']}", "clean_score and adv_score differ")
        for row in clean[same].to_dict("records")
    ]
    return findings


def _ssim_floor(threat: str) -> float:
    """Return the lowest similarity that a row's `threat` admits, NaN if it names none."""
    found = re.fullmatch(r"ssim>=([0-9.eE+-]+)", threat)
    return float(found[1]) if found else math.nan


def _unit_mos(rows: pd.DataFrame, manifest: RunManifest) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    ends = manifest.data.card.get("mos_range")
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = (float(str(end)) for end in ends)
    return (column(rows, "mos") - low) / (high - low)


def _strangers(manifest: RunManifest, work: Work, entrants: Sequence[Entrant]) -> list[Finding]:
    """Say which models or images, made again, are not those of the run."""
    findings = []
    if work.images.fingerprint != manifest.data.sha256:
        return [
            Finding(
                "data", manifest.data.name,
                f"sha256 {manifest.data.sha256[:12]} was attacked, {work.images.fingerprint[:12]} is here",
            )
        ]  # fmt: skip
    for entrant in entrants:
        stored = next((m.sha256 for m in manifest.models if m.name == entrant.label), None)
        if stored is not None and stored != entrant.sha256:
            detail = f"sha256 {stored[:12]} was attacked, {entrant.sha256[:12]} was made again"
            findings.append(Finding("model", entrant.label, detail))
    return findings


def _made_again(
    manifest: RunManifest,
    work: Work,
    entrants: Sequence[Entrant],
    frames: Mapping[str, pd.DataFrame],
    sample: int,
    seed: int,
    runtime: Runtime,
    on_cell: Callable[[Cell], None],
) -> list[tuple[Cell, list[dict[str, Any]]]]:
    """Compute a sample of every model's cells again."""
    models = {entrant.label: entrant.model.to(runtime.device) for entrant in entrants}
    cells = {cell.key: cell for cell in work.cells}
    # Nothing kept is read: an example is found again by its attack, or the check would check itself.
    examples = Examples(
        lambda cell: craft(cell, models[cell.label], work.images, runtime),
        lambda cell: cells[cell.surrogate.cell] if cell.surrogate else cell,
        {cell.surrogate.cell for cell in work.cells if cell.surrogate},
    )
    generator = np.random.default_rng(seed)
    made = []
    for entrant in entrants:
        mine = [c for c in work.cells if c.label == entrant.label and c.key in frames]
        clean = [c for c in mine if c.attack is None and c.split == manifest.data.split][:1]
        attacked = [c for c in mine if c.attack is not None]
        chosen = generator.permutation(len(attacked))[:sample]
        for cell in [*clean, *(attacked[i] for i in sorted(chosen))]:
            on_cell(cell)
            made.append((cell, run_cell(cell, models[cell.label], work.images, runtime, examples.of)))
    return made


def _made_differently(
    cell: Cell, stored: pd.DataFrame, made: Sequence[Mapping[str, Any]], card: Mapping[str, Any]
) -> list[Finding]:
    """Compare a cell's stored rows with the same cell made again."""
    low, high = range_of(dict(card))
    span = high - low
    rows = {tuple(row[c] for c in ROW): row for row in stored.to_dict("records")}
    findings = []
    if len(rows) != len(made):
        detail = f"{len(rows)} rows are stored, made again it has {len(made)}"
        findings.append(Finding("cell", f"{cell.label}, {cell.attack_name}, {cell.key[:12]}", detail))
    for new in made:
        old = rows.get(tuple(new[c] for c in ROW))
        where = f"{cell.label}, {_row_name(new)}"
        if old is None:
            findings.append(Finding("row", where, "is not stored"))
            continue
        bounds = {
            "clean_score": SCORE_SLACK * span,
            "adv_score": AGAIN_SLACK * span,
            "adv_score_8bit": AGAIN_SLACK * span,
            "linf": BUDGET_SLACK + 1e-3 * cell.epsilon,
            "rmse": BUDGET_SLACK + 1e-2 * cell.epsilon,
            "mos": 1e-9,
        }
        for name, bound in bounds.items():
            if not _equal(old[name], new[name], bound):
                detail = f"{name}: {old[name]:.6g} is stored, made again it is {new[name]:.6g}"
                findings.append(Finding("row", where, detail))
    return findings


def _equal(a: Any, b: Any, bound: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= bound or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _same(a: Any, b: Any, slack: float) -> bool:
    return _equal(a, b, slack * max(1.0, abs(b)) if isinstance(b, float) else slack)


def _row_name(row: Mapping[Any, Any]) -> str:
    return (
        f"{row['attack']}/{row['objective']} at {row['epsilon'] * 255:.3g}/255, {row['steps']} steps, "
        f"image {row['image_id']}"
    )


def cell_name(cell: Cell | CellRecord) -> str:
    """Name a cell in words."""
    model, attack = (cell.label, cell.attack_name) if isinstance(cell, Cell) else (cell.model, cell.attack)
    return f"{model}, {attack} at {cell.epsilon * 255:.3g}/255, images from {cell.first}"


def require_entrants(manifest: RunManifest, entrants: Sequence[Entrant]) -> None:
    """Refuse models the run does not have.

    Raises:
        RunError: a model of another name.
    """
    known = [m.name for m in manifest.models]
    for entrant in entrants:
        if entrant.label not in known:
            raise RunError(f"run {manifest.run!r} has no model {entrant.label!r}; it has {', '.join(known)}")
