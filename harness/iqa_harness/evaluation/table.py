"""One table over several calls of `evaluate`: what a new call leaves of former ones, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from iqa_harness.evaluation.store import EVALUATION, Evaluated, Evaluation
from iqa_reports import Entry, TableView, text
from iqa_reports.table_view import Notes, columns, label, stub

_KEY: Final = ("model", "data", "split")
_CALL: Final = ("written", "eot_samples", "seed", "provenance")
"""What a manifest says of one call, not of models and sets."""


def join(former: Evaluated | None, new: Evaluated) -> tuple[Evaluated, tuple[str, ...]]:
    """Add new rows to those of former calls; a row of the same model, set and split is replaced.

    Former rows of a model that now has other weights go: under one name a table shows one model. Sets need no
    such rule, `evaluation.name_sets` gives another set another name.

    Args:
        former: what is there under the name, None if nothing is.
        new: what was computed now.

    Returns:
        Tables and manifest as they are to be written, and in words the former rows that could not stay.
    """
    if former is None:
        return new, ()
    rows = new.rows.to_pylist()
    weights = {row["model"]: row["model_sha256"] for row in rows}
    own = {_key(row): row for row in rows}
    kept: list[dict[str, Any]] = []
    left_out: list[str] = []
    earlier: list[tuple[str, ...]] = []
    for row in former.rows.to_pylist():
        if weights.get(row["model"], row["model_sha256"]) != row["model_sha256"]:
            if _key(row) not in own:
                left_out.append(f"{row['model']} on {row['data']}, {row['split']}: of other weights than now")
            continue
        if _key(row) not in own:
            earlier.append(_key(row))
        kept.append(own.pop(_key(row), row))
    kept += own.values()
    stored = Evaluated(
        EVALUATION.to_table(kept),
        _scores(former.scores, new.scores, earlier),
        _manifest(former.manifest, new.manifest, earlier),
    )
    return stored, tuple(left_out)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in _KEY)


def _scores(former: pa.Table, new: pa.Table, earlier: Iterable[tuple[str, ...]]) -> pa.Table:
    """Return the scores behind all rows, each image of a model and set once."""
    pairs = {key[:2] for key in earlier}
    columns = ("model", "data", "image_id")
    there = set(zip(*(new.column(name).to_pylist() for name in columns), strict=True))
    held = zip(*(former.column(name).to_pylist() for name in columns), strict=True)
    stays = [(model, data) in pairs and (model, data, image) not in there for model, data, image in held]
    return pa.concat_tables([former.filter(pa.array(stays, pa.bool_())), new])


def _manifest(
    former: Mapping[str, Any], new: Mapping[str, Any], earlier: list[tuple[str, ...]]
) -> dict[str, Any]:
    """Return the new manifest with the models and sets of earlier rows, and what their calls were."""
    joined = {**new}
    for part, names, wanted in (
        ("models", ("name",), {key[:1] for key in earlier}),
        ("data", ("name", "split"), {key[1:] for key in earlier}),
    ):
        left = wanted - {tuple(record[name] for name in names) for record in new[part]}
        kept = [record for record in former[part] if tuple(record[name] for name in names) in left]
        joined[part] = [*kept, *new[part]]
    calls = _calls(former, earlier)
    return {**joined, "earlier": calls} if calls else joined


def _calls(former: Mapping[str, Any], earlier: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return the calls that earlier rows are of, each with its rows as (model, set, split)."""
    before = former.get("earlier", [])
    said = [tuple(key) for call in before for key in call["rows"]]
    last = {name: former.get(name) for name in _CALL}
    calls = [*before, {**last, "rows": [list(key) for key in earlier if key not in said]}]
    left = [{**call, "rows": [key for key in call["rows"] if tuple(key) in earlier]} for call in calls]
    return [call for call in left if call["rows"]]


def evaluation_view(table: pa.Table) -> TableView:
    """Return an evaluation as people see it, set by set, with what its numbers must not be taken for."""
    met = table.column("data").to_pylist()
    listed = sorted(EVALUATION.rows(table), key=lambda row: (met.index(row.data), row.split))
    notes, entries = Notes(), []
    former = None
    for row in listed:
        # Calls with another --split put rows of other images of one set into one table.
        place = (row.data, row.split, f"{row.images:,}")
        shown = place if place != former else ("", "", "")
        former = place
        ends = None if row.srocc_low is None or row.srocc_high is None else (row.srocc_low, row.srocc_high)
        interval = "" if ends is None else text.interval(*ends, digits=4)
        marks = "".join(f"({notes.mark(note)})" for note in _notes(row))
        values = [_figure(value) for value in (row.srocc, row.plcc, row.krocc)]
        values[0] = values[0]._replace(interval=interval, bounds=ends)
        entries.append((*map(label, shown), Entry(f"{row.model} {marks}".strip(), "header"), *values))
    groups = (columns("SROCC [95 %]", "PLCC", "KROCC"),)
    heads = stub("data", "split", "images", "model")
    noted = tuple((f"({mark})", note) for mark, note in notes.listed())
    return TableView("evaluation", "", heads, groups, tuple(entries), noted)


def _figure(value: float | None) -> Entry:
    if value is None:
        return Entry("undefined", "undefined")
    return Entry(text.number(value, 4), "number", number=value)


def _notes(row: Evaluation) -> list[str]:
    """Return what must be said about a row."""
    notes = []
    if row.label == "pseudo-MOS":
        notes.append("labels are pseudo-MOS: for comparing models on equal terms, no human quality")
    if row.trained_on == "this set, divided otherwise":
        notes.append("trained on the same pictures divided otherwise: some of these may have been trained on")
    chosen_on_test = row.trained_on == "this set, chosen on test"
    if chosen_on_test and row.split in ("test", "all"):
        notes.append("the epoch was chosen by these images, as its authors do: the figures flatter")
    elif (chosen_on_test and row.split == "train") or (row.trained_on == "this set" and row.split != "test"):
        notes.append("images of this split were used in training")
    if row.mapping.startswith("none"):
        notes.append("PLCC of raw scores: no logistic could be fitted")
    elif row.mapping != "logistic on val":
        notes.append("the logistic of PLCC was fitted on the evaluated images themselves")
    if row.undefined:
        notes.append(f"undefined: {row.undefined}")
    return notes
