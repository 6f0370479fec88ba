"""From a run to files: the page, the Markdown and the figures."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iqa_reports import text
from iqa_reports.figures import inline_svg, reach_figure, save_figure, steps_figure
from iqa_reports.markdown import markdown_report
from iqa_reports.page import PageFigure, html_report
from iqa_reports.run_view import RunView, reach_of, view_run

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from iqa_results import RunManifest


class _Drawn(NamedTuple):
    name: str
    caption: str
    figure: Figure


def render_report(manifest: RunManifest, table: pa.Table, intervals: pa.Table, out: Path) -> list[Path]:
    """Write index.html, report.md and figures/ below `out` and return what was written, the page first.

    Each file is replaced whole; the page comes last, so that a page there is a page finished.

    Raises:
        InconsistentRun: the tables do not belong to the manifest.
    """
    view = view_run(manifest, table)
    steps, reach = _steps(view), _reach(view, intervals)
    page = html_report(view, [_inline(drawn) for drawn in steps], [_inline(drawn) for drawn in reach])
    markdown = markdown_report(view, [(d.caption, f"figures/{d.name}.svg") for d in (*steps, *reach)])
    files = {
        out / "figures" / f"{drawn.name}.{kind}": save_figure(drawn.figure, kind)
        for drawn in (*steps, *reach)
        for kind in ("svg", "png")
    }
    files[out / "report.md"] = markdown.encode("utf-8")
    files[out / "index.html"] = page.encode("utf-8")
    for path, content in files.items():
        _write(path, content)
    for stale in sorted((out / "figures").glob("*-[0-9][0-9]-*.*")):
        if stale.suffix in (".svg", ".png") and stale not in files:
            stale.unlink()  # of a model that is in this run no more
    return [*reversed(files)]


def _steps(view: RunView) -> list[_Drawn]:
    manifest = view.manifest
    lines = {model: view.step_lines(model) for _, model in view.ranking()}
    values = [v for found in lines.values() for line in found for _, v in line.points if v is not None]
    low = min([0.0, *values]) - 0.05
    return [
        _Drawn(
            _file_name("steps", place, model),
            f"{model}: SROCC against steps of {manifest.step_sweep} at "
            f"ε = {text.radius(manifest.main_epsilon)}, without intervals. {text.setting(manifest)}",
            steps_figure(model, _value_of(view, model), found, low, manifest.data.label),
        )
        for place, (model, found) in enumerate(lines.items())
        if found
    ]


def _reach(view: RunView, intervals: pa.Table) -> list[_Drawn]:
    manifest = view.manifest
    rows = {model: reach_of(intervals, model, manifest.main_epsilon) for _, model in view.ranking()}
    return [
        _Drawn(
            _file_name("reach", place, model),
            f"{model}: lowest and highest score any attack reached on each image at "
            f"ε = {text.radius(manifest.main_epsilon)}. {text.setting(manifest)}",
            reach_figure(model, found, manifest.data.label),
        )
        for place, (model, found) in enumerate(rows.items())
        if found
    ]


def _value_of(view: RunView, model: str) -> float | None:
    clean = view.clean(model, "srocc")
    return None if clean is None else clean.value


def _inline(drawn: _Drawn) -> PageFigure:
    return PageFigure(inline_svg(drawn.figure, drawn.name, drawn.caption), drawn.caption)


def _file_name(kind: str, place: int, model: str) -> str:
    """Return a name that is safe in a file system, a link and an id; the place keeps two models apart."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", model).strip("-")[:40]
    return f"{kind}-{place + 1:02d}-{plain}".rstrip("-")


def _write(path: Path, content: bytes) -> None:
    """Write beside `path` under a name of our own, then rename into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
