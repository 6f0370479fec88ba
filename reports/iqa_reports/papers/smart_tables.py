"""The tables of the SMART-IQA paper from whatever was measured, published values beside ours if wanted.

Each returns None without own input. A published row says so in its column Source and is never marked best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from iqa_reports import text
from iqa_reports.inputs.frame_entries import (
    amount,
    distinct,
    frame_table,
    metric_groups,
    pair_entries,
    splits_apart,
)
from iqa_reports.inputs.frames import Epoch, Result, Setting, rows_of
from iqa_reports.papers.published import PublishedTable, Record, load_published
from iqa_reports.table_view import (
    Entry,
    Group,
    Notes,
    TableView,
    columns,
    label,
    measured,
    missing,
    with_best,
)

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
    form = _Form(
        "comparison",
        "smart-1-comparison",
        "SMART table I. Comparison of models without attack.",
        ("Model", "Backbone", "Source"),
        lambda r, notes: [Entry(r.model, "header"), label(r.backbone)],
        lambda r, notes: [Entry(str(r["method"]), "header"), label(str(r["backbone"]))],
    )
    return _beside(form, _firsts(rows_in), rows_in, published)


def fusion_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table II: backbone only, + AFA, + attention (RESULTS; the fusion is the variant)."""
    rows_in = [r for r in _clean(results) if r.variant in FUSIONS]
    if len({r.variant for r in rows_in}) < 2:
        return None
    form = _Form(
        "ablation",
        "smart-2-ablation",
        "SMART table II. What each component contributes.",
        ("Model", "AFA", "Attention", "Source"),
        lambda r, notes: [
            Entry(r.model, "header"),
            label("no" if r.variant == "last" else "yes"),
            label("yes" if r.variant == "attention" else "no"),
        ],
        lambda r, notes: [
            Entry(str(r["method"]), "header"),
            *(label(str(r[name])) for name in ("afa", "attention")),
        ],
    )
    models = sorted(_firsts(rows_in), key=lambda r: FUSIONS.index(r.variant or "last"))
    return _beside(form, models, rows_in, published)


def cross_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table III: models on image sets they were not trained on (RESULTS), the own set beside them."""
    rows_in = [r for r in _clean(results) if r.trained_on is not None]
    if not any(r.data != r.trained_on for r in rows_in):
        return None
    form = _Form(
        "cross",
        "smart-3-cross-data-set",
        "SMART table III. Image sets a model was not trained on, without fine-tuning.",
        ("Model", "Trained on", "Source"),
        lambda r, notes: [Entry(r.model, "header"), label(r.trained_on)],
        lambda r, notes: [Entry(str(r["method"]), "header"), label("koniq10k")],
    )
    return _beside(form, _firsts(rows_in), rows_in, published)


def size_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table IV: parameters and multiply-adds beside SROCC and PLCC (RESULTS)."""
    rows_in = [r for r in _clean(results) if r.parameters is not None]
    if not rows_in:
        return None
    form = _Form(
        "sizes",
        "smart-4-sizes",
        "SMART table IV. Accuracy and size.",
        ("Model", "Source"),
        lambda r, notes: [
            Entry(r.model, "header"),
            amount(r.parameters, notes, "", 1e6),
            amount(r.macs, notes, "multiply-adds were not counted", 1e9),
        ],
        lambda r, notes: [
            Entry(str(r["method"]), "header"),
            amount(float(r["parameters_millions"]), notes, "", digits=0),
            _published(None, notes),
        ],
        (columns("parameters (M)", "GMAC", group="cost"),),
    )
    models = sorted(_firsts(rows_in), key=lambda r: (r.parameters or 0, r.model))
    return _beside(form, models, rows_in, published)


def settings_table(settings: pa.Table) -> TableView | None:
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
            row.append(
                missing(notes, "the model has no such setting, or none known")
                if value is None
                else label(value)
            )
        rows.append(row)
    return frame_table(
        "smart-5-settings",
        "SMART table V. Settings of the models and of their training.",
        ("Setting", "Of"),
        tuple(columns("", numeric=False, group=model) for model in models),
        rows,
        notes,
    )


def published_settings_table() -> TableView:
    """SMART table V as the paper prints it, wholly published."""
    table = load_published().table(PAPER, "hyperparameters")
    rows = [[Entry(str(row[0]), "header"), *(label(str(value)) for value in row[1:])] for row in table.rows]
    return frame_table(
        "smart-5-settings-published",
        "SMART table V as published. None of these values is ours.",
        ("Setting",),
        tuple(columns("", numeric=False, group=name) for name in table.columns[1:]),
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
            measured(
                values.get((epoch, name)),
                lambda value: text.number(value, 4),
                notes,
                f"no {name} at this epoch",
            )
            for name in quantities
        ]
        rows.append(row)
    return frame_table(
        f"smart-6-log-{model}",
        f"SMART table VI. Training log of {model}.",
        ("Epoch", "Chosen"),
        tuple(columns("", group=name.replace("_", " ")) for name in quantities),
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
        tuple(columns("", group=name.replace("_", " ")) for name in table.columns[1:]),
        rows,
        notes,
        remarks=_remarks(table, True),
    )


def loss_table(results: pa.Table, *, published: bool = False) -> TableView | None:
    """SMART table VII: one model trained with several losses (RESULTS)."""
    rows_in = [r for r in _clean(results) if r.loss is not None]
    if len({r.loss for r in rows_in}) < 2:
        return None
    form = _Form(
        "losses",
        "smart-7-losses",
        "SMART table VII. Training losses.",
        ("Loss", "Model", "Source"),
        lambda r, notes: [label(r.loss), label(r.model)],
        lambda r, notes: [label(str(r["loss"])), label("SMART-IQA base")],
    )
    return _beside(form, _firsts(rows_in), rows_in, published)


# Parts ---------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """What makes one of the tables that hold SROCC and PLCC on every image set."""

    printed: str
    """Name of the paper's own table."""
    name: str
    caption: str
    heads: tuple[str, ...]
    """The last one says where a row is from."""
    ours: Callable[[Result, Notes], list[Entry]]
    """What a row of ours holds before its pairs, but for where it is from."""
    theirs: Callable[[Record, Notes], list[Entry]]
    """The same of a published one."""
    further: tuple[Group, ...] = ()
    """Columns between the heads and the pairs."""


def _beside(form: _Form, models: Sequence[Result], results: Sequence[Result], published: bool) -> TableView:
    """Return a table of our results, a row a model, with the paper's rows below them if wanted."""
    notes, sets, place = Notes(), distinct(r.data for r in results), len(form.heads) - 1
    pairs = [(data, metric) for data in sets for metric in ("srocc", "plcc")]
    on_sets = [({"data": data}, f"not evaluated on {data}") for data in sets]
    rows = []
    for first in models:
        row = form.ours(first, notes)
        row.insert(place, label("measured here"))
        rows.append([*row, *pair_entries(results, first.model, on_sets, notes)])
    marked = [*with_best(rows, range(len(rows[0]) - len(pairs), len(rows[0])))]
    table = load_published().table(PAPER, form.printed)
    records = [r for r in table.records() if published and r.get("data", table.data) in sets]
    for key in distinct(str(r[table.columns[0]]) for r in records):
        own = {r.get("data", table.data): r for r in records if r[table.columns[0]] == key}
        row = form.theirs(next(iter(own.values())), notes)
        row.insert(place, label(f"published, table {table.table}"))
        row += [_published(own[data][m] if data in own else None, notes) for data, m in pairs]
        marked.append(tuple(row))
    groups = (*form.further, *metric_groups(sets))
    remarks = _remarks(table, bool(records))
    return frame_table(form.name, form.caption, form.heads, groups, marked, notes, remarks=remarks)


def _clean(results: pa.Table) -> list[Result]:
    return splits_apart([r for r in rows_of(results, Result) if r.row == "clean"])


def _firsts(rows: Sequence[Result]) -> list[Result]:
    firsts: dict[str, Result] = {}
    for row in rows:
        firsts.setdefault(row.model, row)
    return list(firsts.values())


def _published(value: str | int | float | None, notes: Notes) -> Entry:
    number = None if value is None or isinstance(value, str) else float(value)
    return measured(number, lambda value: f"{value:.4f}", notes, "not in the published table")


def _remarks(table: PublishedTable, shown: bool) -> list[str]:
    if not shown:
        return []
    paper = load_published().papers[table.paper]
    note = f"; {table.note}" if table.note else ""
    return [f"published: {paper.title}, table {table.table} ({paper.source}; {paper.caveat}{note})"]
