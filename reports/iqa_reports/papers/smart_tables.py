"""The tables of the SMART-IQA paper from whatever was measured, published values beside ours if wanted.

Each returns None without own input. A published row says so in its column Source and is never marked best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from iqa_reports import text
from iqa_reports.inputs.frame_entries import (
    amount,
    distinct,
    frame_table,
    metric_groups,
    of,
    result_entry,
    splits_apart,
)
from iqa_reports.inputs.frames import Epoch, Result, Setting, rows_of
from iqa_reports.papers.published import PublishedTable, load_published
from iqa_reports.table_view import Entry, Group, Heading, Notes, TableView, label, measured, with_best

PAPER = "smart-iqa"
FUSIONS = ("last", "afa", "attention")
"""Fusions of the ablation, from the least to the full model."""

LOG_COLUMNS = ("loss", "train_srocc", "train_plcc", "val_srocc", "val_plcc", "test_srocc", "test_plcc")
"""Columns of the training log that are shown where a log has them."""


def comparison_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table I: every evaluated model on each image set, SROCC and PLCC (RESULTS)."""
    rows_in = _clean(results)
    if not rows_in:
        return None
    notes, sets = Notes(), distinct(r.data for r in rows_in)
    rows = [
        [Entry(r.model, "header"), label(r.backbone), _ours(), *_pairs(rows_in, r.model, sets, notes)]
        for r in _firsts(rows_in)
    ]
    table = load_published().table(PAPER, "comparison")
    marked = _with_best(rows, range(3, 3 + 2 * len(sets)))
    if published and table.data in sets:
        for record in table.records():
            row = [Entry(str(record["method"]), "header"), label(str(record["backbone"])), _theirs(table)]
            marked.append([*row, *_published_pairs(record, table.data, sets, notes)])
    return frame_table(
        "smart-1-comparison",
        "SMART table I. Comparison of models without attack.",
        ("Model", "Backbone", "Source"),
        metric_groups(sets),
        marked,
        notes,
        remarks=_remarks(table, published and table.data in sets),
    )


def fusion_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table II: backbone only, + AFA, + attention (RESULTS; the fusion is the variant)."""
    rows_in = [r for r in _clean(results) if r.variant in FUSIONS]
    if len({r.variant for r in rows_in}) < 2:
        return None
    notes, sets = Notes(), distinct(r.data for r in rows_in)
    rows = [
        [
            Entry(r.model, "header"),
            label("no" if r.variant == "last" else "yes"),
            label("yes" if r.variant == "attention" else "no"),
            _ours(),
            *_pairs(rows_in, r.model, sets, notes),
        ]
        for r in sorted(_firsts(rows_in), key=lambda r: FUSIONS.index(r.variant or "last"))
    ]
    table = load_published().table(PAPER, "ablation")
    marked = _with_best(rows, range(4, 4 + 2 * len(sets)))
    if published and table.data in sets:
        for record in table.records():
            stub = [Entry(str(record["method"]), "header"), label(str(record["afa"]))]
            stub += [label(str(record["attention"])), _theirs(table)]
            marked.append([*stub, *_published_pairs(record, table.data, sets, notes)])
    return frame_table(
        "smart-2-ablation",
        "SMART table II. What each component contributes.",
        ("Model", "AFA", "Attention", "Source"),
        metric_groups(sets),
        marked,
        notes,
        remarks=_remarks(table, published and table.data in sets),
    )


def cross_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table III: models on image sets they were not trained on (RESULTS), the own set beside them."""
    rows_in = [r for r in _clean(results) if r.trained_on is not None]
    if not any(r.data != r.trained_on for r in rows_in):
        return None
    notes, sets = Notes(), distinct(r.data for r in rows_in)
    rows = [
        [Entry(r.model, "header"), label(r.trained_on), _ours(), *_pairs(rows_in, r.model, sets, notes)]
        for r in _firsts(rows_in)
    ]
    table = load_published().table(PAPER, "cross")
    records = [r for r in table.records() if r["data"] in sets]
    marked = _with_best(rows, range(3, 3 + 2 * len(sets)))
    shown = published and bool(records)
    for method in distinct(str(r["method"]) for r in records) if published else []:
        entries = [Entry(method, "header"), label("koniq10k"), _theirs(table)]
        for data in sets:
            own = next((r for r in records if (r["method"], r["data"]) == (method, data)), None)
            entries += [_published(None if own is None else own[m], notes) for m in ("srocc", "plcc")]
        marked.append(entries)
    return frame_table(
        "smart-3-cross-data-set",
        "SMART table III. Image sets a model was not trained on, without fine-tuning.",
        ("Model", "Trained on", "Source"),
        metric_groups(sets),
        marked,
        notes,
        remarks=_remarks(table, shown),
    )


def size_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table IV: parameters and multiply-adds beside SROCC and PLCC (RESULTS)."""
    rows_in = [r for r in _clean(results) if r.parameters is not None]
    if not rows_in:
        return None
    notes, sets = Notes(), distinct(r.data for r in rows_in)
    rows = [
        [
            Entry(r.model, "header"),
            _ours(),
            amount(r.parameters, notes, "", 1e6, 2),
            amount(r.macs, notes, "multiply-adds were not counted", 1e9, 2),
            *_pairs(rows_in, r.model, sets, notes),
        ]
        for r in sorted(_firsts(rows_in), key=lambda r: (r.parameters or 0, r.model))
    ]
    table = load_published().table(PAPER, "sizes")
    marked = _with_best(rows, range(4, 4 + 2 * len(sets)))
    if published and table.data in sets:
        for record in table.records():
            size = float(record["parameters_millions"])
            stub = [Entry(str(record["method"]), "header"), _theirs(table)]
            stub += [Entry(f"{size:.0f}", "number", number=size), _published(None, notes)]
            marked.append([*stub, *_published_pairs(record, table.data, sets, notes)])
    numbers = (Heading("parameters (M)", numeric=True), Heading("GMAC", numeric=True))
    return frame_table(
        "smart-4-sizes",
        "SMART table IV. Accuracy and size.",
        ("Model", "Source"),
        (Group("cost", numbers), *metric_groups(sets)),
        marked,
        notes,
        remarks=_remarks(table, published and table.data in sets),
    )


def settings_table(settings: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table V: every setting of every model side by side (SETTINGS)."""
    rows_in = rows_of(settings, Setting)
    if not rows_in:
        return None
    notes, models = Notes(), distinct(s.model for s in rows_in)
    values = {(s.model, s.setting): s.value for s in rows_in}
    rows = []
    for category, setting in dict.fromkeys((s.category, s.setting) for s in rows_in):
        row = [Entry(setting, "header"), label(category)]
        for model in models:
            value = values.get((model, setting))
            gone = Entry(
                text.DASH, "missing", mark=notes.mark("the model has no such setting, or none known")
            )
            row.append(gone if value is None else label(value))
        rows.append(row)
    table = load_published().table(PAPER, "hyperparameters")
    return frame_table(
        "smart-5-settings",
        "SMART table V. Settings of the models and of their training.",
        ("Setting", "Of"),
        tuple(Group(model, (Heading("", numeric=False),)) for model in models),
        rows,
        notes,
        remarks=_remarks(table, published),
    )


def published_settings_table() -> TableView:
    """SMART table V as the paper prints it, wholly published."""
    table = load_published().table(PAPER, "hyperparameters")
    rows = [[Entry(str(row[0]), "header"), *(label(str(value)) for value in row[1:])] for row in table.rows]
    return frame_table(
        "smart-5-settings-published",
        "SMART table V as published. None of these values is ours.",
        ("Setting",),
        tuple(Group(name, (Heading("", numeric=False),)) for name in table.columns[1:]),
        rows,
        Notes(),
        remarks=_remarks(table, True),
    )


def log_table(training: pa.Table, model: str) -> TableView | None:
    """SMART table VI: one training run, epoch by epoch (TRAINING)."""
    rows_in = [e for e in rows_of(training, Epoch) if e.model == model and not e.place]
    quantities = [name for name in LOG_COLUMNS if any(e.quantity == name for e in rows_in)]
    if not quantities:
        return None
    notes = Notes()
    values = {(e.epoch, e.quantity): e.value for e in rows_in}
    chosen = {e.epoch for e in rows_in if e.best}
    rows = []
    for epoch in sorted({e.epoch for e in rows_in}):
        row = [Entry(str(epoch), "header"), label("chosen" if epoch in chosen else "")]
        row += [
            measured(values.get((epoch, name)), _four, notes, f"no {name} at this epoch")
            for name in quantities
        ]
        rows.append(row)
    return frame_table(
        f"smart-6-log-{model}",
        f"SMART table VI. Training log of {model}.",
        ("Epoch", "Chosen"),
        tuple(Group(name.replace("_", " "), (Heading("", numeric=True),)) for name in quantities),
        rows,
        notes,
    )


def published_log_table() -> TableView:
    """SMART table VI as the paper prints it, wholly published."""
    table, notes = load_published().table(PAPER, "log"), Notes()
    rows = [
        [Entry(str(row[0]), "header"), *(_published(value, notes) for value in row[1:])] for row in table.rows
    ]
    return frame_table(
        "smart-6-log-published",
        "SMART table VI as published. None of these values is ours.",
        ("Epoch",),
        tuple(Group(name.replace("_", " "), (Heading("", numeric=True),)) for name in table.columns[1:]),
        rows,
        notes,
        remarks=_remarks(table, True),
    )


def loss_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table VII: one model trained with several losses (RESULTS)."""
    rows_in = [r for r in _clean(results) if r.loss is not None]
    if len({r.loss for r in rows_in}) < 2:
        return None
    notes, sets = Notes(), distinct(r.data for r in rows_in)
    rows = [
        [label(r.loss), label(r.model), _ours(), *_pairs(rows_in, r.model, sets, notes)]
        for r in _firsts(rows_in)
    ]
    table = load_published().table(PAPER, "losses")
    marked = _with_best(rows, range(3, 3 + 2 * len(sets)))
    if published and table.data in sets:
        for record in table.records():
            row = [label(str(record["loss"])), label("SMART-IQA base"), _theirs(table)]
            marked.append([*row, *_published_pairs(record, table.data, sets, notes)])
    return frame_table(
        "smart-7-losses",
        "SMART table VII. Training losses.",
        ("Loss", "Model", "Source"),
        metric_groups(sets),
        marked,
        notes,
        remarks=_remarks(table, published and table.data in sets),
    )


# Parts ---------------------------------------------------------------------------------------------


def _clean(results: pa.Table) -> list[Result]:
    return splits_apart([r for r in rows_of(results, Result) if r.row == "clean"])


def _firsts(rows: Sequence[Result]) -> list[Result]:
    firsts: dict[str, Result] = {}
    for row in rows:
        firsts.setdefault(row.model, row)
    return list(firsts.values())


def _pairs(rows: Sequence[Result], model: str, sets: Sequence[str], notes: Notes) -> list[Entry]:
    return [
        result_entry(of(rows, model, metric, data=data), notes, f"not evaluated on {data}")
        for data in sets
        for metric in ("srocc", "plcc")
    ]


def _published_pairs(
    record: dict[str, str | int | float], data: str, sets: Sequence[str], notes: Notes
) -> list[Entry]:
    return [
        _published(record[metric] if name == data else None, notes, digits=4)
        for name in sets
        for metric in ("srocc", "plcc")
    ]


def _published(value: str | int | float | None, notes: Notes, digits: int = 4) -> Entry:
    write: Callable[[float], str] = lambda number: f"{number:.{digits}f}"  # noqa: E731
    number = None if value is None or isinstance(value, str) else float(value)
    return measured(number, write, notes, "not in the published table")


def _four(value: float) -> str:
    return text.number(value, 4)


def _ours() -> Entry:
    return label("measured here")


def _theirs(table: PublishedTable) -> Entry:
    return label(f"published, table {table.table}")


def _with_best(rows: Sequence[Sequence[Entry]], columns: Sequence[int]) -> list[list[Entry]]:
    return [list(row) for row in with_best(rows, columns)]


def _remarks(table: PublishedTable, shown: bool) -> list[str]:
    if not shown:
        return []
    paper = load_published().papers[table.paper]
    note = f"; {table.note}" if table.note else ""
    return [f"published: {paper.title}, table {table.table} ({paper.source}; {paper.caveat}{note})"]
