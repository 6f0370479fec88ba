"""Figures of a run: what attacks do to each model, and to all of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from iqa_reports import text
from iqa_reports.drawing import (
    BLUE,
    INK,
    ROW,
    VERMILION,
    WORST,
    blank,
    draw_line,
    look,
    panel,
    panels,
    plain_ticks,
    short,
    style,
)
from iqa_results import Estimate, Reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 150
"""Most images one figure shows; of more, every k-th by label is drawn, and the figure says so."""


def steps_figure(title: str, lines: Mapping[str, Sequence[Estimate]], low: float, label: str) -> Figure:
    """Draw SROCC with the label (MOS or pseudo-MOS) against steps for one model.

    `low` is the lower end of the axis, shared by panels side by side.
    """
    with style():
        figure, axes = panel(title)
        _clean_line(axes, lines)
        steps = sorted({e.steps for points in lines.values() for e in points})
        # Early steps do most of the work: doublings get equal room. A start (0 steps) has no logarithm.
        if steps and steps[0] > 0:
            axes.set_xscale("log", base=2)
        axes.set_xticks(steps, labels=[str(step) for step in steps])
        axes.minorticks_off()
        for name, found in lines.items():
            draw_line(axes, name, [(e.steps, e.value) for e in found], _members(lines))
        axes.set_ylim(low, 1)
        axes.set_xlabel("steps")
        axes.set_ylabel(f"SROCC with {label}")
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def radius_figure(title: str, lines: Mapping[str, Sequence[Estimate]], low: float, label: str) -> Figure:
    """Draw SROCC with the label against the radius for one model, a line an attack."""
    with style():
        figure, axes = panel(title)
        _clean_line(axes, lines)
        for name, found in lines.items():
            points = [(e.epsilon, e.value) for e in _from_clean(found)]
            draw_line(axes, name, points, _members(lines))
        _radii(axes, [e.epsilon for found in lines.values() for e in found])
        axes.set_ylim(low, 1)
        axes.set_ylabel(f"SROCC with {label}")
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def security_figure(case: str, curves: Mapping[str, Sequence[Estimate]], label: str) -> Figure:
    """Draw the security curve of every model: a worst case against the radius, its interval as a band.

    Args:
        case: name of the worst case.
        curves: by model, its points by rising radius.
        label: MOS or pseudo-MOS.
    """
    with style():
        figure, axes = panel(f"{case} against radius", (5.6, 4.2))
        names = list(curves)
        for name, found in curves.items():
            points = _from_clean(found)
            radii = [p.epsilon for p in points]
            axes.fill_between(
                radii,
                blank([p.low for p in points]),
                blank([p.high for p in points]),
                color=look(name, names).color,
                alpha=0.14,
                linewidth=0,
            )
            draw_line(axes, name, [(p.epsilon, p.value) for p in points], names)
        axes.axhline(0, color=INK, linewidth=0.5, alpha=0.35)
        _radii(axes, [p.epsilon for points in curves.values() for p in points])
        axes.set_ylim(-1.05, 1.02)
        axes.set_ylabel(f"SROCC with {label}")
        _text_legend(figure, 2)
        return figure


def fall_figure(metric: str, models: Mapping[str, Sequence[Estimate | None]], label: str) -> Figure:
    """Draw how far every model falls: a line a model over clean, suite_min and composed, with intervals.

    Args:
        metric: srocc or plcc.
        models: by model, its three estimates; a missing or undefined one is a gap.
        label: MOS or pseudo-MOS.
    """
    with style():
        figure, axes = panel(f"From clean to the worst case, {metric.upper()}")
        names = list(models)
        for place, (name, estimates) in enumerate(models.items()):
            drawn = look(name, names)
            # Side by side, so that no interval hides another one.
            xs = [x + 0.07 * (place - (len(names) - 1) / 2) for x in range(3)]
            values = (None if e is None else e.value for e in estimates)
            draw_line(axes, name, zip(xs, values, strict=True), names)
            for x, found in zip(xs, estimates, strict=True):
                if found is not None and found.low is not None and found.high is not None:
                    axes.vlines(x, found.low, found.high, color=drawn.color, linewidth=1, alpha=0.6)
        axes.axhline(0, color=INK, linewidth=0.5, alpha=0.35)
        axes.set_xticks(range(3), labels=["clean", *WORST])
        axes.set_xlim(-0.5, 2.5)
        axes.set_ylim(-1.05, 1.05)
        axes.set_ylabel(f"{metric.upper()} with {label}")
        _text_legend(figure, 2)
        return figure


def moves_figure(title: str, rows: Sequence[Reach], label: str) -> Figure:
    """Draw how far the scores of one model were moved: how many images, by the change of their score."""
    with style():
        figure, axes = panel(f"{short(title, 30)}: moves of scores", ROW)
        moves = {
            "chosen by composed": [r.composed_srocc - r.clean for r in rows],
            "lowest reached": [r.s_min - r.clean for r in rows],
            "highest reached": [r.s_max - r.clean for r in rows],
        }
        everything = [move for own in moves.values() for move in own]
        for (name, own), color in zip(moves.items(), (INK, BLUE, VERMILION), strict=True):
            filled = name == "chosen by composed"
            axes.hist(
                own,
                bins=24,
                range=(min(everything), max(everything)),
                histtype="stepfilled" if filled else "step",
                color=color,
                alpha=0.35 if filled else 1,
                linewidth=1.2,
                label=name,
            )
        axes.axvline(0, color=INK, linewidth=0.5, alpha=0.5)
        axes.set_xlabel(f"change of the score ({text.count(len(rows), 'image')} with {label})")
        axes.set_ylabel("images")
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def reach_figure(title: str, rows: Sequence[Reach], label: str) -> Figure:
    """Draw what can be reached on every image of one model, images by rising label (MOS or pseudo-MOS)."""
    with style():
        figure, axes = panel(title)
        shown, every = thinned(rows)
        places = list(range(1, len(shown) + 1))
        width = max(0.4, min(3.0, 150 / max(1, len(shown))))
        for name, color, end in (
            ("raised to s_max", BLUE, "s_max"),
            ("lowered to s_min", VERMILION, "s_min"),
        ):
            # One broken line instead of a bar an image: a tenth of the bytes in a page.
            xs = [x for place in places for x in (place, place, float("nan"))]
            ys = [y for r in shown for y in (r.clean, getattr(r, end), float("nan"))]
            axes.plot(xs, ys, color=color, linewidth=width, alpha=0.85, label=name, solid_capstyle="butt")
        for name, marker, scores in (
            ("clean", ".", [r.clean for r in shown]),
            ("chosen by composed", "_", [r.composed_srocc for r in shown]),
        ):
            axes.plot(places, scores, label=name, color=INK, linestyle="none", marker=marker, markersize=4)
        axes.set_xlabel(f"images, by rising {label}{_thinning(every)}")
        axes.set_ylabel("score of the model")
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def scatter_figure(title: str, rows: Sequence[Reach], label: str) -> Figure:
    """Draw score against label, clean and as the composed worst case chose, the largest errors marked.

    Above the tenth of the images whose clean rank is farthest from the rank of its label is marked, below
    the tenth whose score was moved farthest.
    """
    with style():
        figure, (upper, lower) = panels([f"{short(title, 36)}, clean", "composed worst case"], ROW)
        shown, every = thinned(rows)
        mos = [r.mos for r in shown]
        ends = [r.clean for r in shown] + [r.composed_srocc for r in shown]
        for axes, scores, size, name in (
            (upper, [r.clean for r in shown], _rank_errors(shown), "largest tenth of rank errors"),
            (
                lower,
                [r.composed_srocc for r in shown],
                [abs(r.composed_srocc - r.clean) for r in shown],
                "largest tenth of moves",
            ),
        ):
            far = _largest_tenth(size)
            for chosen, color, marker, words in (
                (False, BLUE, "o", "images"),
                (True, VERMILION, "^", name),
            ):
                places = [i for i in range(len(shown)) if (i in far) is chosen]
                axes.plot(
                    [mos[i] for i in places],
                    [scores[i] for i in places],
                    linestyle="none",
                    color=color,
                    marker=marker,
                    markersize=3.6 if chosen else 2.8,
                    alpha=0.85,
                    label=words,
                )
            if ends:
                room = 0.05 * (max(ends) - min(ends)) or 1.0
                axes.set_ylim(min(ends) - room, max(ends) + room)
            axes.set_ylabel("score of the model")
            axes.legend(loc="best")
        lower.set_xlabel(f"{label}{_thinning(every)}")
        return figure


def transfer_figure(
    title: str, models: Sequence[str], surrogates: Sequence[str], values: Mapping[tuple[str, str], float]
) -> Figure:
    """Draw SROCC of each model (row) on examples found on each surrogate (column) as a heat map.

    Args:
        title: of the figure.
        models: rows, top to bottom.
        surrogates: columns.
        values: SROCC by (model, surrogate); a missing one is left blank and says so.
    """
    from matplotlib import colormaps

    with style():
        side = max(2.6, 0.75 * len(surrogates) + 2.2), max(2.4, 0.45 * len(models) + 1.7)
        figure, axes = panel(title, side)
        axes.grid(visible=False)
        grid = [[values.get((m, s), float("nan")) for s in surrogates] for m in models]
        # cividis reads the same with and without colour vision.
        image = axes.imshow(grid, vmin=-1, vmax=1, cmap=colormaps["cividis"], aspect="auto")
        for row, model in enumerate(models):
            for column, surrogate in enumerate(surrogates):
                value = values.get((model, surrogate))
                words = "none" if value is None else text.number(value)
                ink = INK if value is None or value > 0.2 else "white"
                axes.text(column, row, words, ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(surrogates)), labels=list(surrogates), rotation=20, ha="right")
        axes.set_yticks(range(len(models)), labels=list(models))
        plain_ticks(axes)
        axes.set_xlabel("found on")
        axes.set_ylabel("tried on")
        figure.colorbar(image, ax=axes, label="SROCC", shrink=0.8)
        return figure


# Parts ---------------------------------------------------------------------------------------------


def thinned(rows: Sequence[Reach]) -> tuple[list[Reach], int]:
    """Return at most MANY images, every k-th by rising label, and k."""
    every = max(1, -(-len(rows) // MANY))
    return list(rows[::every]), every


def _thinning(every: int) -> str:
    return "" if every == 1 else f" (one image of {every} shown)"


def _clean_line(axes: Axes, lines: Mapping[str, Sequence[Estimate]]) -> None:
    clean = next(e.clean for points in lines.values() for e in points)
    if clean is not None:
        axes.axhline(clean, color=INK, linewidth=0.9, linestyle=":", label="clean")
    axes.axhline(0, color=INK, linewidth=0.5, alpha=0.35)


def _members(lines: Mapping[str, Sequence[Estimate]]) -> list[str]:
    return [name for name in lines if name not in WORST]


def _from_clean(points: Sequence[Estimate]) -> Sequence[Estimate]:
    """Return the points with radius 0, where every attack is the clean image, before them."""
    clean = points[0].clean
    if clean is None:
        return points
    return [points[0]._replace(epsilon=0.0, value=clean, low=clean, high=clean), *points]


def _radii(axes: Axes, radii: Sequence[float]) -> None:
    ticks = sorted({0.0, *radii})
    axes.set_xticks(ticks, labels=["0", *(text.radius(radius) for radius in ticks[1:])])
    if len(ticks) > 5:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlabel("radius ε")


def _rank_errors(rows: Sequence[Reach]) -> list[float]:
    """Return how far each image's place by clean score is from its place by label."""
    by_score = {id(r): place for place, r in enumerate(sorted(rows, key=lambda r: r.clean))}
    by_label = {id(r): place for place, r in enumerate(sorted(rows, key=lambda r: r.mos))}
    return [abs(by_score[id(r)] - by_label[id(r)]) for r in rows]


def _largest_tenth(sizes: Sequence[float]) -> set[int]:
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    return set(order[: len(sizes) // 10])


def _text_legend(figure: Figure, columns: int) -> None:
    legend = figure.legend(loc="outside lower center", ncols=columns)
    for words in legend.get_texts():
        words.set_parse_math(False)
