"""Which attack is worth its gradients: a row an attack, over the models of a run."""

from __future__ import annotations

from statistics import fmean

from iqa_reports import text
from iqa_reports.finding import ball
from iqa_reports.inputs.stored_run import Optimality, StoredRun
from iqa_reports.table_view import Entry, Notes, TableView, columns, measured, stub, with_best


def optimality_table(view: StoredRun) -> TableView | None:
    """Return how near each attack comes to the envelope of all, best first; None with fewer than two."""
    found: dict[str, list[Optimality]] = {}
    for each in view.optimalities:
        found.setdefault(each.attack, []).append(each)
    if len(found) < 2:
        return None
    notes = Notes()
    falls = {name: [o.fall for o in rows if o.fall is not None] for name, rows in found.items()}
    best_first = sorted(found, key=lambda name: -fmean(falls[name] or [-1.0]))
    rows = [_row(name, falls[name], found[name], notes) for name in best_first]
    models = text.count(len({o.model for o in view.optimalities}), "model")
    return TableView(
        name="optimality",
        caption=f"Optimality of each attack, its objectives together, at {ball(view)}, over {models}: the "
        "area under the most it did against its gradients, over that under the envelope of all attacks; "
        f"each doubling of the cost counts the same, and 1 is the envelope. {text.setting(view.manifest)}",
        stub=stub("Attack"),
        groups=(
            columns("mean", "lowest", "highest", group="by the fall of SROCC"),
            columns("mean", group="by moves"),
            columns("gradients", group="an image"),
        ),
        rows=with_best(rows, (1, 4)),
        notes=(*notes.listed(), ("", "a score without its gradient counts as a third of a gradient")),
    )


def _row(name: str, falls: list[float], rows: list[Optimality], notes: Notes) -> tuple[Entry, ...]:
    moves = [o.move for o in rows if o.move is not None]
    ends = (fmean(falls), min(falls), max(falls)) if falls else (None, None, None)
    return (
        Entry(name, "header"),
        *(measured(end, text.number, notes, "no attack lowers any model's SROCC") for end in ends),
        measured(fmean(moves) if moves else None, text.number, notes, "no attack moves any model's scores"),
        measured(fmean(o.gradients for o in rows), lambda value: f"{value:,.1f}", notes, ""),
    )
