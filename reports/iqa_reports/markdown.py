"""The report as one Markdown file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iqa_reports import text
from iqa_reports.run_view import RunView
from iqa_reports.tables import VALUE, Entry, TableView, all_tables

# An underscore inside a word is plain text in Markdown, so that names stay readable: suite_min.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&#])|(?<!\w)(_)|(_)(?!\w)")


def markdown_report(view: RunView, figures: Sequence[tuple[str, str]]) -> str:
    """Return the whole report; figures are (caption, path relative to the file)."""
    manifest = view.manifest
    parts = [f"# Adversarial robustness: run {escape(manifest.run)}"]
    warning = text.warning(manifest)
    if warning:
        parts.append(f"> **Warning.** {escape(warning)}")
    parts.append(escape(text.setting(manifest)))
    tables = {table.name: table for table in all_tables(view)}
    parts += _section("Leaderboard", [tables["leaderboard-srocc"], tables["leaderboard-plcc"]])
    parts += ["## How to read it", *(escape(sentence) for sentence in text.reading(manifest))]
    parts += [f"- {escape(note)}" for note in manifest.notes]
    parts += _section("Attack by attack", [tables["attacks-srocc"], tables["attacks-plcc"]])
    parts += _section("Radius by radius", [tables["epsilons-srocc"], tables["epsilons-plcc"]])
    if figures:
        parts.append("## Figures")
        parts += [f"![{escape(caption)}]({path})\n\n{escape(caption)}" for caption, path in figures]
    parts += _section("Checks before any attack", [tables["checks"]])
    parts.append("## Provenance")
    parts.append("\n".join(f"- {escape(name)}: {escape(value)}" for name, value in text.provenance(manifest)))
    parts += ["## The suite", _fenced(manifest.suite_text, "toml")]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: TableView) -> str:
    """Return one table with its caption above and its notes below."""
    headings = [(h.label, h.numeric) for h in table.stub]
    headings += [
        (group.label if h == VALUE else f"{group.label} {h.label}".strip(), h.numeric)
        for group in table.groups
        for h in group.headings
    ]
    lines = [
        _row([escape(label) for label, _ in headings]),
        _row(["--:" if numeric else ":--" for _, numeric in headings]),
        *(_row([_entry(entry) for entry in row]) for row in table.rows),
    ]
    notes = [f"<sup>{mark}</sup> {escape(note)}" if mark else escape(note) for mark, note in table.notes]
    return "\n\n".join([f"**{escape(table.caption)}**", "\n".join(lines), *notes])


def escape(words: str) -> str:
    """Return text that Markdown and the HTML inside it show as it is, on one line."""
    one_line = " ".join(words.split())
    return _SPECIAL.sub(lambda found: f"\\{found.group()}", one_line)


def _section(title: str, tables: list[TableView]) -> list[str]:
    return [f"## {title}", *(markdown_table(table) for table in tables)]


def _entry(entry: Entry) -> str:
    # Brackets of an interval can be no link: a number follows, not an address.
    mark = f"<sup>{entry.mark}</sup>" if entry.mark else ""
    return " ".join(part for part in (escape(entry.text), entry.interval, mark) if part)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fenced(words: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{words.rstrip()}\n{fence}"
