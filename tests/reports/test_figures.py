"""Every figure from its frame: the same bytes twice, the right marks, nothing drawn that was not given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from helpers.views import POINT, sweep, view_run
from iqa_reports.drawing import CYCLE, WORST, inline_svg, save_figure
from iqa_reports.figures import (
    MANY,
    fall_figure,
    moves_figure,
    radius_figure,
    reach_figure,
    scatter_figure,
    security_figure,
    steps_figure,
    transfer_figure,
)
from iqa_reports.inputs.frames import Result
from iqa_reports.papers.study_figures import (
    attention_figure,
    bars_figure,
    features_figure,
    gamma_figure,
    gate_figure,
    lr_figure,
    scale_figure,
    size_figure,
    training_figure,
)
from iqa_reports.report import study_figures
from iqa_results import Estimate, Reach

Frames = dict[str, list[Any]]

POINTS = [
    POINT._replace(epsilon=e, value=0.8 - 90 * e, low=0.7 - 90 * e, high=0.9 - 90 * e)
    for e in (1 / 255, 2 / 255, 4 / 255)
]


def bare(points: list[Estimate]) -> list[Estimate]:
    """The points without a clean value."""
    return [e._replace(clean=None) for e in points]


def reach(count: int) -> list[Reach]:
    """Images whose clean score follows the label and whose worst case turns it around."""
    return [
        Reach(
            "m",
            "inf",
            0.01,
            f"i{i}",
            i / count,
            i / count,
            i / count - 0.3,
            i / count + 0.2,
            1 - i / count,
            0.5,
        )
        for i in range(count)
    ]


def clean(frames: Frames, metric: str | None = None) -> list[Result]:
    """Clean results on koniq10k."""
    rows = frames["results"]
    return [r for r in rows if (r.row, r.data) == ("clean", "koniq10k") and metric in (None, r.metric)]


# Figures of a run are drawn twice in test_formats.
CASES: dict[str, Callable[[Frames], Any]] = {
    "security": lambda f: security_figure("composed", {"m_1": POINTS, "_m": bare(POINTS)}, "MOS"),
    "transfer": lambda f: transfer_figure("t", ["a", "$b$"], ["a", "$b$"], {("a", "$b$"): -0.5}),
    "training": lambda f: training_figure(f["training"], "base"),
    "bars": lambda f: bars_figure("ablation", clean(f), "MOS"),
    "size": lambda f: size_figure(clean(f), "MOS"),
    "lr": lambda f: lr_figure(clean(f), "MOS"),
    "attention": lambda f: attention_figure(f["attention"], "base", "MOS"),
    "features": lambda f: features_figure(f["features"], "base", "i0"),
    "gate": lambda f: gate_figure(f["diagnostics"], "srm"),
    "scale": lambda f: scale_figure(f["diagnostics"], "srm"),
    "gamma": lambda f: gamma_figure(f["training"], "base"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_well_formed_and_the_same_bytes_twice(name: str, frames: Frames) -> None:
    """Drawn twice, under other settings of the user's, a figure gives one SVG."""
    first = save_figure(CASES[name](frames), "svg")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = save_figure(CASES[name](frames), "svg")
    assert first == second
    words = " ".join(ET.fromstring(first).itertext())  # noqa: S314  our own output
    assert len(words.split()) > 4


def test_no_two_lines_differ_by_colour_alone() -> None:
    """Every look of the palette has its own marker."""
    markers = [one.marker for one in (*CYCLE, *WORST.values())]
    assert len(set(markers)) == len(markers)


def test_the_security_curve_starts_at_the_clean_value_and_its_band_is_the_interval() -> None:
    """Radius 0 is the clean value; the band runs from low to high."""
    axes = security_figure("composed", {"m": POINTS}, "MOS").axes[0]
    line = next(one for one in axes.get_lines() if one.get_label() == "m")
    assert next(iter(line.get_ydata())) == 0.8
    assert next(iter(line.get_xdata())) == 0
    path = axes.collections[0].get_paths()[0].vertices
    assert path[:, 1].min() == pytest.approx(min(p.low for p in POINTS if p.low is not None))
    assert path[:, 1].max() == pytest.approx(max(0.8, *(p.high for p in POINTS if p.high is not None)))


def test_a_model_whose_name_begins_with_an_underscore_is_in_the_legend() -> None:
    """Matplotlib would leave it out in silence."""
    figure = security_figure("composed", {"_hidden": POINTS}, "MOS")
    assert "_hidden" in save_figure(figure, "svg").decode()


def test_the_scatter_marks_the_largest_tenth() -> None:
    """Of forty images the four that moved farthest are triangles."""
    below = scatter_figure("m", reach(40), "MOS").axes[1]
    far = next(one for one in below.get_lines() if one.get_label() == "largest tenth of moves")
    assert len(far.get_xdata()) == 4
    moved = np.abs(1 - 2 * np.asarray(far.get_xdata(), dtype=float))
    assert moved.min() >= 0.9


def test_many_images_are_thinned_and_the_axis_says_so() -> None:
    """At most MANY images are drawn, every k-th by label."""
    axes = reach_figure("m", reach(2 * MANY + 1), "MOS").axes[0]
    dots = next(one for one in axes.get_lines() if one.get_label() == "clean")
    assert len(dots.get_xdata()) == 101
    assert axes.get_xlabel() == "images, by rising MOS (one image of 3 shown)"


def test_twenty_models_fit_into_a_page() -> None:
    """The figures of one model on ten thousand images take a twentieth of 4 MB at most."""
    many = reach(10_000)
    lines = {str(i): sweep(dict.fromkeys((1, 5, 10, 20, 40), 0.5)) for i in range(8)}
    radii = {str(i): POINTS for i in range(8)}
    figures = [
        steps_figure("m", lines, -1, "MOS"),
        radius_figure("m", radii, -1, "MOS"),
        reach_figure("m", many, "MOS"),
        scatter_figure("m", many, "MOS"),
    ]
    assert sum(len(inline_svg(save_figure(figure, "svg"), "a", "b")) for figure in figures) < 200_000


def test_a_heat_map_says_where_there_is_no_value() -> None:
    """A pair without a value is blank and labelled, not zero."""
    axes = transfer_figure("t", ["a", "b"], ["a", "b"], {("a", "b"): -0.5}).axes[0]
    words = sorted(t.get_text() for t in axes.texts)
    assert words == ["none", "none", "none", "\N{MINUS SIGN}0.500"]
    assert int(np.isnan(np.asarray(axes.images[0].get_array(), dtype=float)).sum()) in (0, 3)


def test_the_chosen_epoch_is_marked(frames: Frames) -> None:
    """A dotted line stands at the epoch that was chosen."""
    axes = training_figure(frames["training"], "base").axes[1]
    marks = [one for one in axes.get_lines() if one.get_label() == "chosen epoch"]
    assert [list(one.get_xdata()) for one in marks] == [[2, 2]]


def test_whiskers_are_the_deviation_or_the_interval(frames: Frames) -> None:
    """A mean over seeds has its deviation, one model's value its interval."""
    row = clean(frames, "srocc")[0]
    seeds = row._replace(model="s", std=0.05, low=None, high=None, seeds=3)
    axes = bars_figure("x", [row, seeds], "MOS").axes[0]
    ends = [list(one.get_ydata()) for one in axes.get_lines() if one.get_marker() == "_"]
    assert ends[0] == pytest.approx([row.low, row.high])
    assert ends[1] == pytest.approx([(row.value or 0) - 0.05, (row.value or 0) + 0.05])


def test_attention_is_averaged_over_thirds_of_the_labels(frames: Frames) -> None:
    """Nine images make three thirds of three; bars are their mean weights."""
    axes = attention_figure(frames["attention"], "base", "MOS").axes[0]
    heights = [[patch.get_height() for patch in bars] for bars in axes.containers]  # type: ignore[attr-defined]
    assert len(heights) == 3
    assert heights[0] == pytest.approx([0.1, 0.2, 0.32, 0.38])
    assert heights[2] == pytest.approx([0.1, 0.2, 0.44, 0.26])


def test_study_figures_are_made_from_the_frames_that_are_there(frames: Frames) -> None:
    """One of each kind the frames hold something for; none without frames."""
    names = {d.name for d in study_figures(frames, {"koniq10k": "MOS"})}
    assert names == {
        "study-variant-tid2013",
        "study-variant-koniq10k",
        "study-variant-spaq",
        "study-loss-koniq10k",
        "study-loss-spaq",
        "study-size-koniq10k",
        "study-size-spaq",
        "study-lr-koniq10k",
        "study-lr-spaq",
        "study-training-base",
        "study-gamma-base",
        "study-gate-srm",
        "study-scale-srm",
        "study-attention-base",
        "study-features-base-i0",
    }
    assert study_figures({}, {}) == []


def test_a_fall_is_a_line_a_model_with_its_intervals(make_run: Callable[..., Any]) -> None:
    """Values in order, an undefined one a gap, an interval drawn from end to end."""
    run = make_run()
    view = view_run(run.manifest, run.table)
    found = (view.clean("weak", "plcc"), view.worst("weak", "suite_min", 2 / 255, "plcc"), None)
    (axes,) = fall_figure("plcc", {"weak": found}, "MOS").axes
    line = next(line for line in axes.get_lines() if line.get_label() == "weak")
    assert [str(v) for v in line.get_ydata()] == ["0.868", "nan", "nan"]
    (bar,) = (segment for lines in axes.collections for segment in lines.get_segments())
    assert bar[:, 1].tolist() == pytest.approx([0.768, 0.968])


def test_moves_are_counted_by_their_size() -> None:
    """The outline of every histogram holds the counts of numpy's own."""
    rows = reach(40)
    (axes,) = moves_figure("m", rows, "MOS").axes
    moves = [[getattr(r, end) - r.clean for r in rows] for end in ("composed_srocc", "s_min", "s_max")]
    ends = min(map(min, moves)), max(map(max, moves))
    for patch, own in zip(axes.patches, moves, strict=True):
        counts, _ = np.histogram(own, bins=24, range=ends)
        heights = patch.get_path().vertices[1:49:2, 1]
        assert heights.tolist() == counts.tolist()
