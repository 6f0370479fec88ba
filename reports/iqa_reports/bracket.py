"""The table that has the truth between two sides: what no attack can do, and what attacks found."""

from __future__ import annotations

from iqa_reports import text
from iqa_reports.inputs.stored_run import Metric, StoredRun, WorstCase, same
from iqa_reports.table_view import Entry, Notes, TableView, columns, measured, stub, valued
from iqa_results import Certificate, Estimate

FOUND: tuple[WorstCase, ...] = ("closed_loop", "composed", "suite_min")
"""What attacks found, the strongest adversary first."""


def bracket_table(view: StoredRun, metric: Metric) -> TableView | None:
    """Return the true worst case between its two sides, at every certified radius; None without any."""
    if not view.certificates:
        return None
    notes = Notes()
    cases = [case for case in FOUND if any(e.row == case for e in view.estimates)]
    radii = [e for e in view.epsilons() if any(same(c.epsilon, e) for c in view.certificates)]
    rows = [
        (
            Entry(model, "header"),
            Entry(text.radius(epsilon), "label"),
            _floor(view.certified(model, epsilon, metric), notes),
            *(_found(view.worst(model, case, epsilon, metric), notes) for case in cases),
            _found(view.clean(model, metric), notes),
        )
        for _, model in view.ranking()
        for epsilon in radii
    ]
    return TableView(
        name=f"bracket-{metric}",
        caption=f"Both sides of the worst case in {metric.upper()}, norm {view.norm}: the true one is not "
        f"below what is certified and not above any value found. {text.setting(view.manifest)}",
        stub=stub("Model", "ε"),
        groups=tuple(columns("", group=name) for name in ("certified", *cases, "clean")),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def certificates_table(found: list[Certificate]) -> TableView:
    """Return floors without a run: a row a model, radius and metric."""
    notes = Notes()
    rows = [
        (
            Entry(c.model, "header"),
            Entry(c.metric.upper(), "label"),
            Entry(f"{text.radius(c.epsilon)} in norm {c.norm}", "label"),
            _floor(c, notes),
            Entry(text.DASH, "missing") if c.clean is None else valued(c.clean, None, None),
            Entry(str(c.images), "number", number=c.images),
        )
        for c in found
    ]
    return TableView(
        name="certificates",
        caption="What no attack goes below.",
        stub=stub("Model", "", "ε"),
        groups=tuple(columns("", group=name) for name in ("certified", "clean", "images")),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def _floor(found: Certificate | None, notes: Notes) -> Entry:
    if found is None or found.value is None:
        why = "nobody looked for one" if found is None else found.undefined
        return Entry("no certificate", "undefined", mark=notes.mark(f"no certificate: {why}"))
    how = f"by {found.method}"
    if found.confidence is not None and found.confidence < 1:
        how += f", with confidence {found.confidence:g}, of the exact smoothed score"
    if found.outside:
        moved = text.count(found.outside, "image")
        drawn = found.confidence is not None and found.confidence < 1
        how += (
            f"; by the run's few draws {moved} outside" if drawn else f"; CONTRADICTED by attacks on {moved}"
        )
    return valued(found.value, None, None, mark=notes.mark(how))


def _found(estimate: Estimate | None, notes: Notes) -> Entry:
    why = "not in the table of this run" if estimate is None else estimate.undefined
    return measured(estimate and estimate.value, text.number, notes, f"no value: {why}")
