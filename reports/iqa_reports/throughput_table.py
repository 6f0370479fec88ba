"""What the attacks of a run went at: gradients and images a second, memory, the share of a card's peak."""

from __future__ import annotations

from iqa_reports.inputs.stored_run import StoredRun
from iqa_reports.table_view import Entry, Notes, TableView, columns, measured, stub
from iqa_results import throughput


def throughput_table(view: StoredRun) -> TableView | None:
    """Return what the attacks went at on each kind of device; None if the manifest has no attacked cell."""
    found = throughput(view.manifest)
    if not found:
        return None
    notes, shares = Notes(), any(each.share is not None for each in found)
    rows = []
    for each in found:
        memory = None if each.peak_memory is None else each.peak_memory / 1e9
        row = [
            Entry(each.model, "header"),
            Entry(each.device, "label"),
            Entry(f"{each.gradients:,.1f}", "number", number=each.gradients),
            Entry(f"{each.images:,.2f}", "number", number=each.images),
            measured(memory, lambda value: f"{value:,.2f}", notes, "not recorded"),
        ]
        if shares:
            why = "the card's peak or the model's operations are not known"
            row.append(measured(each.share, lambda value: f"{value:.1%}", notes, why))
        rows.append(tuple(row))
    return TableView(
        name="throughput",
        caption="Throughput: input gradients, and images attacked (each once an attack and radius), a second "
        "of one device.",
        stub=stub("Model", "Device"),
        groups=(
            columns("gradients", "images", group="a second"),
            columns("GB", group="peak memory"),
            *([columns("share of bf16 peak", group="operations")] if shares else ()),
        ),
        rows=tuple(rows),
        notes=notes.listed(),
    )
