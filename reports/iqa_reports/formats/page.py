"""The report as one HTML page that needs nothing but itself: data, styles, figures and one small script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from iqa_reports import text
from iqa_reports.drawing import inline_svg
from iqa_reports.formats.csv_table import csv_table
from iqa_reports.formats.latex import latex_table
from iqa_reports.inputs.stored_run import Triptych
from iqa_reports.report import Drawn, Report, Section
from iqa_reports.table_view import Group, Heading, TableView, headings_of
from iqa_reports.tables import short_board
from iqa_results import Flag

if TYPE_CHECKING:
    from jinja2 import Environment

PANEL = ("steps", "radius", "moves", "reach", "scatter")
"""Kinds of figures that stand in a model's own panel."""

ROOMY = ("clean", "composed")
"""Columns of the board that a phone leaves out."""


class PageFigure(NamedTuple):
    """A drawn figure and what is written under it."""

    svg: Markup
    caption: str


class PageTable(NamedTuple):
    """A table and the same as files to take away."""

    view: TableView
    files: tuple[tuple[str, str], ...]
    """(file name, ``data:`` address): CSV and LaTeX."""
    roomy: tuple[int, ...] = ()
    """Columns that a phone leaves out."""


class ModelPanel(NamedTuple):
    """What a reader sees who opens a model."""

    anchor: str
    name: str
    verdict: str
    checks: str
    raised: tuple[tuple[Flag, str], ...]
    """Each with its explanation."""
    quiet: tuple[Flag, ...]
    """Flags that were measured and not raised."""
    unmeasured: tuple[str, ...]
    figures: tuple[PageFigure, ...]
    triptychs: tuple[Triptych, ...]

    @property
    def distortions(self) -> list[str]:
        """Types of distortion of its pictures."""
        return sorted({t.distortion for t in self.triptychs if t.distortion})


class PageSection(NamedTuple):
    """One group of comparable runs, ready for the template."""

    prefix: str
    section: Section
    tables: dict[str, PageTable]
    """By name, captions without the setting, which the page says once."""
    panels: tuple[ModelPanel, ...]
    anchors: dict[str, str]
    """Anchor of each model's panel."""
    figures: dict[str, PageFigure]
    """Those that show several models, by the name of their file without the section's prefix."""

    def named(self, kind: str) -> list[PageFigure]:
        """Return the figures of a kind."""
        return [figure for name, figure in self.figures.items() if name.startswith(kind)]


def html_report(report: Report, svgs: Mapping[str, bytes], rows: str = "") -> str:
    """Return the whole page; every name in it is escaped, only our own SVG is taken as markup.

    Args:
        report: what to show.
        svgs: files by the figures' names; without any, no figure is shown.
        rows: relative address of the folder with the rows the page was made from, '' if not known.
    """
    sections = [_section(section, svgs) for section in report.sections]
    page = page_environment().get_template("report.html.j2")
    return text.visible(
        page.render(
            report=report,
            sections=sections,
            tables=[PageTable(table, _files(table, "")) for table in report.tables],
            title=_title(report),
            studies=[_shown(drawn, svgs, "") for drawn in report.figures],
            rows=rows,
            text=text,
        )
    )


def html_table(table: TableView) -> str:
    """Return one table as HTML; every name in it is escaped."""
    module: Any = page_environment().get_template("table.html.j2").make_module({"text": text})
    return text.visible(str(module.show(table)))


@cache
def page_environment() -> Environment:
    """Return what the templates are rendered by."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("iqa_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _title(report: Report) -> str:
    if not report.sections:
        return "Image quality models: tables and figures"
    count = len({m.name for s in report.sections for m in s.view.manifest.models})
    return f"Adversarial robustness of {text.count(count, 'image quality model')}"


def _section(section: Section, svgs: Mapping[str, bytes]) -> PageSection:
    prefix, setting = section.prefix, text.setting(section.view.manifest)
    models = [model for _, model in section.view.ranking()]
    anchors = {model: f"{prefix}model-{place:02d}" for place, model in enumerate(models, start=1)}
    return PageSection(
        prefix,
        section,
        _tables(section.tables, prefix, setting),
        tuple(_panel(section, model, anchors[model], svgs, setting) for model in models),
        anchors,
        {
            d.name.removeprefix(prefix): _shown(d, svgs, setting)
            for d in section.figures
            if d.model is None and svgs
        },
    )


def _tables(tables: Sequence[TableView], prefix: str, setting: str) -> dict[str, PageTable]:
    found = {}
    for table in tables:
        shown = table._replace(name=prefix + table.name, caption=_without(table.caption, setting))
        found[table.name] = PageTable(shown, _files(table, prefix))
        if table.name.startswith("leaderboard"):
            board = short_board(shown)
            labels = headings_of(board)[len(board.stub) :]
            flat = (Group("", tuple(Heading(label.strip(), numeric) for label, numeric in labels)),)
            name = table.name.replace("leaderboard", "board")
            places = tuple(
                len(board.stub) + i for i, (label, _) in enumerate(labels) if label.strip() in ROOMY
            )
            # Two tables of one page want two names.
            caption = board.caption.replace("Leaderboard", "Board", 1)
            found[name] = PageTable(board._replace(groups=flat, caption=caption), (), places)
    return found


def _files(table: TableView, prefix: str) -> tuple[tuple[str, str], ...]:
    made = (("csv", "text/csv", csv_table(table)), ("tex", "application/x-tex", latex_table(table)))
    return tuple(
        (f"{prefix}{table.name}.{kind}", f"data:{mime};base64,{b64encode(words.encode()).decode('ascii')}")
        for kind, mime, words in made
    )


def _without(caption: str, setting: str) -> str:
    return caption.removesuffix(setting).rstrip()


def _panel(section: Section, model: str, anchor: str, svgs: Mapping[str, bytes], setting: str) -> ModelPanel:
    record = next(m for m in section.view.manifest.models if m.name == model)
    flags = section.view.flags_of(model)
    return ModelPanel(
        anchor,
        model,
        section.view.verdict(model) or "not judged",
        text.checks(record),
        tuple((flag, section.explanations.get(flag.flag, "")) for flag in flags if flag.raised),
        tuple(flag for flag in flags if flag.measured and not flag.raised),
        tuple(flag.flag.replace("_", " ") for flag in flags if not flag.measured and not flag.raised),
        tuple(
            _shown(d, svgs, setting) for d in section.figures if d.kind in PANEL and d.model == model and svgs
        ),
        tuple(t for t in section.view.triptychs if t.model == model),
    )


def _shown(drawn: Drawn, svgs: Mapping[str, bytes], setting: str) -> PageFigure:
    caption = _without(drawn.caption, setting)
    return PageFigure(Markup(inline_svg(svgs[drawn.name], drawn.name, caption)), caption)  # noqa: S704  our own
