"""Tables as LaTeX: booktabs, best values bold, intervals and deviations small beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from iqa_reports import text
from iqa_reports.table_view import Entry, TableView, headings_of

PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[a4paper,landscape,margin=18mm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
"""
"""Everything a table needs: booktabs for its rules, graphicx to fit a wide one on the page."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # at the start of a row it would be the argument of the \\ before it
    "]": "{]}",
    text.MINUS: "$-$",
    text.DASH: "---",
    "\N{GREEK SMALL LETTER EPSILON}": r"$\varepsilon$",
    "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
    "\N{GREEK SMALL LETTER KAPPA}": r"$\kappa$",
    "\N{GREEK SMALL LETTER RHO}": r"$\rho$",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{SQUARE ROOT}": r"$\surd$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{DAGGER}": r"\textdagger{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}
_LATIN = 0x17F
"""Last character that T1 fonts have a glyph for, by way of utf8; beyond it the engine would stop."""


def latex_report(title: str, tables: Iterable[TableView]) -> str:
    """Return a whole document with every table, which pdflatex compiles as it is."""
    body = "\n\\clearpage\n".join(latex_table(table) for table in tables)
    return f"{PREAMBLE}\\section*{{{escape(title)}}}\n{body}\n\\end{{document}}\n"


def latex_table(table: TableView) -> str:
    r"""Return one table as a float; a paper takes it in by ``\input`` with booktabs and graphicx loaded."""
    columns = "".join("r" if numeric else "l" for _, numeric in headings_of(table))
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_heading(table),
        r"\midrule",
        *(_row([_entry(entry) for entry in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    for mark, note in table.notes:
        sign = rf"\textsuperscript{{{escape(mark)}}} " if mark else ""
        lines.append(rf"\par{{\footnotesize {sign}{escape(note)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(words: str) -> str:
    """Return text that LaTeX sets as it is, on one line.

    A sign that pdflatex has no glyph for is written as its code point: a model may have any name.
    """
    one_line = " ".join(words.split())
    return "".join(_SPECIAL.get(sign) or _plain(sign) for sign in one_line)


def _plain(sign: str) -> str:
    return sign if ord(sign) <= _LATIN and sign.isprintable() else f"U+{ord(sign):04X}"


def _heading(table: TableView) -> list[str]:
    """Return the lines of headings: group labels with their rules over the rest, or one line if that does."""
    if all(len(group.headings) == 1 for group in table.groups):
        return [_row([escape(label) for label, _ in headings_of(table)])]
    over = [""] * len(table.stub)
    rules, place = [], len(table.stub) + 1
    for group in table.groups:
        width = len(group.headings)
        over.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group.label)}}}")
        if group.label:
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    under = [escape(h.label) for h in table.stub]
    under += [escape(h.label) for group in table.groups for h in group.headings]
    return [_row(over), "".join(rules), _row(under)]


def _entry(entry: Entry) -> str:
    words = escape(entry.text)
    if entry.best:
        words = rf"\textbf{{{words}}}"
    if entry.kind in ("undefined", "missing"):
        words = rf"\textit{{{words}}}"
    if entry.spread is not None:
        words += rf"{{\scriptsize\,$\pm$\,{escape(text.number(entry.spread))}}}"
    if entry.interval:
        words += rf" {{\scriptsize {escape(entry.interval)}}}"
    return words + (rf"\textsuperscript{{{escape(entry.mark)}}}" if entry.mark else "")


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
