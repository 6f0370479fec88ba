"""Tables and figures of runs and studies, rendered from what the harness computed."""

from iqa_reports.errors import InconsistentRun, ReportsError
from iqa_reports.formats.csv_table import csv_table
from iqa_reports.formats.latex import latex_report, latex_table
from iqa_reports.formats.markdown import markdown_report, markdown_table
from iqa_reports.formats.page import html_report, html_table
from iqa_reports.formats.terminal import print_report, print_table, table_text
from iqa_reports.inputs.frames import FRAMES, make_frame
from iqa_reports.inputs.merge import Comparable, Group, group_runs, why_apart
from iqa_reports.inputs.stored_run import ModelCost, StoredRun, Triptych
from iqa_reports.papers.published import load_published
from iqa_reports.power import power_view
from iqa_reports.render import FORMATS, render_report
from iqa_reports.report import Inputs, Report, build_report
from iqa_reports.table_view import Entry, TableView
from iqa_reports.tables import attack_table, checks_table, epsilon_table, flags_table, leaderboard_table

__all__ = [
    "FORMATS",
    "FRAMES",
    "Comparable",
    "Entry",
    "Group",
    "InconsistentRun",
    "Inputs",
    "ModelCost",
    "Report",
    "ReportsError",
    "StoredRun",
    "TableView",
    "Triptych",
    "attack_table",
    "build_report",
    "checks_table",
    "csv_table",
    "epsilon_table",
    "flags_table",
    "group_runs",
    "html_report",
    "html_table",
    "latex_report",
    "latex_table",
    "leaderboard_table",
    "load_published",
    "make_frame",
    "markdown_report",
    "markdown_table",
    "power_view",
    "print_report",
    "print_table",
    "render_report",
    "table_text",
    "why_apart",
]
