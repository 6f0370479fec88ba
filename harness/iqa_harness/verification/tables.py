"""Stored tables against those the rows give."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from iqa_harness.evidence.plants import FOUND, STEEPNESSES, WIDTHS
from iqa_harness.tables.power import plants_of
from iqa_harness.tables.robustness import RobustnessTable
from iqa_harness.verification.finding import Finding, within
from iqa_results import TABLE, BadPart, Certificate, Estimate, Plant, ResultStore, RunManifest

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
    "power": ("model", "attack", "width", "steepness"),
}
"""Every stored table, with the columns that name one of its rows."""


def tables_differ(store: ResultStore, manifest: RunManifest, tables: RobustnessTable) -> list[Finding]:
    """Compare every stored table with the one the rows give."""
    run = manifest.run
    findings = []
    for name, names in TABLES.items():
        if name == "power" and not tables.power.num_rows and not store.has_table(run, name):
            continue  # a run of an older version, which knew of no plants
        try:
            table = store.read_table(run, name)
        except BadPart as error:
            findings.append(Finding("table", run, f"{error}; `iqa-harness report {run}` writes it"))
            continue
        if table.equals(getattr(tables, name)):  # a NaN equals none, and is looked at below
            continue
        stored, fresh = table.to_pylist(), getattr(tables, name).to_pylist()
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


def unlike_their_rows(
    store: ResultStore, manifest: RunManifest, tables: RobustnessTable
) -> tuple[list[Finding], list[str]]:
    """Hold a run's plants and certificates against themselves and its tables, without a model.

    Returns:
        What differs; and, for people, what of them is believed as it is stored.
    """
    findings: list[Finding] = []
    believed = []
    try:
        plants = plants_of(store, manifest.run, manifest.models)
        floors = store.read_rows(manifest.run, "certificates")
    except BadPart as error:
        return [Finding("table", manifest.run, str(error))], []
    for model, rows in plants.items():
        findings += [Finding("table", f"plants, {model}", words) for words in _unlike_plants(rows)]
        believed += [f"{model}, plant_missed: plants are not looked for again"] * bool(rows)
    models = {(record.name, record.sha256) for record in manifest.models}
    values = TABLE.rows(tables.table) if floors else []
    floors = [row for row in floors if row.images in (0, manifest.data.images)]  # reports show no others
    for row in floors:
        place = f"certificates, {row.model}, {row.norm}, {row.epsilon}, {row.metric}"
        findings += [Finding("table", place, words) for words in _unlike_floor(row, values, models)]
    names = dict.fromkeys(row.model for row in floors if row.value is not None)
    believed += [f"{model}, certified: `certify --run` computes it again" for model in names]
    return findings, believed


def _unlike_plants(rows: Sequence[Plant]) -> Iterator[str]:
    """Say which plants are called found or missed against what was reached, and where grades are gone."""
    for row in rows:
        if row.found != (row.near >= FOUND):
            yield f"{row.attack}, {row.image_id}: found is {row.found} at {row.near:.3g} of the height"
    grades = {(width, steepness) for width in WIDTHS for steepness in STEEPNESSES}
    for attack in dict.fromkeys(row.attack for row in rows):
        mine = [(row.image_id, row.width, row.steepness) for row in rows if row.attack == attack]
        planned = {(image, *grade) for image in {each[0] for each in mine} for grade in grades}
        if sorted(mine) != sorted(planned):
            yield f"{attack}: {len(mine)} plants are stored, {len(planned)} belong to its images"


def _unlike_floor(
    row: Certificate, values: Sequence[Estimate], models: Collection[tuple[str, str]]
) -> Iterator[str]:
    """Say where a certificate is of another model, of another clean value, or above what attacks found."""
    if (row.model, row.model_sha256) not in models:
        yield "is of no model of the run"
        return
    mine = [r for r in values if (r.model, r.metric) == (row.model, row.metric)]
    clean = next((r.value for r in mine if r.row == "clean"), None)
    if not _same(row.clean, clean, FIT_SLACK):
        yield f"clean: {row.clean} is stored, the rows give {clean}"
    inside = [
        r.value for r in mine if r.norm == row.norm and r.epsilon <= row.epsilon and r.value is not None
    ]
    least = min(inside, default=math.inf)
    if row.value is not None and row.confidence == 1 and not row.value <= least + FIT_SLACK:
        yield f"value: {row.value} is certified, an attack of the run found {least}"


def _same(a: object, b: object, slack: float) -> bool:
    """Return whether values made twice from equal rows agree: two NaN are one result."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or within(a, b, slack * max(1.0, abs(b)))
    return within(a, b, slack)
