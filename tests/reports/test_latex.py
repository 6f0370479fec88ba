"""LaTeX: what a paper takes in must compile, whatever the models are called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.views import view_run
from iqa_reports import latex_report, latex_table, leaderboard_table
from iqa_reports.formats.latex import escape

Make = Callable[..., Any]

NASTY = r'a_b & 100% #1 $x$ {y} ~z ^2 \input{/etc/passwd} <t> [u] "v" モデル é'


def engine() -> str:
    """Path of pdflatex; the test is skipped without one, unless CI says that there must be one."""
    found = shutil.which("pdflatex")
    if found is None:
        reason = "no pdflatex (Debian: texlive-latex-recommended, lmodern); structure is tested all the same"
        if os.environ.get("IQA_REQUIRE_TOOLS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.mark.slow
def test_every_table_compiles(make_run: Make, tmp_path: Path) -> None:
    """The whole document, with names that hold every special character, gives a PDF without an error."""
    pdflatex = engine()
    report = make_run(weak=NASTY).report(figures=False)
    (tmp_path / "report.tex").write_text(latex_report("A report of 100 % & more", report.all_tables()))
    done = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
        env={**os.environ, "TEXMFVAR": str(tmp_path / "texmf")},
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    assert "Missing character" not in (tmp_path / "report.log").read_text(errors="replace")


def test_rows_and_groups_fit_the_columns(run: Any) -> None:
    """Every row has as many cells as the tabular has columns, and the groups' spans add up to them."""
    source = latex_table(leaderboard_table(view_run(run.manifest, run.table), "srocc"))
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", source).group(1))  # type: ignore[union-attr]
    body = source[source.index(r"\midrule") : source.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {columns}
    spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", source)]
    assert sum(spans) + 2 == columns
    for name in ("toprule", "midrule", "bottomrule"):
        assert source.count(rf"\{name}") == 1


def test_the_best_is_bold_and_a_mark_is_raised(run: Any) -> None:
    """Best values of those that are believed are set bold; the mark of a note stands above the line."""
    source = latex_table(leaderboard_table(view_run(run.manifest, run.table), "srocc"))
    assert r"\textbf{0.812}" in source
    assert r"\textbf{0.858}" not in source
    assert r"\textbf{0.303}" in source
    assert re.search(r"\\textit\{---\}\\textsuperscript\{[a-z]\}", source)


def test_special_characters_are_text() -> None:
    """No name can run a command, end a cell or start an argument."""
    assert escape(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert escape("50% & #3_a") == r"50\% \& \#3\_a"
    assert escape("[0.1, 0.2]") == "{[}0.1, 0.2{]}"
    assert escape("\N{MINUS SIGN}0.1") == "$-$0.1"
    assert escape("日") == "U+65E5"
