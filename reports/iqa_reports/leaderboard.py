"""The leaderboard over many runs: Markdown to read beside the code, HTML to sort and filter."""

from __future__ import annotations

from pathlib import Path

from iqa_reports import text
from iqa_reports.formats.markdown import escape, lead, markdown_table
from iqa_reports.formats.page import html_report
from iqa_reports.inputs.merge import describe_run
from iqa_reports.report import Report, Section
from iqa_results import write_whole


def write_leaderboard(report: Report, out: Path) -> list[Path]:
    """Write leaderboard.md and leaderboard.html below `out`, each replaced whole; return the page first."""
    page, markdown = out / "leaderboard.html", out / "leaderboard.md"
    write_whole(markdown, leaderboard_markdown(report).encode())
    write_whole(page, html_report(report, {}).encode())
    return [page, markdown]


def leaderboard_markdown(report: Report) -> str:
    """Return the leaderboard of every group of comparable runs, and what is not comparable with what."""
    parts = ["# Leaderboard"]
    if len(report.sections) > 1:
        parts.append(
            f"{len(report.sections)} groups of runs. Values of different groups cannot be compared: their "
            "suites, images or splits differ."
        )
    parts += [f"> {escape(sentence)}" for sentence in report.apart]
    parts += [f"> Left out: {escape(sentence)}" for sentence in report.unread]
    for section in report.sections:
        parts += _section(section)
    parts += [markdown_table(table) for table in report.tables]
    if report.sections:
        parts += ["## How to read it"]
        parts += [escape(sentence) for sentence in text.reading(report.sections[0].view.manifest)[1:]]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    manifest = section.view.manifest
    parts = [f"## {escape(manifest.suite)} on {escape(manifest.data.name)}: {escape(manifest.run)}"]
    parts += lead(section)
    warning = (text.warning(manifest) or "").casefold()
    notes = [note for note in manifest.notes if note.casefold() not in warning]
    parts += [f"> {escape(remark)}" for remark in (*section.remarks, *notes)]
    parts.append(
        f"Suite {escape(manifest.suite)} (sha256 {manifest.suite_sha256[:12]}), data "
        f"{escape(manifest.data.name)} (sha256 {manifest.data.sha256[:12]}); suite_min is over "
        f"{escape(', '.join(manifest.suite_min) or 'no member')}."
    )
    parts += [markdown_table(t) for t in section.tables if t.name.startswith(("leaderboard", "models"))]
    parts.append("\n".join(f"- {escape(describe_run(run.manifest, run.origin))}" for run in section.runs))
    return parts
