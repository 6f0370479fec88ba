"""The tables of the SRM paper, regenerated from whatever was measured; each returns None without input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from iqa_reports import text
from iqa_reports.inputs.frame_entries import (
    amount,
    distinct,
    frame_table,
    of,
    pairs_table,
    result_entry,
    splits_apart,
)
from iqa_reports.inputs.frames import Cost, Diagnostic, Result
from iqa_reports.papers.published import load_published
from iqa_reports.table_view import Entry, Group, Heading, Notes, TableView, columns, label, measured, missing

NECK_STEP = "neck, forward"
"""Name under which `profile` measures the neck alone."""

Statistic = tuple[str, str]
"""Quantity and statistic."""


def conditioning_table(diagnostics: Sequence[Diagnostic]) -> TableView | None:
    """SRM table 1: condition number and residual of the landmark systems, link by link."""
    return _diagnostic_table(
        diagnostics,
        "conditioning",
        "srm-1-conditioning",
        "SRM table 1. Conditioning of the regularised landmark systems, in fp32, over images.",
        {
            "κ": [("kappa", "median"), ("kappa", "p90")],
            "residual ρ": [("residual", "median"), ("residual", "p90")],
        },
    )


def scale_table(diagnostics: Sequence[Diagnostic]) -> TableView | None:
    """SRM table 2: scale of attention outputs before and after the rescaler, link by link."""
    return _diagnostic_table(
        diagnostics,
        "scale",
        "srm-2-scale",
        "SRM table 2. Root mean square of attention outputs over √d, before and after γ.",
        {
            "before γ": [("rms_before", "median"), ("rms_before", "p90")],
            "after γ": [("rms_after", "median"), ("rms_after", "p90")],
            "γ": [("gamma", "median"), ("gamma", "min"), ("gamma", "max")],
        },
    )


def neck_cost_table(costs: Sequence[Cost]) -> TableView | None:
    """SRM table 3: what the neck adds in parameters, multiply-adds, time and memory."""
    models = distinct(c.model for c in costs if c.part == "neck")
    if not models:
        return None
    notes = Notes()
    rows = []
    for model in models:
        own = [c for c in costs if c.model == model]
        for size in sorted({c.size for c in own}):
            parts = {c.part: c for c in own if c.size == size}
            neck, whole, step = parts.get("neck"), parts.get("whole"), parts.get(NECK_STEP)
            gone = "not measured; run `iqa-harness profile` with --repeats"
            rows.append(
                [
                    Entry(model, "header"),
                    label(f"{size}, batch {neck.batch if neck else 1}"),
                    amount(neck and neck.parameters, notes, "not counted", 1e6, 3),
                    amount(neck and neck.macs, notes, "not counted", 1e9, 3),
                    amount(whole and whole.parameters, notes, "not counted", 1e6, 2),
                    amount(whole and whole.macs, notes, "not counted", 1e9, 2),
                    amount(step and step.seconds, notes, gone, 1e-3, 2),
                    amount(step and step.peak_bytes, notes, gone, 1e6, 1),
                    label(f"{step.precision}, {step.device}" if step else ""),
                ]
            )
    numbers = (Heading("parameters (M)", numeric=True), Heading("GMAC", numeric=True))
    return frame_table(
        "srm-3-neck-cost",
        "SRM table 3. What the neck costs, by itself and beside the whole model.",
        ("Model", "Input side"),
        (
            Group("neck", numbers),
            Group("whole model", numbers),
            columns("ms", "peak MB", group="neck, measured"),
            columns("", numeric=False, group="measured with"),
        ),
        rows,
        notes,
        remarks=(
            "GMAC are multiply-adds, attention products included; the paper measures with bf16 on a GPU.",
        ),
    )


def clean_table(results: Sequence[Result]) -> TableView | None:
    """SRM table 6: SROCC and PLCC without attack, every model on every image set."""
    rows_in = splits_apart([r for r in results if r.row == "clean"])
    sets = distinct(r.data for r in rows_in)
    places = [(data, {"data": data}, f"not evaluated on {data}") for data in sets]
    return _by_backbone(
        "6-clean",
        "SRM table 6. Correlation with the labels without attack; brackets are 95 % intervals.",
        rows_in,
        places,
    )


def worst_case_table(results: Sequence[Result]) -> TableView | None:
    """SRM table 8: the suite's minimum by backbone, norm and radius."""
    rows_in = [r for r in results if r.row == "suite_min"]
    places = [
        (
            f"{p.data}, {p.norm} norm, ε = {text.radius(p.epsilon)} ({p.suite})",
            {"row": "suite_min", **p._asdict()},
            f"suite {p.suite} was not run on it at this radius",
        )
        for p in sorted({_place(r) for r in rows_in})
    ]
    return _by_backbone(
        "8-worst-case",
        "SRM table 8. Worst case over the suite's attacks (suite_min), by backbone, norm and radius.",
        rows_in,
        places,
    )


def ablation_table(results: Sequence[Result]) -> TableView | None:
    """SRM table 11: one change of the neck at a time, clean and worst-case SROCC.

    The worst case is suite_min at the largest radius that every variant has.
    """
    rows_in = [r for r in results if r.neck == "srm" and r.metric == "srocc"]
    models = _models(rows_in)
    if len({m.variant for m in models}) < 2:
        return None
    notes = Notes()
    worst = [r for r in rows_in if r.row == "suite_min"]
    place = _common_place(worst, [m.model for m in models])
    clean = {m.model: of(rows_in, m.model, "srocc", data=m.data) for m in models}
    robust = {
        m.model: [] if place is None else [r for r in worst if r.model == m.model and _place(r) == place]
        for m in models
    }
    full = next((m.model for m in models if m.variant in (None, "none")), None)
    rows = []
    for first in models:
        row = [Entry(first.model, "header"), label(first.variant or "none")]
        for values, gone in ((clean, "no clean value"), (robust, "no worst case at a radius all share")):
            found = values[first.model]
            row.append(result_entry(found, notes, gone))
            row.append(_distance(found, values.get(full or "", []), notes))
        rows.append(row)
    at = ""
    if place is not None:
        at = f" at ε = {text.radius(place.epsilon)}, {place.norm} norm ({place.suite}, {place.data})"
    pair = (Heading("SROCC", numeric=True), Heading("Δ to full", numeric=True))
    return frame_table(
        "srm-11-ablation",
        f"SRM table 11. One change at a time: clean and worst case over the suite{at}.",
        ("Model", "Change"),
        (Group("clean", pair), Group("suite_min", pair)),
        rows,
        notes,
        best=(2, 4),
        remarks=load_published().claims_on("srm", "11"),
    )


# Parts ---------------------------------------------------------------------------------------------


def _by_backbone(
    name: str, caption: str, results: Sequence[Result], places: Sequence[tuple[str, dict[str, Any], str]]
) -> TableView | None:
    if not results:
        return None
    models = [(_stub(r), r.model) for r in _models(results)]
    claims = load_published().claims_on("srm", name.partition("-")[0])
    return pairs_table(f"srm-{name}", caption, ("Model", "Backbone", "Neck"), models, results, places, claims)


def _diagnostic_table(
    diagnostics: Sequence[Diagnostic], kind: str, name: str, caption: str, groups: dict[str, list[Statistic]]
) -> TableView | None:
    rows_in = [d for d in diagnostics if d.table == kind]
    if not rows_in:
        return None
    notes = Notes()
    values = {(d.model, d.place, d.quantity, d.statistic): d.value for d in rows_in}
    rows = []
    for model in distinct(d.model for d in rows_in):
        for place in distinct(d.place for d in rows_in if d.model == model):
            row = [Entry(model, "header"), label("all links" if place == "all" else place)]
            for statistics in groups.values():
                for quantity, statistic in statistics:
                    value = values.get((model, place, quantity, statistic))
                    row.append(measured(value, _short, notes, f"missing: {quantity} was not recorded"))
            rows.append(row)
    return frame_table(
        name,
        caption,
        ("Model", "Link"),
        tuple(
            Group(label_, tuple(Heading(statistic, numeric=True) for _, statistic in statistics))
            for label_, statistics in groups.items()
        ),
        rows,
        notes,
    )


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", text.MINUS)


def _models(rows: Sequence[Result]) -> list[Result]:
    """Return the first row of every model, halves of a pair side by side."""
    firsts = {r.model: r for r in reversed(rows)}
    ordered: Callable[[Result], tuple[str, str, str]] = lambda r: (r.backbone or "~", r.neck or "~", r.model)  # noqa: E731
    return sorted(firsts.values(), key=ordered)


def _stub(first: Result) -> list[Entry]:
    neck = {"srm": "SRM", "baseline": "none (baseline)"}.get(first.neck or "", "")
    return [Entry(first.model, "header"), label(first.backbone), label(neck)]


class Place(NamedTuple):
    """Where a worst case is of."""

    data: str
    suite: str
    norm: str
    epsilon: float


def _place(result: Result) -> Place:
    return Place(result.data, result.suite, result.norm, result.epsilon)


def _common_place(worst: Sequence[Result], models: Sequence[str]) -> Place | None:
    """Return the place with the largest radius that every model has a value in."""
    have = [{_place(r) for r in worst if r.model == model} for model in models]
    common = set.intersection(*have) if have else set()
    return max(common, key=lambda place: (place.epsilon, place), default=None)


def _distance(found: Sequence[Result], full: Sequence[Result], notes: Notes) -> Entry:
    values = [rows[0].value for rows in (found, full) if len(rows) == 1]
    if len(values) < 2 or values[0] is None or values[1] is None:
        return missing(notes, "missing: no value of the full model beside it")
    change = values[0] - values[1]
    return Entry(text.signed(change), "number", number=change)
