"""Tables and figures of a run, rendered from what the harness computed; nothing is computed here."""

from iqa_reports.errors import InconsistentRun, ReportsError
from iqa_reports.markdown import markdown_report
from iqa_reports.page import html_report
from iqa_reports.render import render_report
from iqa_reports.run_view import Estimate, Reach, RunView, view_run
from iqa_reports.tables import TableView, attack_table, checks_table, epsilon_table, leaderboard_table
from iqa_reports.terminal import print_leaderboard, print_report

__all__ = [
    "Estimate",
    "InconsistentRun",
    "Reach",
    "ReportsError",
    "RunView",
    "TableView",
    "attack_table",
    "checks_table",
    "epsilon_table",
    "html_report",
    "leaderboard_table",
    "markdown_report",
    "print_leaderboard",
    "print_report",
    "render_report",
    "view_run",
]
