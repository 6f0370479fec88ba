"""Figures of a run, drawn without global state and saved to the same bytes every time."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from xml.sax.saxutils import quoteattr

from iqa_reports.run_view import Line, Reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
"""Colour of text, frames and worst cases; the page replaces it by its own text colour."""

# Okabe and Ito's palette, which stays apart for colour-blind readers; its yellow is too light on white.
_BLUE, _VERMILION, _GREEN, _ORANGE, _PURPLE, _SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
)


class _Look(NamedTuple):
    color: str
    marker: str
    dash: str
    size: float = 4.5
    fill: Literal["full", "none"] = "full"


# Colour is never the only difference: every line has its own marker too.
# suite_min runs along one of its members, so its marker is a frame around that member's.
_WORST = {"suite_min": _Look(INK, "s", "--", 8.0, "none"), "composed": _Look(INK, "D", "-")}
_CYCLE = (
    _Look(_BLUE, "o", "-"),
    _Look(_VERMILION, "^", "-"),
    _Look(_GREEN, "v", "-"),
    _Look(_ORANGE, "X", "-"),
    _Look(_PURPLE, "P", "-"),
    _Look(_SKY, "*", "-"),
)

_STYLE = {
    "svg.hashsalt": "iqa_reports",
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
}

_SIZE = (4.6, 3.5)


def steps_figure(title: str, clean: float | None, lines: Sequence[Line], low: float, label: str) -> Figure:
    """Draw SROCC with the label (MOS or pseudo-MOS) against steps for one model.

    `low` is the lower end of the axis, shared by panels side by side.
    """
    with _style():
        figure, axes = _panel(title)
        if clean is not None:
            axes.axhline(clean, color=INK, linewidth=0.9, linestyle=":", label="clean")
        axes.axhline(0, color=INK, linewidth=0.5, alpha=0.35)
        steps = sorted({step for line in lines for step, _ in line.points})
        # Early steps do most of the work: doublings get equal room. A start (0 steps) has no logarithm.
        if steps and steps[0] > 0:
            axes.set_xscale("log", base=2)
        axes.set_xticks(steps, labels=[str(step) for step in steps])
        axes.minorticks_off()
        others = [line.label for line in lines if line.label not in _WORST]
        for line in lines:
            look = _WORST.get(line.label) or _CYCLE[others.index(line.label) % len(_CYCLE)]
            values = [math.nan if value is None else value for _, value in line.points]
            axes.plot(
                [step for step, _ in line.points],
                values,
                color=look.color,
                marker=look.marker,
                linestyle=look.dash,
                markersize=look.size,
                fillstyle=look.fill,
                label=line.label,
                clip_on=False,
            )
        axes.set_ylim(low, 1)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.5)
        axes.set_xlabel("steps")
        axes.set_ylabel(f"SROCC with {label}")
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def reach_figure(title: str, rows: Sequence[Reach], label: str) -> Figure:
    """Draw what can be reached on every image of one model, images by rising label (MOS or pseudo-MOS)."""
    with _style():
        figure, axes = _panel(title)
        places = list(range(1, len(rows) + 1))
        width = max(0.4, min(3.0, 150 / max(1, len(rows))))
        bars = [("raised to s_max", _BLUE, "s_max"), ("lowered to s_min", _VERMILION, "s_min")]
        for name, color, end in bars:
            axes.vlines(
                places,
                [r.clean for r in rows],
                [getattr(r, end) for r in rows],
                color=color,
                linewidth=width,
                alpha=0.85,
                label=name,
            )
        for name, marker, scores in (
            ("clean", ".", [r.clean for r in rows]),
            ("chosen by composed", "_", [r.composed_srocc for r in rows]),
        ):
            axes.plot(places, scores, label=name, color=INK, linestyle="none", marker=marker, markersize=4)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.5)
        axes.set_xlabel(f"images, by rising {label}")
        axes.set_ylabel("score of the model")
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def save_figure(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """Return the figure as a file on a white ground; the same figure gives the same bytes."""
    return _save(figure, kind, facecolor="white")


def inline_svg(figure: Figure, prefix: str, description: str) -> str:
    """Return the figure as an <svg> element for a page: text colour of the page, ids of its own."""
    source = _save(figure, "svg", transparent=True).decode("utf-8")
    source = source[source.index("<svg") :].strip()
    source = re.sub(r"<metadata>.*?</metadata>\s*", "", source, flags=re.DOTALL)
    source = source.replace(INK, "currentColor")
    source = re.sub(r'\bid="', f'id="{prefix}-', source)
    source = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", source)
    return source.replace("<svg ", f"<svg role='img' aria-label={quoteattr(description)} ", 1)


def _save(figure: Figure, kind: Literal["svg", "png"], **options: Any) -> bytes:
    buffer = io.BytesIO()
    stamps = ("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",)
    with _style(), warnings.catch_warnings():
        # A model's name may use a script that matplotlib's own font lacks: boxes, not a failure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, dpi=160, metadata=dict.fromkeys(stamps), **options)
    return buffer.getvalue()


def _panel(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    # A dollar sign in a model's name is not mathematics.
    axes.set_title(title, parse_math=False)
    return figure, axes


@contextmanager
def _style() -> Iterator[None]:
    """Draw in our style over matplotlib's defaults, whatever the user's matplotlibrc says."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield
