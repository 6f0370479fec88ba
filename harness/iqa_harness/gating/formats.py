"""What a gate found, for a terminal, a pull request, a test report and a program."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any
from xml.etree import ElementTree

from iqa_harness.gating.regressions import Comparison, Gated, Regression
from iqa_reports import Entry, TableView, markdown_table
from iqa_reports.formats.markdown import escape
from iqa_reports.table_view import columns, label, stub
from iqa_results import Baseline

SHOWN = ("clean", "suite_min", "composed", "verdict")
"""Rows that are always shown; single attacks only if they changed."""


def headline(gated: Gated, before: Baseline, after: Baseline) -> str:
    """Say in one sentence what was found."""
    count = len(gated.regressions)
    found = "no regression" if not count else f"{count} regression{'s' * (count != 1)}"
    if gated.unexplained:
        found += f", {len(gated.unexplained)} unexplained"
    if gated.undecided:
        found += f", {len(gated.undecided)} undecided"
    return (
        f"{found} in {len(gated.comparisons)} values of {len(before.models)} model(s): run {after.run!r} "
        f"against baseline {before.name!r}, suite {before.suite}, {before.images} images of {before.data}"
    )


def sentence(found: Comparison) -> str:
    """Name model, attack, metric, change and interval."""
    where = f" at {found.epsilon * 255:.3g}/255" if found.epsilon else ""
    metric = f" {found.metric.upper()}" if found.metric else ""
    return f"{found.name}{where}{metric}: {found.reason}"


def sensitivity(gated: Gated) -> str:
    """Say which fall would be called worse, of the gated value where it must be largest."""
    values = [c for c in gated.comparisons if c.gated and c.difference is not None]
    if not values:
        return "no gated value could be compared"
    if not any(c.difference for c in values) and all(c.detectable == c.tolerance for c in values):
        return "no gated value moved: there was nothing to tell from chance"
    worst = max(values, key=lambda c: math.inf if c.detectable is None else c.detectable)
    if worst.detectable is None:
        return f"of {worst.name} in {worst.metric.upper()} no fall would be called worse"
    return (
        f"with these images and this noise a fall of {worst.detectable:.3f} or more would be called worse, "
        f"in every gated value (widest: {worst.name} in {worst.metric.upper()})"
    )


def comparison_view(gated: Gated) -> TableView:
    """Return the comparisons as a table for every format; single attacks only if they changed."""
    shown = [c for c in gated.comparisons if c.row in SHOWN or c.gated or c.outcome != "ok"]
    groups = (columns("before", "after", "change [95 %]"), columns("", numeric=False))
    heads = stub("model", "value", "metric")
    return TableView("gate", "", heads, groups, tuple(map(_entries, shown)), ())


def markdown(gated: Gated, before: Baseline, after: Baseline) -> str:
    """Return a summary for a pull request's comment."""
    mark = "\N{CROSS MARK}" if not gated.passed else "\N{WHITE HEAVY CHECK MARK}"
    parts = [f"### {mark} Robustness: {escape(headline(gated, before, after))}"]
    wrong = [
        f"- **{escape(sentence(c))}**" for c in (*gated.regressions, *gated.unexplained, *gated.undecided)
    ]
    parts += ["\n".join(wrong)] * bool(wrong)
    parts.append(markdown_table(comparison_view(gated)))
    tolerances = sorted({c.tolerance for c in gated.comparisons if c.metric})
    if tolerances:
        span = f"{tolerances[0]:.3g}" + (f" to {tolerances[-1]:.3g}" if len(tolerances) > 1 else "")
        parts.append(f"Worse means: fell by more than {span}, and by more than chance (paired bootstrap).")
    parts.append(f"Sensitivity: {escape(sensitivity(gated))}.")
    parts += [f"Note: {escape(note)}." for note in gated.notes]
    return "\n\n".join(parts) + "\n"


def junit(gated: Gated, before: Baseline) -> str:
    """Return the comparisons as JUnit XML, a test case each."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"robustness of {before.suite}",
        tests=str(len(gated.comparisons)),
        failures=str(len(gated.regressions) + len(gated.unexplained)),
        errors=str(len(gated.undecided)),
        skipped=str(sum(c.outcome == "undefined" for c in gated.comparisons)),
        time=f"{sum(c.seconds for c in gated.comparisons):.6f}",
    )
    for c in gated.comparisons:
        name = f"{c.row} {c.attack}/{c.objective} {c.metric}" if c.attack else f"{c.row} {c.metric}"
        case = ElementTree.SubElement(
            suite, "testcase", classname=c.model, name=name.strip(), time=f"{c.seconds:.6f}"
        )
        if isinstance(c, Regression) or c.outcome == "unexplained":
            kind = "Regression" if isinstance(c, Regression) else "Unexplained"
            failure = ElementTree.SubElement(case, "failure", message=c.reason, type=kind)
            failure.text = sentence(c)
        elif c.outcome == "undecided":
            error = ElementTree.SubElement(case, "error", message=c.reason, type="Undecided")
            error.text = sentence(c)
        elif c.outcome == "undefined":
            ElementTree.SubElement(case, "skipped", message=c.reason)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def summary(gated: Gated, before: Baseline, after: Baseline) -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "baseline": before.name,
        "run": after.run,
        "suite": before.suite,
        "suite_sha256": before.suite_sha256,
        "data": before.data,
        "data_sha256": before.data_sha256,
        "passed": gated.passed,
        "regressed": bool(gated.regressions),
        "unexplained": bool(gated.unexplained),
        "undecided": bool(gated.undecided),
        "must_detect": gated.must_detect,
        # Without the time each took: equal runs give equal files.
        "comparisons": [
            {name: value for name, value in dataclasses.asdict(c).items() if name != "seconds"}
            for c in gated.comparisons
        ],
        "notes": gated.notes,
    }


def as_json(gated: Gated, before: Baseline, after: Baseline) -> str:
    """Return everything as JSON."""
    return json.dumps(summary(gated, before, after), indent=1, allow_nan=False) + "\n"


def _entries(c: Comparison) -> tuple[Entry, ...]:
    value = f"{c.row} ({c.attack}/{c.objective})" if c.attack else c.row
    head = (label(c.model), label(value), label(c.metric))
    if c.row == "verdict":
        before, _, after = c.reason.partition(" -> ")
        return (*head, label(before), label(after), label(""), label(c.outcome))
    numbers = (_number(c.before), _number(c.after))
    if c.difference is None:
        return (*head, *numbers, label(""), label(c.reason))
    span = "" if c.low is None or c.high is None else f"[{c.low:+.3f}, {c.high:+.3f}]"
    change = Entry(f"{c.difference:+.3f}", "number", span, number=c.difference)
    return (*head, *numbers, change, label(c.outcome))


def _number(value: float | None) -> Entry:
    if value is None:
        return Entry("undefined", "undefined")
    return Entry(f"{value:.3f}", "number", number=value)
