"""Each table of a report: one function from a run's view to rows of worded entries, for every format."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iqa_reports import text
from iqa_reports.bracket import bracket_table
from iqa_reports.finding import ball
from iqa_reports.inputs.ranks import Rank
from iqa_reports.inputs.stored_run import METRICS, WORST_CASES, Member, Metric, StoredRun, same
from iqa_reports.models_table import models_table
from iqa_reports.optimality_table import optimality_table
from iqa_reports.power import power_view
from iqa_reports.radii import radii_table
from iqa_reports.table_view import (
    VALUE,
    Entry,
    Group,
    Heading,
    Notes,
    TableView,
    columns,
    measured,
    missing,
    stub,
    undefined,
    valued,
    with_best,
)
from iqa_reports.throughput_table import throughput_table
from iqa_results import Estimate, Flag

_DROP = Heading("drop", numeric=True)
_8BIT = Heading("8-bit", numeric=True)
SUSPECT = "suspect: ranked after all others, for its true worst case is probably lower"
"""Note on the rank of a suspect model."""


def leaderboard_table(view: StoredRun, metric: Metric) -> TableView:
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
        for case in view.cases:
            found = view.worst(model, case, epsilon, metric)
            row += [
                _value(view, found, model, None, epsilon, notes),
                _drop(view, found, model, epsilon, notes),
                _8bit(view, found, model, epsilon, notes),
            ]
        row.append(Entry(view.verdict(model) or "not judged", "label"))
        row.append(Entry(text.checks(records[model]), "label"))
        rows.append((*row, *_cost(view, model, notes)))
    return TableView(
        name=f"leaderboard-{metric}",
        caption=_caption(view, f"Leaderboard in {metric.upper()} at {ball(view)}.{_family(view)}", metric),
        stub=(Heading("#", numeric=True), Heading("Model", numeric=False)),
        groups=(
            Group("clean", (VALUE,)),
            *(Group(case, (VALUE, _DROP, _8BIT)) for case in view.cases),
            columns("numbers", numeric=False, group="Verdict"),
            columns("before attack", numeric=False, group="Checks"),
            columns("gradients", "seconds", group="Cost an image"),
        ),
        rows=_ranked(view, rows, metric, notes),
        notes=notes.listed(),
    )


def short_board(table: TableView) -> TableView:
    """Return of a leaderboard its values and verdicts alone, which 80 columns hold."""
    clean, worst = 2, [3 + 3 * place for place in range(len(WORST_CASES))]
    before = table.groups[: [group.label for group in table.groups].index("Verdict")]
    verdict = len(table.stub) + sum(len(group.headings) for group in before)
    chosen = [0, 1, clean, *worst, verdict]
    rows = tuple(
        tuple(row[place]._replace(interval="") if place == clean else row[place] for place in chosen)
        for row in table.rows
    )
    used = " ".join(entry.mark for row in rows for entry in row)
    return table._replace(
        name=table.name.replace("leaderboard", "board"),
        groups=(
            columns("", group="clean"),
            *(Group(case, (VALUE,)) for case in WORST_CASES),
            columns("", numeric=False, group="Verdict"),
        ),
        rows=rows,
        notes=tuple((mark, note) for mark, note in table.notes if mark in used),
    )


def attack_table(view: StoredRun, metric: Metric) -> TableView:
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
    columns = range(1, 1 + 2 * len(members), 2)
    return TableView(
        name=f"attacks-{metric}",
        caption=_caption(view, f"{metric.upper()} under each attack/objective at {ball(view)}.", metric),
        stub=stub("Model"),
        groups=tuple(Group(member.label, (VALUE, _8BIT)) for member in members),
        rows=with_best(rows, columns, among=_believed(view, rows, 0)),
        notes=notes.listed() + _outside(view, members),
    )


def epsilon_table(view: StoredRun, metric: Metric) -> TableView:
    """Return the worst cases at every radius, in one metric."""
    notes, epsilons = Notes(), view.epsilons()
    rows = []
    for _, model in view.ranking():
        for case in view.cases:
            row = [Entry(model, "header"), Entry(case, "label")]
            row.append(_value(view, view.clean(model, metric), model, "clean", 0.0, notes))
            for epsilon in epsilons:
                found = view.worst(model, case, epsilon, metric)
                row.append(_value(view, found, model, None, epsilon, notes))
            rows.append(tuple(row))
    return TableView(
        name=f"epsilons-{metric}",
        caption=_caption(view, f"Worst case by radius in {metric.upper()}.", metric),
        stub=stub("Model", "Worst case"),
        groups=(
            Group("clean", (VALUE,)),
            *(Group(f"ε = {text.radius(epsilon)}", (VALUE,)) for epsilon in epsilons),
        ),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def checks_table(view: StoredRun) -> TableView:
    """Return what was checked on every model before any attack."""
    rows = []
    for record in view.manifest.models:
        for name, check in record.checks.items():
            rows.append(
                (
                    Entry(record.name, "header"),
                    Entry(name, "label"),
                    _measured(check["value"]),
                    _measured(check["threshold"]),
                    Entry("passed" if check["passed"] else "FAILED", "label"),
                    Entry(str(check["detail"]), "label"),
                )
            )
    return TableView(
        name="checks",
        caption=f"Checks of each model before any attack. {text.setting(view.manifest)}",
        stub=stub("Model", "Check"),
        groups=(
            columns("value", "threshold", group="measured"),
            columns("result", "detail", numeric=False, group="verdict"),
        ),
        rows=tuple(rows),
        notes=(),
    )


def transfer_table(view: StoredRun, metric: Metric) -> TableView | None:
    """Return the values of every model (row) on examples found on every surrogate (column); None without any.

    A transfer attack writes its rows as NAME:SURROGATE; the main radius is shown.
    """
    notes, epsilon = Notes(), view.manifest.main_epsilon
    members = [m for m in view.members(epsilon) if m.surrogate]
    if not members:
        return None
    rows = []
    for _, model in view.ranking():
        row = [
            Entry(model, "header"),
            _value(view, view.clean(model, metric), model, "clean", 0.0, notes),
        ]
        for member in members:
            found = view.attacked(model, member, epsilon, metric)
            if found is None and member.surrogate == model:
                row.append(missing(notes, "a model is no surrogate of itself"))
            else:
                row.append(_value(view, found, model, member.attack, epsilon, notes))
        rows.append(row)
    return TableView(
        name=f"transfer-{metric}",
        caption=_caption(
            view,
            f"Transfer in {metric.upper()} at {ball(view)}: examples found on the surrogate "
            "(column), scored by the model (row).",
            metric,
        ),
        stub=stub("Model"),
        groups=(
            Group("clean", (VALUE,)),
            *(Group(f"from {m.surrogate} ({m.objective})", (VALUE,)) for m in members),
        ),
        rows=with_best(rows, range(2, 2 + len(members)), among=_believed(view, rows, 0)),
        notes=notes.listed(),
    )


def defences_table(view: StoredRun, metric: Metric) -> TableView | None:
    """Return what each defence costs, and is worth against who knows it; None without a defended model.

    Of the examples made without knowing the defence, and of all that who knows it can make, the lowest value
    of a member of suite_min is shown; both are among what that and the composed worst case are over.
    """
    notes, epsilon = Notes(), view.manifest.main_epsilon
    rows = []
    for record in view.manifest.models:
        if record.bare is None:
            continue
        model = record.name
        unaware, adaptive = view.unaware(model, epsilon, metric), view.adaptive(model, epsilon, metric)
        cases = (unaware, [*unaware, *adaptive] if adaptive else [])  # who knows it can do both
        rows.append(
            (
                Entry(model, "header"),
                _value(view, view.clean(record.bare, metric), record.bare, "clean", 0.0, notes),
                _value(view, view.clean(model, metric), model, "clean", 0.0, notes),
                *(_value(view, _lowest(found), model, None, epsilon, notes) for found in cases),
            )
        )
    if not rows:
        return None
    what = (
        f"Defences in {metric.upper()} at {ball(view, epsilon)}: without attack, before and behind the "
        "defence; on examples made against the undefended model; the lower of that and of examples made "
        "against the defended one, by whichever gradient leads further (its stand-in, or straight through) "
        "and over its draws."
    )
    return TableView(
        name=f"defences-{metric}",
        caption=_caption(view, what, metric),
        stub=stub("Model"),
        groups=(
            columns("undefended", "defended", group="clean"),
            *(Group(case, (VALUE,)) for case in ("unaware", "adaptive")),
        ),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def _lowest(found: Sequence[Estimate]) -> Estimate | None:
    """Return the estimate of the lowest value, one that is undefined before all; None of none."""
    return min(found, key=lambda e: -math.inf if e.value is None else e.value, default=None)


def flags_table(view: StoredRun) -> TableView | None:
    """Return every question asked of a model's numbers and its answer; None if nothing was judged."""
    if not view.flags:
        return None
    notes = Notes()
    rows = tuple(
        (Entry(flag.model, "header"), *flag_entries(flag, notes))
        for _, model in view.ranking()
        for flag in view.flags_of(model)
    )
    return TableView(
        name="flags",
        caption=f"Whether the numbers are to be believed. {text.setting(view.manifest)}",
        stub=stub("Model"),
        groups=FLAG_GROUPS,
        rows=rows,
        notes=notes.listed(),
    )


FLAG_GROUPS = (
    columns("", numeric=False, group="Flag"),
    columns("value", "threshold", group="measured"),
    columns("result", "where", numeric=False, group="answer"),
)


def flag_entries(flag: Flag, notes: Notes) -> tuple[Entry, ...]:
    """Return a flag's entries: name, value, threshold, answer, detail."""
    answer = f"RAISED ({flag.severity})" if flag.raised else "not raised" if flag.measured else "not measured"
    return (
        Entry(flag.flag.replace("_", " "), "label"),
        missing(notes, "not measured in this run") if flag.value is None else _measured(flag.value),
        _measured(flag.threshold),
        Entry(answer, "label"),
        Entry(flag.detail, "label"),
    )


def all_tables(view: StoredRun) -> list[TableView]:
    """Return every table of a report, in the order of reading; those without content are left out."""
    found = [
        *(leaderboard_table(view, metric) for metric in METRICS),
        *(attack_table(view, metric) for metric in METRICS),
        optimality_table(view),
        *(epsilon_table(view, metric) for metric in METRICS),
        *(defences_table(view, metric) for metric in METRICS),
        *(transfer_table(view, metric) for metric in METRICS),
        *(bracket_table(view, metric) for metric in METRICS),
        radii_table(view),
        models_table(view),
        flags_table(view),
        power_view(view.power, text.setting(view.manifest)),
        checks_table(view),
        throughput_table(view),
    ]
    return [table for table in found if table is not None]


# Entries -------------------------------------------------------------------------------------------


def _value(
    view: StoredRun, found: Estimate | None, model: str, attack: str | None, epsilon: float, notes: Notes
) -> Entry:
    if found is None:
        return missing(notes, _why_missing(view, model, attack, epsilon))
    if found.value is None:
        return undefined(notes, found.undefined)
    mark = ""
    if found.images < view.manifest.data.images:
        planned = text.count(view.manifest.data.images, "image")
        mark = notes.mark(f"from {found.images:,} of {planned}: the rest is missing")
    return valued(found.value, found.low, found.high, mark=mark)


def _ranked(
    view: StoredRun, rows: list[tuple[Entry, ...]], metric: Metric, notes: Notes
) -> tuple[tuple[Entry, ...], ...]:
    """Mark the best value of clean and of each worst case, and those not told apart from it."""
    epsilon = view.manifest.main_epsilon
    values: dict[int, dict[str, Estimate | None]] = {
        2: {row[1].text: view.clean(row[1].text, metric) for row in rows},
    } | {
        3 + 3 * place: {row[1].text: view.worst(row[1].text, case, epsilon, metric) for row in rows}
        for place, case in enumerate(view.cases)
    }
    marked = [list(row) for row in with_best(rows, values, among=_believed(view, rows, 1))]
    for column, estimates in values.items():
        best = {row[1].text for row in marked if row[column].best}
        for row in marked:
            found = estimates[row[1].text]
            if not row[column].best and found is not None and best & set(found.ties):
                row[column] = row[column]._replace(mark=row[column].mark + notes.dagger())
    return tuple(tuple(row) for row in marked)


def _cost(view: StoredRun, model: str, notes: Notes) -> tuple[Entry, Entry]:
    cost, why = view.costs.get(model), "cost was not recorded"
    return (
        measured(cost and cost.gradients, lambda value: f"{value:,.0f}", notes, why),
        measured(cost and cost.seconds, lambda value: f"{value:,.1f}", notes, why),
    )


def _drop(view: StoredRun, found: Estimate | None, model: str, epsilon: float, notes: Notes) -> Entry:
    if found is None:
        return missing(notes, _why_missing(view, model, None, epsilon))
    if found.value is None or found.clean is None:
        return undefined(notes, found.undefined)
    drop = found.value - found.clean if found.drop is None else found.drop
    return valued(drop, found.drop_low, found.drop_high, signed=True)


def _8bit(
    view: StoredRun,
    found: Estimate | None,
    model: str,
    epsilon: float,
    notes: Notes,
    attack: str | None = None,
) -> Entry:
    if found is None:
        return missing(notes, _why_missing(view, model, attack, epsilon))
    if found.value_8bit is not None:
        return valued(found.value_8bit, None, None)
    if found.value is None:
        return undefined(notes, found.undefined)
    return missing(notes, "no value after rounding to 8 bits is defined")


def _rank(view: StoredRun, model: str, rank: Rank | None, notes: Notes) -> Entry:
    if rank is None:
        reason = "suite_min SROCC has no value"
        if not view.may_rank(model):
            verdict = view.verdict(model)
            reason = (
                f"the verdict on its numbers is {verdict}" if verdict else "a check before the attack failed"
            )
        return missing(notes, f"not ranked: {reason}")
    mark = notes.mark(SUSPECT) if view.is_suspect(model) else ""
    ends = rank.ends
    may = "" if ends is None else f"({ends[0]})" if ends[0] == ends[1] else f"({ends[0]}-{ends[1]})"
    return Entry(str(rank.place), "number", may, mark, rank.place, ends)


def _believed(view: StoredRun, rows: Sequence[Sequence[Entry]], column: int) -> list[int]:
    """Return the places of the rows whose model, named in a column, may be the best of a table."""
    models = [row[column].text for row in rows]
    return [i for i, model in enumerate(models) if view.may_rank(model) and not view.is_suspect(model)]


def _measured(value: object) -> Entry:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Entry("" if value is None else str(value), "label")
    return Entry(f"{value:.4g}".replace("-", text.MINUS), "number", number=float(value))


# Words ---------------------------------------------------------------------------------------------


def _why_missing(view: StoredRun, model: str, attack: str | None, epsilon: float) -> str:
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
    record = next((m for m in view.manifest.models if m.name == model), None)
    if not cells and record is not None and record.card.get("has_gradient") is False:
        return "left out: the model has no gradient"
    return "missing: not in the table of this run" if cells else "missing: not in the plan of this run"


def _outside(view: StoredRun, members: list[Member]) -> tuple[tuple[str, str], ...]:
    others = [m.label for m in members if m.label not in view.manifest.suite_min]
    return (("", f"not members of suite_min: {', '.join(others)}"),) if others else ()


def _family(view: StoredRun) -> str:
    """Say how many comparisons the ranks are one statement about."""
    models = view.family()
    if models is None:
        return ""
    pairs = text.count(models * (models - 1) // 2, "pair")
    return f" Ranks in brackets: {text.count(models, 'model')}, {pairs}, family-wise 95 %."


def _caption(view: StoredRun, what: str, metric: Metric) -> str:
    mappings = {e.model: e.mapping for e in view.estimates if e.metric == metric and e.value is not None}
    mapped = ""
    if metric == "plcc":
        kinds = sorted(set(mappings.values()) - {"none"})
        mapped = f" Scores mapped by {' / '.join(kinds)}." if kinds else ""
        bare = [model for model, mapping in mappings.items() if mapping == "none"]
        mapped += f" Not mapped, no logistic could be fitted: {', '.join(bare)}." if bare else ""
    return f"{what}{mapped} {text.setting(view.manifest)}"
