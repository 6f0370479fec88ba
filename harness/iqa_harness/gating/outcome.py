"""What a gate found, for a terminal, a pull request, a test report and a program."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree import ElementTree

from iqa_harness.gating.baselines import Standpoint
from iqa_reports import Entry, TableView, markdown_table
from iqa_reports.formats.markdown import escape
from iqa_reports.table_view import columns, label, stub

SHOWN = ("clean", "suite_min", "composed", "verdict")
"""Rows that are always shown; single attacks only if they changed."""

Decision = Literal["ok", "regressed", "improved", "unexplained", "undecided", "undefined"]

JUNIT = {
    "regressed": ("failure", "Regression"),
    "unexplained": ("failure", "Unexplained"),
    "undecided": ("error", "Undecided"),
}
"""Element and type of a decision that passes no gate."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One value before and after."""

    model: str
    row: str
    """clean, attack, suite_min, composed, or verdict."""
    attack: str = ""
    """Of a suite_min, the member that gives it now."""
    objective: str = ""
    epsilon: float = 0.0
    metric: str = ""
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    """after - before."""
    low: float | None = None
    """Lower end of the paired 95 % interval of the difference."""
    high: float | None = None
    """Upper end of it."""
    bound: float | None = None
    """Upper bound of the difference that the decision is made on, for all gated values together."""
    gated: bool
    """Whether it can be a regression."""
    interval: str = ""
    """How it was made."""
    images: int = 0
    tolerance: float = 0.0
    """Tolerance this value was held against, the noise floor included."""
    detectable: float | None = None
    """Smallest fall that would be called worse on these images, with the spread of this difference; None if
    no fall would be. Of a model that is the same, the tolerance."""
    outcome: Decision
    reason: str
    """What was found, in words."""
    seconds: float = field(default=0.0, compare=False)
    """What the comparison took."""

    @property
    def member(self) -> str:
        """Attack and objective in one word, '' without an attack."""
        return f"{self.attack}/{self.objective}" if self.attack else ""

    @property
    def name(self) -> str:
        """Model, row and attack in one word."""
        return f"{self.model} {self.row} {self.member}".rstrip()

    def sentence(self) -> str:
        """Name model, attack, metric, change and interval."""
        where = f" at {self.epsilon * 255:.3g}/255" if self.epsilon else ""
        metric = f" {self.metric.upper()}" if self.metric else ""
        return f"{self.name}{where}{metric}: {self.reason}"


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a gate found of two sides. `passed` is the answer; the rest says why."""

    comparisons: list[Comparison]
    notes: list[str]
    """What a reader must know: models left out, another device or version."""
    must_detect: float
    """Fall that must not be missed."""
    before: Standpoint
    after: Standpoint

    @property
    def regressions(self) -> list[Comparison]:
        """Gated values that got worse."""
        return self._decided("regressed")

    @property
    def undecided(self) -> list[Comparison]:
        """Gated values of which a fall that must not be missed is neither found nor excluded."""
        return self._decided("undecided")

    @property
    def unexplained(self) -> list[Comparison]:
        """Gated values that rose although the model is the baseline's."""
        return self._decided("unexplained")

    def _decided(self, decision: Decision) -> list[Comparison]:
        return [c for c in self.comparisons if c.outcome == decision]

    @property
    def passed(self) -> bool:
        """Whether nothing got worse or rose without a cause, and that could be seen."""
        return not self.regressions and not self.unexplained and not self.undecided

    def headline(self) -> str:
        """Say in one sentence what was found."""
        count, baseline = len(self.regressions), self.before.record
        found = "no regression" if not count else f"{count} regression{'s' * (count != 1)}"
        if self.unexplained:
            found += f", {len(self.unexplained)} unexplained"
        if self.undecided:
            found += f", {len(self.undecided)} undecided"
        return (
            f"{found} in {len(self.comparisons)} values of {len(baseline.models)} model(s): run "
            f"{self.after.record.run!r} against baseline {baseline.name!r}, suite {baseline.suite}, "
            f"{baseline.images} images of {baseline.data}"
        )

    def sensitivity(self) -> str:
        """Say which fall would be called worse, of the gated value where it must be largest."""
        values = [c for c in self.comparisons if c.gated and c.difference is not None]
        if not values:
            return "no gated value could be compared"
        if not any(c.difference for c in values) and all(c.detectable == c.tolerance for c in values):
            return "no gated value moved: there was nothing to tell from chance"
        worst = max(values, key=lambda c: math.inf if c.detectable is None else c.detectable)
        if worst.detectable is None:
            return f"of {worst.name} in {worst.metric.upper()} no fall would be called worse"
        return (
            f"with these images and this noise a fall of {worst.detectable:.3f} or more would be called "
            f"worse, in every gated value (widest: {worst.name} in {worst.metric.upper()})"
        )

    def lines(self) -> list[str]:
        """Say what was found, how small a fall would be, and of each value what is wrong."""
        return [
            self.headline(),
            self.sensitivity(),
            *(f"worse: {c.sentence()}" for c in self.regressions),
            *(f"unexplained: {c.sentence()}" for c in self.unexplained),
            *(f"undecided: {c.sentence()}" for c in self.undecided),
        ]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    @property
    def view(self) -> TableView:
        """The comparisons as a table for every format; single attacks only if they changed."""
        shown = [c for c in self.comparisons if c.row in SHOWN or c.gated or c.outcome != "ok"]
        groups = (columns("before", "after", "change [95 %]"), columns("", numeric=False))
        heads = stub("model", "value", "metric")
        return TableView("gate", "", heads, groups, tuple(map(_entries, shown)), ())

    def markdown(self) -> str:
        """Return a summary for a pull request's comment."""
        mark = "\N{CROSS MARK}" if not self.passed else "\N{WHITE HEAVY CHECK MARK}"
        parts = [f"### {mark} Robustness: {escape(self.headline())}"]
        wrong = [*self.regressions, *self.unexplained, *self.undecided]
        parts += ["\n".join(f"- **{escape(c.sentence())}**" for c in wrong)] * bool(wrong)
        parts.append(markdown_table(self.view))
        tolerances = sorted({c.tolerance for c in self.comparisons if c.metric})
        if tolerances:
            span = f"{tolerances[0]:.3g}" + (f" to {tolerances[-1]:.3g}" if len(tolerances) > 1 else "")
            parts.append(
                f"Worse means: fell by more than {span}, and by more than chance (paired bootstrap)."
            )
        parts.append(f"Sensitivity: {escape(self.sensitivity())}.")
        parts += [f"Note: {escape(note)}." for note in self.notes]
        return "\n\n".join(parts) + "\n"

    def junit(self) -> str:
        """Return JUnit XML: a test case a comparison."""
        suite = ElementTree.Element(
            "testsuite",
            name=f"robustness of {self.before.record.suite}",
            tests=str(len(self.comparisons)),
            failures=str(len(self.regressions) + len(self.unexplained)),
            errors=str(len(self.undecided)),
            skipped=str(len(self._decided("undefined"))),
            time=f"{sum(c.seconds for c in self.comparisons):.6f}",
        )
        for c in self.comparisons:
            name = " ".join(filter(None, (c.row, c.member, c.metric)))
            case = ElementTree.SubElement(
                suite, "testcase", classname=c.model, name=name, time=f"{c.seconds:.6f}"
            )
            if c.outcome in JUNIT:
                element, kind = JUNIT[c.outcome]
                ElementTree.SubElement(case, element, message=c.reason, type=kind).text = c.sentence()
            elif c.outcome == "undefined":
                ElementTree.SubElement(case, "skipped", message=c.reason)
        ElementTree.indent(suite)
        text = ElementTree.tostring(suite, encoding="unicode")
        return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'

    def summary(self) -> dict[str, Any]:
        """Return everything as plain values."""
        baseline = self.before.record
        return {
            "baseline": baseline.name,
            "run": self.after.record.run,
            "suite": baseline.suite,
            "suite_sha256": baseline.suite_sha256,
            "data": baseline.data,
            "data_sha256": baseline.data_sha256,
            "passed": self.passed,
            "regressed": bool(self.regressions),
            "unexplained": bool(self.unexplained),
            "undecided": bool(self.undecided),
            "must_detect": self.must_detect,
            # Without the time each took: equal runs give equal files.
            "comparisons": [
                {name: value for name, value in dataclasses.asdict(c).items() if name != "seconds"}
                for c in self.comparisons
            ],
            "notes": self.notes,
        }

    def json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.summary(), indent=1, allow_nan=False) + "\n"


def _entries(c: Comparison) -> tuple[Entry, ...]:
    head = (label(c.model), label(f"{c.row} ({c.member})" if c.member else c.row), label(c.metric))
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
