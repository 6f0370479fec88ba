"""Each table of a report: one function from a run's view to rows of worded entries, for every format."""

from __future__ import annotations

from typing import Literal, NamedTuple

from iqa_reports import text
from iqa_reports.run_view import METRICS, WORST_CASES, Estimate, Member, Metric, RunView, same

Kind = Literal["header", "label", "number", "undefined", "missing"]


class Entry(NamedTuple):
    """One entry of a table."""

    text: str
    kind: Kind
    interval: str = ""
    mark: str = ""
    """Letter of the note that explains the entry."""


class Heading(NamedTuple):
    """Heading of one column."""

    label: str
    numeric: bool


class Group(NamedTuple):
    """Columns that belong together under one label; narrow formats break between groups only."""

    label: str
    headings: tuple[Heading, ...]


class TableView(NamedTuple):
    """A table ready to be rendered in any format."""

    name: str
    """Identifier, unique in a report."""
    caption: str
    stub: tuple[Heading, ...]
    """Columns that say what a row is about."""
    groups: tuple[Group, ...]
    rows: tuple[tuple[Entry, ...], ...]
    """Entries of a row, stub first."""
    notes: tuple[tuple[str, str], ...]
    """(mark, what it says); the mark is '' where the note is about the whole table."""


class Notes:
    """Notes under a table, lettered in the order they are first needed."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, note: str) -> str:
        """Return the mark of a note, the same for the same words."""
        return self._marks.setdefault(note, _letters(len(self._marks)))

    def listed(self) -> tuple[tuple[str, str], ...]:
        """Return (mark, note) in order."""
        return tuple((mark, note) for note, mark in self._marks.items())


VALUE = Heading("value [95 %]", numeric=True)
"""Heading of a group's own value; formats with one line of headings write the group's label instead."""
_DROP = Heading("drop", numeric=True)
_8BIT = Heading("8-bit", numeric=True)


def leaderboard_table(view: RunView, metric: Metric) -> TableView:
    """Return the leaderboard at the main radius, in one metric; ranks are by SROCC in both."""
    notes, epsilon = Notes(), view.manifest.main_epsilon
    records = {m.name: m for m in view.manifest.models}
    rows = []
    for rank, model in view.ranking():
        clean = view.clean(model, metric)
        row = [
            _rank(view, model, rank, notes),
            Entry(model, "header"),
            _value(view, clean, model, "clean", 0.0, notes),
        ]
        for case in WORST_CASES:
            found = view.worst(model, case, epsilon, metric)
            row += [
                _value(view, found, model, None, epsilon, notes),
                _drop(view, found, model, epsilon, notes),
                _8bit(view, found, model, epsilon, notes),
            ]
        rows.append((*row, Entry(text.checks(records[model]), "label")))
    return TableView(
        name=f"leaderboard-{metric}",
        caption=_caption(view, f"Leaderboard in {metric.upper()} at {_ball(view, epsilon)}.", metric),
        stub=(Heading("#", numeric=True), Heading("Model", numeric=False)),
        groups=(
            Group("clean", (VALUE,)),
            *(Group(case, (VALUE, _DROP, _8BIT)) for case in WORST_CASES),
            Group("Checks", (Heading("before attack", numeric=False),)),
        ),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def attack_table(view: RunView, metric: Metric) -> TableView:
    """Return every attack of the main radius by itself, in one metric."""
    notes, epsilon = Notes(), view.manifest.main_epsilon
    members = view.members(epsilon)
    rows = []
    for _, model in view.ranking():
        row = [Entry(model, "header")]
        for member in members:
            found = view.attacked(model, member, epsilon, metric)
            row += [
                _value(view, found, model, member.attack, epsilon, notes),
                _8bit(view, found, model, epsilon, notes, member.attack),
            ]
        rows.append(tuple(row))
    return TableView(
        name=f"attacks-{metric}",
        caption=_caption(
            view, f"{metric.upper()} under each attack/objective at {_ball(view, epsilon)}.", metric
        ),
        stub=(Heading("Model", numeric=False),),
        groups=tuple(Group(member.label, (VALUE, _8BIT)) for member in members),
        rows=tuple(rows),
        notes=notes.listed() + _outside(view, members),
    )


def epsilon_table(view: RunView, metric: Metric) -> TableView:
    """Return the worst cases at every radius, in one metric."""
    notes, epsilons = Notes(), view.epsilons()
    rows = []
    for _, model in view.ranking():
        for case in WORST_CASES:
            row = [Entry(model, "header"), Entry(case, "label")]
            row.append(_value(view, view.clean(model, metric), model, "clean", 0.0, notes))
            for epsilon in epsilons:
                found = view.worst(model, case, epsilon, metric)
                row.append(_value(view, found, model, None, epsilon, notes))
            rows.append(tuple(row))
    return TableView(
        name=f"epsilons-{metric}",
        caption=_caption(view, f"Worst case by radius in {metric.upper()}.", metric),
        stub=(Heading("Model", numeric=False), Heading("Worst case", numeric=False)),
        groups=(
            Group("clean", (VALUE,)),
            *(Group(f"ε = {text.radius(epsilon)}", (VALUE,)) for epsilon in epsilons),
        ),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def checks_table(view: RunView) -> TableView:
    """Return what was checked on every model before any attack."""
    rows = []
    for record in view.manifest.models:
        for name, check in record.checks.items():
            found = check if isinstance(check, dict) else {}
            rows.append(
                (
                    Entry(record.name, "header"),
                    Entry(name, "label"),
                    _measured(found.get("value")),
                    _measured(found.get("threshold")),
                    Entry("passed" if found.get("passed") is True else "FAILED", "label"),
                    Entry(str(found.get("detail") or ""), "label"),
                )
            )
    return TableView(
        name="checks",
        caption=f"Checks of each model before any attack. {text.setting(view.manifest)}",
        stub=(Heading("Model", numeric=False), Heading("Check", numeric=False)),
        groups=(
            Group("measured", (Heading("value", numeric=True), Heading("threshold", numeric=True))),
            Group("verdict", (Heading("result", numeric=False), Heading("detail", numeric=False))),
        ),
        rows=tuple(rows),
        notes=(),
    )


def all_tables(view: RunView) -> list[TableView]:
    """Return every table of a report, in the order of reading."""
    return [
        *(leaderboard_table(view, metric) for metric in METRICS),
        *(attack_table(view, metric) for metric in METRICS),
        *(epsilon_table(view, metric) for metric in METRICS),
        checks_table(view),
    ]


# Entries -------------------------------------------------------------------------------------------


def _value(
    view: RunView, found: Estimate | None, model: str, attack: str | None, epsilon: float, notes: Notes
) -> Entry:
    if found is None:
        return Entry(text.DASH, "missing", mark=notes.mark(_why_missing(view, model, attack, epsilon)))
    if found.value is None:
        return _undefined(found, notes)
    interval = "" if found.low is None or found.high is None else text.interval(found.low, found.high)
    mark = ""
    if found.images < view.manifest.data.images:
        planned = text.count(view.manifest.data.images, "image")
        mark = notes.mark(f"from {found.images:,} of {planned}: the rest is missing")
    return Entry(text.number(found.value), "number", interval, mark)


def _drop(view: RunView, found: Estimate | None, model: str, epsilon: float, notes: Notes) -> Entry:
    if found is None:
        return Entry(text.DASH, "missing", mark=notes.mark(_why_missing(view, model, None, epsilon)))
    if found.value is None or found.clean is None:
        return _undefined(found, notes)
    return Entry(text.signed(found.value - found.clean), "number")


def _8bit(
    view: RunView, found: Estimate | None, model: str, epsilon: float, notes: Notes, attack: str | None = None
) -> Entry:
    if found is None:
        return Entry(text.DASH, "missing", mark=notes.mark(_why_missing(view, model, attack, epsilon)))
    if found.value_8bit is not None:
        return Entry(text.number(found.value_8bit), "number")
    if found.value is None:
        return _undefined(found, notes)
    return Entry(text.DASH, "missing", mark=notes.mark("no value after rounding to 8 bits is defined"))


def _undefined(found: Estimate, notes: Notes) -> Entry:
    return Entry(
        "undefined", "undefined", mark=notes.mark(f"undefined: {found.undefined or 'no reason given'}")
    )


def _rank(view: RunView, model: str, rank: int | None, notes: Notes) -> Entry:
    if rank is None:
        reason = (
            "suite_min SROCC has no value" if view.is_sound(model) else "a check before the attack failed"
        )
        return Entry(text.DASH, "missing", mark=notes.mark(f"not ranked: {reason}"))
    return Entry(str(rank), "number")


def _measured(value: object) -> Entry:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Entry("" if value is None else str(value), "label")
    return Entry(f"{value:.4g}".replace("-", text.MINUS), "number")


def _letters(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ...: letters, since digits beside a number read as part of it."""
    head = _letters(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("a") + index % 26)


# Words ---------------------------------------------------------------------------------------------


def _why_missing(view: RunView, model: str, attack: str | None, epsilon: float) -> str:
    """Say from the plan why a value is not in the table; `attack` None means any attack."""
    cells = [
        c
        for c in view.manifest.cells
        if c.model == model
        and same(c.epsilon, epsilon)
        and (c.attack == attack if attack is not None else c.attack != "clean")
    ]
    failed = [c for c in cells if c.status == "failed"]
    if failed:
        reason = failed[0].error or "no reason given"
        return f"missing: {len(failed)} of {text.count(len(cells), 'cell')} failed ({reason})"
    absent = sum(c.status == "missing" for c in cells)
    if absent:
        return f"missing: {absent} of {text.count(len(cells), 'cell')} not computed yet"
    return "missing: not in the table of this run" if cells else "missing: not in the plan of this run"


def _outside(view: RunView, members: list[Member]) -> tuple[tuple[str, str], ...]:
    others = [m.label for m in members if m.label not in view.manifest.suite_min]
    return (("", f"not members of suite_min: {', '.join(others)}"),) if others else ()


def _ball(view: RunView, epsilon: float) -> str:
    return f"ε = {text.radius(epsilon)}" + (f" in the {view.norm} norm" if view.norm else "")


def _caption(view: RunView, what: str, metric: Metric) -> str:
    mappings = {e.model: e.mapping for e in view.estimates if e.metric == metric and e.value is not None}
    mapped = ""
    if metric == "plcc":
        kinds = sorted(set(mappings.values()) - {"none"})
        mapped = f" Scores mapped by {' / '.join(kinds)}." if kinds else ""
        bare = [model for model, mapping in mappings.items() if mapping == "none"]
        mapped += f" Not mapped, no logistic could be fitted: {', '.join(bare)}." if bare else ""
    return f"{what}{mapped} {text.setting(view.manifest)}"
