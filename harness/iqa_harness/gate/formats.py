"""What a gate found, for a terminal, a pull request, a test report and a program."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from iqa_harness.gate.regressions import Comparison, Gated, Regression
from iqa_results import Baseline

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = ("clean", "suite_min", "composed", "verdict")
"""Rows that are always shown; single attacks only if they changed."""


def headline(gated: Gated, before: Baseline, after: Baseline) -> str:
    """Say in one sentence what was found."""
    count = len(gated.regressions)
    found = "no regression" if not count else f"{count} regression{'s' * (count != 1)}"
    return (
        f"{found} in {len(gated.comparisons)} values of {len(before.models)} model(s): run {after.run!r} "
        f"against baseline {before.name!r}, suite {before.suite}, {before.images} images of {before.data}"
    )


def sentence(regression: Regression) -> str:
    """Name model, attack, metric, change and interval."""
    where = f" at {regression.epsilon * 255:.3g}/255" if regression.epsilon else ""
    metric = f" {regression.metric.upper()}" if regression.metric else ""
    return f"{regression.name}{where}{metric}: {regression.reason}"


def terminal_table(gated: Gated) -> Table:
    """Return the comparisons as a table for a terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "value", "metric"):
        table.add_column(heading)
    for heading in ("before", "after", "change", "95 % of the change"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for c in _shown(gated):
        table.add_row(*_cells(c))
    return table


def markdown(gated: Gated, before: Baseline, after: Baseline) -> str:
    """Return a summary for a pull request's comment."""
    mark = "\N{CROSS MARK}" if gated.regressions else "\N{WHITE HEAVY CHECK MARK}"
    lines = [f"### {mark} Robustness: {headline(gated, before, after)}", ""]
    lines += [f"- **{sentence(r)}**" for r in gated.regressions]
    lines += [""] if gated.regressions else []
    lines += ["| model | value | metric | before | after | change | 95 % of the change | |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(c)) + " |" for c in _shown(gated)]
    tolerances = sorted({c.tolerance for c in gated.comparisons if c.metric})
    if tolerances:
        span = f"{tolerances[0]:.3g}" + (f" to {tolerances[-1]:.3g}" if len(tolerances) > 1 else "")
        lines += ["", f"Worse means: fell by more than {span}, and by more than chance (paired bootstrap)."]
    lines += [f"Note: {note}." for note in gated.notes]
    return "\n".join(lines) + "\n"


def junit(gated: Gated, before: Baseline) -> str:
    """Return the comparisons as JUnit XML, a test case each."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"robustness of {before.suite}",
        tests=str(len(gated.comparisons)),
        failures=str(len(gated.regressions)),
        errors="0",
        skipped=str(sum(c.outcome == "undefined" for c in gated.comparisons)),
    )
    for c in gated.comparisons:
        name = f"{c.row} {c.attack}/{c.objective} {c.metric}" if c.attack else f"{c.row} {c.metric}"
        case = ElementTree.SubElement(suite, "testcase", classname=c.model, name=name.strip())
        if isinstance(c, Regression):
            failure = ElementTree.SubElement(case, "failure", message=c.reason, type="Regression")
            failure.text = sentence(c)
        elif c.outcome == "undefined":
            ElementTree.SubElement(case, "skipped", message=c.reason)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def as_json(gated: Gated, before: Baseline, after: Baseline) -> str:
    """Return everything as JSON."""
    content: dict[str, Any] = {
        "baseline": before.name,
        "run": after.run,
        "suite": before.suite,
        "suite_sha256": before.suite_sha256,
        "data": before.data,
        "data_sha256": before.data_sha256,
        "regressed": bool(gated.regressions),
        "comparisons": [dataclasses.asdict(c) for c in gated.comparisons],
        "notes": gated.notes,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _shown(gated: Gated) -> list[Comparison]:
    return [c for c in gated.comparisons if c.row in SHOWN or c.gated or c.outcome != "ok"]


def _cells(c: Comparison) -> tuple[str, ...]:
    value = f"{c.row} ({c.attack}/{c.objective})" if c.attack else c.row
    if c.row == "verdict":
        return (c.model, value, "", *c.reason.split(" -> ", 1), "", "", c.outcome)
    span = "" if c.low is None or c.high is None else f"[{c.low:+.3f}, {c.high:+.3f}]"
    return (
        c.model,
        value,
        c.metric,
        _number(c.before),
        _number(c.after),
        "" if c.difference is None else f"{c.difference:+.3f}",
        span,
        c.outcome if c.difference is not None else c.reason,
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
