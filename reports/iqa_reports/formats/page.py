"""The report as one HTML page that needs nothing but itself: data, styles, figures and one small script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from iqa_reports import text
from iqa_reports.inputs.merge import Triptych
from iqa_reports.report import Drawn, Report, Section
from iqa_reports.table_view import TableView
from iqa_results import Flag

PANEL = ("steps", "radius", "reach", "scatter")
"""Kinds of figures that stand in a model's own panel."""


class PageFigure(NamedTuple):
    """A drawn figure and what is written under it."""

    svg: Markup
    caption: str


class ModelPanel(NamedTuple):
    """What a reader sees who opens a model."""

    anchor: str
    name: str
    facts: tuple[tuple[str, str], ...]
    flags: tuple[tuple[Flag, str], ...]
    """Each with its explanation."""
    figures: tuple[PageFigure, ...]
    triptychs: tuple[Triptych, ...]


class PageSection(NamedTuple):
    """One group of comparable runs, ready for the template."""

    prefix: str
    section: Section
    tables: dict[str, TableView]
    """By name without the metric: leaderboard, attacks, ... each a list."""
    panels: tuple[ModelPanel, ...]
    anchors: dict[str, str]
    """Anchor of each model's panel."""
    security: tuple[PageFigure, ...]
    transfer: tuple[PageFigure, ...]
    setting: str
    warning: str | None
    reading: list[str]
    radius: str
    provenance: list[list[tuple[str, str]]]


def html_report(report: Report, svgs: Mapping[str, str]) -> str:
    """Return the whole page; every name in it is escaped, only our own SVG is taken as markup.

    Args:
        report: what to show.
        svgs: by the figures' names, each drawn with ids of its own.
    """
    sections = [_section(section, svgs) for section in report.sections]
    page = _environment().get_template("report.html.j2")
    return text.visible(
        page.render(
            report=report,
            sections=sections,
            title=_title(report),
            studies=[_shown(drawn, svgs) for drawn in report.figures],
            number=text.number,
            signed=text.signed,
        )
    )


def html_table(table: TableView) -> str:
    """Return one table as HTML; every name in it is escaped."""
    module: Any = _environment().get_template("table.html.j2").make_module({"number": text.number})
    return text.visible(str(module.show(table)))


def _environment() -> Environment:
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


def _section(section: Section, svgs: Mapping[str, str]) -> PageSection:
    manifest = section.view.manifest
    models = [model for _, model in section.view.ranking()]
    anchors = {model: f"{section.prefix}model-{place:02d}" for place, model in enumerate(models, start=1)}
    return PageSection(
        section.prefix,
        section,
        {table.name: table._replace(name=section.prefix + table.name) for table in section.tables},
        tuple(_panel(section, model, anchors[model], svgs) for model in models),
        anchors,
        tuple(_shown(d, svgs) for d in section.figures if d.kind == "security"),
        tuple(_shown(d, svgs) for d in section.figures if d.kind == "transfer"),
        text.setting(manifest),
        text.warning(manifest),
        text.reading(manifest),
        text.radius(manifest.main_epsilon),
        [text.provenance(run.manifest, run.origin) for run in section.runs],
    )


def _panel(section: Section, model: str, anchor: str, svgs: Mapping[str, str]) -> ModelPanel:
    record = next(m for m in section.view.manifest.models if m.name == model)
    facts = [
        ("Verdict", section.view.verdict(model) or "not judged"),
        ("Checks", text.checks(record)),
        *_card(record.card),
        ("Weights", f"{record.checkpoint or 'by name'}, sha256 {record.sha256}"),
    ]
    return ModelPanel(
        anchor,
        model,
        tuple(facts),
        tuple((flag, section.explanations.get(flag.flag, "")) for flag in section.view.flags_of(model)),
        tuple(_shown(d, svgs) for d in section.figures if d.kind in PANEL and d.model == model),
        tuple(t for t in section.triptychs if t.model == model),
    )


def _card(card: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what a card says that a reader of a result wants to know, as far as it says it."""
    wanted = (
        ("name", "Registered as"),
        ("summary", "What it is"),
        ("trunk", "Backbone"),
        ("input_protocol", "Input"),
        ("source", "Source"),
    )
    return [(words, str(card[key])) for key, words in wanted if card.get(key)]


def _shown(drawn: Drawn, svgs: Mapping[str, str]) -> PageFigure:
    return PageFigure(Markup(svgs[drawn.name]), drawn.caption)  # noqa: S704  drawn by drawing.py
