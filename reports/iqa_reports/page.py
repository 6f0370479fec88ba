"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from iqa_reports import text
from iqa_reports.run_view import RunView
from iqa_reports.tables import all_tables


class PageFigure(NamedTuple):
    """A drawn figure and what is written under it."""

    svg: str
    caption: str


def html_report(view: RunView, steps: Sequence[PageFigure], reach: Sequence[PageFigure]) -> str:
    """Return the whole page; every name and message in it is escaped, only our own SVG is taken as markup."""
    manifest = view.manifest
    environment = Environment(
        loader=PackageLoader("iqa_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        setting=text.setting(manifest),
        warning=text.warning(manifest),
        reading=text.reading(manifest),
        provenance=text.provenance(manifest),
        tables={table.name: table for table in all_tables(view)},
        radius=text.radius(manifest.main_epsilon),
        steps=[(Markup(figure.svg), figure.caption) for figure in steps],  # noqa: S704  drawn by figures.py
        reach=[(Markup(figure.svg), figure.caption) for figure in reach],  # noqa: S704  drawn by figures.py
    )
