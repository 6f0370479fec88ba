"""How every figure looks, and how it becomes a file: one style, the same bytes every time."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from xml.sax.saxutils import quoteattr

from iqa_reports.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
"""Colour of text, frames and worst cases; the page replaces it by its own text colour."""

# Okabe and Ito's palette, which stays apart for colour-blind readers; its yellow is too light on white.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
)


class Look(NamedTuple):
    """How one line is drawn; no two differ by colour alone."""

    color: str
    marker: str
    dash: str
    size: float = 4.5
    fill: Literal["full", "none"] = "full"


# Colour is never the only difference: every line has its own marker too.
# suite_min runs along one of its members, so its marker is a frame around that member's.
WORST = {"suite_min": Look(INK, "s", "--", 8.0, "none"), "composed": Look(INK, "D", "-")}
CYCLE = (
    Look(BLUE, "o", "-"),
    Look(VERMILION, "^", "-"),
    Look(GREEN, "v", "-"),
    Look(ORANGE, "X", "-"),
    Look(PURPLE, "P", "-"),
    Look(SKY, "*", "-"),
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
    "axes.titley": 1.0,  # where it would come to lie, without looking for ticks above at every step
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
}

_LONG = re.compile(r"(\d+\.\d\d)\d+")
"""A number with more than two decimals."""

SIZE = (4.6, 3.5)
"""Inches of a figure with one panel."""

ROW = (4.6, 2.7)
"""Inches of one panel of several."""


def save_figure(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """Return the figure as a file on a white ground; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    stamps = ("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",)
    with style(), warnings.catch_warnings():
        # A model's name may use a script that matplotlib's own font lacks: boxes, not a failure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        if (engine := figure.get_layout_engine()) is not None:
            # Once for all files; otherwise each file draws the figure twice and lays it out anew.
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(
            buffer, format=kind, dpi=160, metadata=dict.fromkeys(stamps), facecolor="white", edgecolor="none"
        )
    if kind == "png":
        return buffer.getvalue()
    return visible(buffer.getvalue().decode()).encode()  # XML has no control signs


def inline_svg(file: bytes, prefix: str, description: str) -> str:
    """Return an SVG file as an <svg> element for a page: its ground and text colour, ids of its own."""
    source = file.decode("utf-8")
    source = source[source.index("<svg") :].strip()
    source = re.sub(r'(<path [^>]*style="fill: )#ffffff"', r'\1none"', source)
    source = re.sub(r"<metadata>.*?</metadata>\s*", "", source, flags=re.DOTALL)
    # Hundredths of a point are enough on a screen, and a third of the page's bytes less.
    source = re.sub(r"<[^>]+>", lambda tag: _LONG.sub(r"\1", tag.group()), source)
    source = source.replace(INK, "currentColor")
    source = re.sub(r'\bid="', f'id="{prefix}-', source)
    source = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", source)
    return source.replace("<svg ", f"<svg role='img' aria-label={quoteattr(description)} ", 1)


def panel(title: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure, (axes,) = panels([title], size)
    return figure, axes


def panels(
    titles: Sequence[str], size: tuple[float, float] = SIZE, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes one below the other, one a title; `size` is that of one row in inches.

    Stacked, every figure has one width, and its words are large enough on a phone.
    """
    from matplotlib.figure import Figure

    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(size[0], size[1] * rows), layout="constrained")
    found = [figure.add_subplot(rows, columns, place + 1) for place in range(len(titles))]
    for axes, title in zip(found, titles, strict=True):
        # A dollar sign in a model's name is not mathematics.
        axes.set_title(short(title, 46), parse_math=False)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure, found


def short(name: str, room: int) -> str:
    """Return a name that fits over a panel; the caption has the whole of it."""
    return name if len(name) <= room else f"{name[: room - 1]}\N{HORIZONTAL ELLIPSIS}"


def look(label: str, others: Sequence[str]) -> Look:
    """Return how a line is drawn: worst cases have their own look, others go by their place in `others`."""
    return WORST.get(label) or CYCLE[list(others).index(label) % len(CYCLE)]


def bar_look(place: int) -> dict[str, Any]:
    """Return fill and hatch of the bar series at a place: told apart without colour too."""
    hatches = ("", "///", "...", "xx", "\\\\\\", "oo")
    return {
        "color": CYCLE[place % len(CYCLE)].color,
        "hatch": hatches[place % len(hatches)],
        "edgecolor": "white",
        "linewidth": 0.4,
    }


def blank(values: Sequence[float | None]) -> list[float]:
    """Return values for matplotlib, which leaves a gap at NaN."""
    return [math.nan if value is None else value for value in values]


def draw_line(
    axes: Axes, name: str, points: Iterable[tuple[float, float | None]], others: Sequence[str], **how: Any
) -> None:
    """Draw one of several lines, in the look of its place among `others` but for what `how` says."""
    drawn, found = look(name, others), list(points)
    own: dict[str, Any] = {
        "color": drawn.color,
        "marker": drawn.marker,
        "linestyle": drawn.dash,
        "markersize": drawn.size,
        "fillstyle": drawn.fill,
        # matplotlib hides a label that begins with an underscore.
        "label": f"\u200b{name}" if name.startswith("_") else name,
        "clip_on": False,
    }
    axes.plot([x for x, _ in found], blank([y for _, y in found]), **(own | how))


def plain_ticks(axes: Axes) -> None:
    """Show names as they are: a dollar sign is not mathematics."""
    for words in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        words.set_parse_math(False)


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style over matplotlib's defaults, whatever the user's matplotlibrc says."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield
