"""One small table in every format, to the letter.

After a wanted change: ``UPDATE_GOLDEN=1 pytest tests/reports/test_golden.py``, then read the difference.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from iqa_reports import Entry, Report, TableView, csv_table, latex_table, markdown_table, print_report, text
from iqa_reports.formats.page import page_environment
from iqa_reports.table_view import VALUE, Group, Heading

GOLDEN = Path(__file__).parent / "golden"

TABLE = TableView(
    "fixed",
    "Every kind of entry at ε = 2/255: 100 % fixed & small.",
    (Heading("#", numeric=True), Heading("Model", numeric=False)),
    (
        Group("clean", (VALUE,)),
        Group("suite_min", (VALUE, Heading("drop", numeric=True))),
        Group("Verdict", (Heading("on it", numeric=False),)),
    ),
    (
        (
            Entry("1", "number", number=1),
            Entry("a_model", "header"),
            Entry("0.912", "number", "[0.850, 0.950]", "", 0.9123456789, (0.85, 0.95), best=True),
            Entry("−0.100", "number", "[−0.200, 0.000]", "", -0.1, (-0.2, 0.0), best=True),
            Entry("−1.012", "number", number=-1.0123),
            Entry("sound", "label"),
        ),
        (
            Entry("2", "number", number=2),
            Entry("=cmd|'/c'!A0 <b> $x$", "header"),
            Entry("0.880", "number", "", "a", 0.88, None, 0.0125),
            Entry("−0.140", "number", "[−0.240, −0.040]", "b†", -0.14, (-0.24, -0.04)),
            Entry("undefined", "undefined", mark="c"),
            Entry("suspect", "label"),
        ),
        (
            Entry("—", "missing", mark="d"),
            Entry("third", "header"),
            Entry("—", "missing", mark="d"),
            Entry("—", "missing", mark="d"),
            Entry("—", "missing", mark="d"),
            Entry("not judged", "label"),
        ),
    ),
    (
        ("a", "mean ± standard deviation over 3 training seeds"),
        ("b", "from 30 of 40 images"),
        ("c", "undefined: constant scores"),
        ("d", "missing: 1 of 1 cell failed (out of memory)"),
        ("†", "not told apart from the best"),
        ("", "a remark on the whole table"),
    ),
)


def terminal(table: TableView) -> str:
    """The table as a terminal of 90 columns shows it."""
    out = io.StringIO()
    print_report(Report((), tables=(table,)), Console(file=out, width=90, force_terminal=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def html(table: TableView) -> str:
    """The table as the page holds it."""
    module: Any = page_environment().get_template("table.html.j2").make_module({"text": text})
    return str(module.show(table, {"a_model": "model-01"}, True)).strip() + "\n"


RENDERERS: dict[str, Callable[[TableView], str]] = {
    "md": lambda table: markdown_table(table) + "\n",
    "tex": latex_table,
    "csv": csv_table,
    "txt": terminal,
    "html": html,
}


@pytest.mark.parametrize("kind", RENDERERS)
def test_a_fixed_table_is_rendered_to_the_letter(kind: str) -> None:
    """Bold best, intervals, deviations, daggers, missing and undefined values, names full of markup."""
    path = GOLDEN / f"table.{kind}"
    made = RENDERERS[kind](TABLE)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")
