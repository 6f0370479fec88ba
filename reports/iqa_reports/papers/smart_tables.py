"""The tables of the SMART-IQA paper from whatever was measured, published values beside ours if wanted.

Each is there only with own input. A published row says so in its column Source and is never marked best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from iqa_reports import text
from iqa_reports.inputs.frame_entries import (
    amount,
    distinct,
    frame_table,
    metric_groups,
    pair_entries,
    splits_apart,
)
from iqa_reports.inputs.frames import Epoch, Result, Setting
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


def smart_tables(results: Sequence[Result], *, published: bool = False) -> Iterator[TableView]:
    """Yield SMART tables I to IV and VII, those that the results hold enough for."""
    clean = splits_apart([r for r in results if r.row == "clean"])
    for form in _FORMS:
        own = [r for r in clean if form.chosen(r)]
        if form.is_enough(own):
            yield _beside(form, own, published)


def settings_table(settings: Sequence[Setting]) -> TableView | None:
    """SMART table V: every setting of every model side by side."""
    if not settings:
        return None
    notes, models = Notes(), distinct(s.model for s in settings)
    values = {(s.model, s.setting): s.value for s in settings}
    rows = []
    for category, setting in dict.fromkeys((s.category, s.setting) for s in settings):
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


def published_tables() -> Iterator[TableView]:
    """Yield SMART tables V and VI as the paper prints them, wholly published."""
    for printed, name, first, numeric in (
        ("hyperparameters", "5-settings", "Setting", False),
        ("log", "6-log", "Epoch", True),
    ):
        table, notes = load_published().table(PAPER, printed), Notes()
        rows = [
            [
                Entry(str(key), "header"),
                *(_published(value, notes) if numeric else label(str(value)) for value in values),
            ]
            for key, *values in table.rows
        ]
        yield frame_table(
            f"smart-{name}-published",
            f"SMART table {table.table} as published. None of these values is ours.",
            (first,),
            [columns("", numeric=numeric, group=group.replace("_", " ")) for group in table.columns[1:]],
            rows,
            notes,
            remarks=_remarks(table, True),
        )


def log_table(epochs: Sequence[Epoch], model: str) -> TableView | None:
    """SMART table VI: one training run, epoch by epoch."""
    rows_in = [e for e in epochs if e.model == model and not e.place]
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
    chosen: Callable[[Result], bool] = lambda r: True
    """Which results it is of."""
    is_enough: Callable[[Sequence[Result]], bool] = bool
    """Whether these make a table."""
    order: Callable[[Result], Any] = lambda r: 0
    """What models are sorted by; they stay in the order met where it is equal."""
    further: tuple[Group, ...] = ()
    """Columns between the heads and the pairs."""


_FORMS = (
    _Form(
        "comparison",
        "smart-1-comparison",
        "SMART table I. Comparison of models without attack.",
        ("Model", "Backbone", "Source"),
        lambda r, notes: [Entry(r.model, "header"), label(r.backbone)],
        lambda r, notes: [Entry(str(r["method"]), "header"), label(str(r["backbone"]))],
    ),
    _Form(
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
        chosen=lambda r: r.variant in FUSIONS,
        is_enough=lambda own: len({r.variant for r in own}) > 1,
        order=lambda r: FUSIONS.index(r.variant or "last"),
    ),
    _Form(
        "cross",
        "smart-3-cross-data-set",
        "SMART table III. Image sets a model was not trained on, without fine-tuning.",
        ("Model", "Trained on", "Source"),
        lambda r, notes: [Entry(r.model, "header"), label(r.trained_on)],
        lambda r, notes: [Entry(str(r["method"]), "header"), label("koniq10k")],
        chosen=lambda r: r.trained_on is not None,
        is_enough=lambda own: any(r.data != r.trained_on for r in own),
    ),
    _Form(
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
        chosen=lambda r: r.parameters is not None,
        order=lambda r: (r.parameters or 0, r.model),
        further=(columns("parameters (M)", "GMAC", group="cost"),),
    ),
    _Form(
        "losses",
        "smart-7-losses",
        "SMART table VII. Training losses.",
        ("Loss", "Model", "Source"),
        lambda r, notes: [label(r.loss), label(r.model)],
        lambda r, notes: [label(str(r["loss"])), label("SMART-IQA base")],
        chosen=lambda r: r.loss is not None,
        is_enough=lambda own: len({r.loss for r in own}) > 1,
    ),
)


def _beside(form: _Form, results: Sequence[Result], published: bool) -> TableView:
    """Return a table of our results, a row a model, with the paper's rows below them if wanted."""
    notes, sets, place = Notes(), distinct(r.data for r in results), len(form.heads) - 1
    pairs = [(data, metric) for data in sets for metric in ("srocc", "plcc")]
    on_sets = [({"data": data}, f"not evaluated on {data}") for data in sets]
    rows = []
    firsts = [next(r for r in results if r.model == name) for name in distinct(r.model for r in results)]
    for first in sorted(firsts, key=form.order):
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


def _published(value: str | int | float | None, notes: Notes) -> Entry:
    number = None if value is None or isinstance(value, str) else float(value)
    return measured(number, lambda value: f"{value:.4f}", notes, "not in the published table")


def _remarks(table: PublishedTable, shown: bool) -> list[str]:
    if not shown:
        return []
    paper = load_published().papers[table.paper]
    note = f"; {table.note}" if table.note else ""
    return [f"published: {paper.title}, table {table.table} ({paper.source}; {paper.caveat}{note})"]
