"""What the models of a run are: the table of what their cards say."""

from __future__ import annotations

import re
from pathlib import Path

from iqa_reports import text
from iqa_reports.inputs.stored_run import StoredRun
from iqa_reports.table_view import Entry, Group, Heading, TableView, stub

_TRAINED = ("trained on ", "head has random weights")
"""How the notes of a card begin that say what its model was trained on."""

_VENUE = re.compile(r", ([^,]*[^,\d ][^,]*,? (?:19|20)\d\d)$")
"""The end of a source that names where and when it was published: ", CVPR 2020"."""


def models_table(view: StoredRun) -> TableView:
    """Return what the card of each model says: what it was trained on, where it was published, its source."""
    rows = []
    records = {m.name: m for m in view.manifest.models}
    for _, model in view.ranking():
        record = records[model]
        card = {name: str(value) for name, value in record.card.items() if value and isinstance(value, str)}
        source, venue = card.get("source", ""), _VENUE.search(card.get("source", ""))
        said = record.card.get("notes")
        trained = (
            [str(note) for note in said if str(note).startswith(_TRAINED)] if isinstance(said, list) else []
        )
        trained = [note.removeprefix(_TRAINED[0]) for note in trained]
        words = ("; ".join(trained), venue[1] if venue else "", source[: venue.start()] if venue else source)
        weights = "by name" if record.checkpoint is None else Path(record.checkpoint).name
        rows.append(
            (
                Entry(model, "header"),
                *(Entry(w or "not said", "label") for w in words),
                *(Entry(card.get(key, ""), "label") for key in ("summary", "trunk", "input_protocol")),
                Entry(f"{weights}, sha256 {record.sha256[:12]}", "label"),
            )
        )
    labels = ("Trained on", "Venue", "Source", "What it is", "Backbone", "Input", "Weights")
    return TableView(
        name="models",
        caption=f"What the card of each model says. {text.setting(view.manifest)}",
        stub=stub("Model"),
        groups=(Group("", tuple(Heading(label, numeric=False) for label in labels)),),
        rows=tuple(rows),
        notes=(),
    )
