"""The report as one Markdown file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iqa_reports import text
from iqa_reports.report import Drawn, Report, Section
from iqa_reports.table_view import Entry, TableView, headings_of

# An underscore inside a word is plain text in Markdown, so that names stay readable: suite_min.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&#$])|(?<!\w)(_)|(_)(?!\w)")


SECTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Leaderboard", ("leaderboard",), ("fall",)),
    ("What the models are", ("models",), ()),
    ("Attack by attack", ("attacks", "optimality"), ("steps",)),
    ("Radius by radius", ("epsilons",), ("security", "radius")),
    ("Both sides of the worst case", ("bracket",), ()),
    ("Minimum norm", ("radii",), ("radii",)),
    ("Defences", ("defences",), ()),
    ("Transfer", ("transfer",), ("transfer",)),
    ("Reachable scores, image by image", (), ("moves", "reach", "scatter")),
    ("Power of the attacks", ("power",), ("power",)),
    ("Are the numbers to be believed?", ("flags", "checks"), ()),
)
"""Titles in the order of reading, with the names tables begin with and the kinds of figures under each."""


def markdown_report(report: Report) -> str:
    """Return the whole report; figures are links to figures/NAME.svg beside it."""
    parts = []
    for section in report.sections:
        parts += _section(section)
    if not report.sections:
        parts.append("# Tables and figures")
    parts += [f"> {escape(sentence)}" for sentence in (*report.apart, *report.unread)]
    if report.tables or report.figures:
        parts.append("## Studies")
        parts += [markdown_table(table) for table in report.tables]
        parts += [_figure(drawn) for drawn in report.figures]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    manifest = section.view.manifest
    parts = [f"# Adversarial robustness: run {escape(manifest.run)}", *lead(section)]
    parts.append(escape(text.setting(manifest)))
    parts += [f"> {escape(remark)}" for remark in section.remarks]
    for title, names, kinds in SECTIONS:
        tables = [t for t in section.tables if t.name.startswith(names)] if names else []
        figures = [d for d in section.figures if d.kind in kinds]
        if tables or figures:
            parts += [f"## {title}", *(markdown_table(t) for t in tables), *(_figure(d) for d in figures)]
        if title == "Leaderboard":
            parts += ["## How to read it", *(escape(sentence) for sentence in text.reading(manifest))]
            parts += [f"- {escape(note)}" for note in manifest.notes]
    parts.append("## Provenance")
    for run in section.runs:
        facts = text.provenance(run.manifest, run.origin)
        parts.append("\n".join(f"- {escape(name)}: {escape(value)}" for name, value in facts))
    return [*parts, "## The suite", _fenced(manifest.suite_text, "toml")]


def lead(section: Section) -> list[str]:
    """Return what was found, and what the values must not be taken for."""
    warning = text.warning(section.view.manifest)
    return [f"**{escape(section.finding)}**", *([f"> **Warning.** {escape(warning)}"] if warning else [])]


def _figure(drawn: Drawn) -> str:
    return f"![{escape(drawn.caption)}](figures/{drawn.name}.svg)\n\n{escape(drawn.caption)}"


def markdown_table(table: TableView) -> str:
    """Return one table with its caption above and its notes below."""
    headings = headings_of(table)
    lines = [
        _row([escape(label) for label, _ in headings]),
        _row(["--:" if numeric else ":--" for _, numeric in headings]),
        *(_row([_entry(entry) for entry in row]) for row in table.rows),
    ]
    notes = [f"<sup>{mark}</sup> {escape(note)}" if mark else escape(note) for mark, note in table.notes]
    caption = [f"**{escape(table.caption)}**"] if table.caption else []
    return "\n\n".join([*caption, "\n".join(lines), *notes])


def escape(words: str) -> str:
    """Return text that Markdown and the HTML inside it show as it is, on one line."""
    one_line = text.visible(" ".join(words.split()))
    return _SPECIAL.sub(lambda found: f"\\{found.group()}", one_line)


def _entry(entry: Entry) -> str:
    # Brackets of an interval can be no link: a number follows, not an address.
    mark = f"<sup>{entry.mark}</sup>" if entry.mark else ""
    words = f"**{escape(entry.text)}**" if entry.best else escape(entry.text)
    spread = "" if entry.spread is None else f"± {text.number(entry.spread)}"
    return " ".join(part for part in (words, spread, entry.interval, mark) if part)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fenced(words: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.visible(words).rstrip()}\n{fence}"
