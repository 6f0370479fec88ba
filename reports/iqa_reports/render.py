"""From a report to files: the page, the Markdown, CSV and LaTeX tables, and the figures."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from iqa_reports.drawing import save_figure
from iqa_reports.errors import ReportsError
from iqa_reports.formats.csv_table import csv_table
from iqa_reports.formats.latex import latex_report, latex_table
from iqa_reports.formats.markdown import markdown_report
from iqa_reports.formats.page import html_report
from iqa_reports.report import Report
from iqa_results import write_whole

FORMATS = ("html", "markdown", "csv", "latex", "svg", "png")
"""What `render_report` can write."""

LISTING = ".report-files.json"
"""Names of the files an earlier report wrote, so that exactly those may go away with their models."""


def render_report(report: Report, out: Path, formats: Collection[str] = FORMATS) -> list[Path]:
    """Write a report's files below `out` and return what was written, the page first if there is one.

    index.html, report.md, report.tex, tables/*.csv, tables/*.tex, figures/*.svg and figures/*.png. Each file
    is replaced whole; the page comes last, so that a page there is a page finished.

    Raises:
        ReportsError: a folder stands where one of the files goes; nothing is written then.
    """
    files: dict[Path, bytes] = {}
    drawn = report.all_figures()
    svgs: dict[str, bytes] = {}
    if {"html", "markdown", "svg"} & set(formats):
        svgs = {d.name: save_figure(d.figure, "svg") for d in drawn}
    # Markdown shows the SVG files, so it brings them along.
    if {"markdown", "svg"} & set(formats):
        files |= {out / "figures" / f"{name}.svg": svg for name, svg in svgs.items()}
    if "png" in formats:
        files |= {out / "figures" / f"{d.name}.png": save_figure(d.figure, "png") for d in drawn}
    tables = report.all_tables()
    if "csv" in formats:
        files |= {out / "tables" / f"{t.name}.csv": csv_table(t).encode() for t in tables}
    if "latex" in formats:
        files |= {out / "tables" / f"{t.name}.tex": latex_table(t).encode() for t in tables}
        title = "Adversarial robustness of image quality models"
        files[out / "report.tex"] = latex_report(title, tables).encode()
    if "markdown" in formats:
        files[out / "report.md"] = markdown_report(report).encode()
    if "html" in formats:
        files[out / "index.html"] = html_report(report, svgs, _rows(out)).encode()
    for path in (*files, out / LISTING):
        if path.is_dir():
            raise ReportsError(f"{path} is a folder where a file of the report goes; choose another folder")
    for path, content in files.items():
        write_whole(path, content)
    _remove_stale(out, files)
    return [*reversed(files)]


def _rows(out: Path) -> str:
    """Return where the rows lie, seen from a report in its run's own folder of a store; '' elsewhere."""
    run = out.resolve().parent
    stored = (run / "table.parquet").is_file() and (run.parent.parent / "cells").is_dir()
    return "../../../cells/" if stored else ""


def _remove_stale(out: Path, files: Collection[Path]) -> None:
    """Remove what an earlier report wrote here and this one did not; other files are never touched."""
    names = sorted(path.relative_to(out).as_posix() for path in files)
    listing = out / LISTING
    for name in _former(listing):
        old = out / name
        if name not in names and old.is_file() and old.resolve().is_relative_to(out.resolve()):
            old.unlink()
    write_whole(listing, json.dumps(names, indent=0).encode())


def _former(listing: Path) -> list[str]:
    try:
        names = json.loads(listing.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return []
    known = names if isinstance(names, list) else []
    return [name for name in known if isinstance(name, str) and "\0" not in name]
