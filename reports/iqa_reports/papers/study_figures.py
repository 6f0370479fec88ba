"""Figures from frames: training, ablations, sizes, attention, features, and an SRM neck's inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iqa_reports.drawing import (
    BLUE,
    INK,
    ROW,
    SIZE,
    VERMILION,
    bar_look,
    draw_line,
    look,
    panel,
    panels,
    plain_ticks,
    style,
)
from iqa_reports.inputs.frame_entries import distinct
from iqa_reports.inputs.frames import Attention, Diagnostic, Epoch, Feature, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGE_NAMES = ("stage 1", "stage 2", "stage 3", "stage 4")
QUALITY_TERCILES = ("low", "medium", "high")


def training_figure(epochs: Sequence[Epoch], model: str) -> Figure:
    """Draw one training run: its loss on the left, its correlations on the right, the chosen epoch marked."""
    with style():
        figure, (left, right) = panels([f"{model}, loss", "correlation"], ROW)
        own = [e for e in epochs if e.model == model and not e.place]
        names = distinct(e.quantity for e in own if e.quantity != "seconds")
        losses = [name for name in names if "loss" in name]
        scores = [name for name in names if name.endswith(("srocc", "plcc", "krocc"))]
        for axes, chosen in ((left, losses), (right, scores)):
            for name in chosen:
                points = sorted((e.epoch, e.value) for e in own if e.quantity == name)
                draw_line(axes, name, points, chosen, label=name.replace("_", " "))
            for epoch in sorted({e.epoch for e in own if e.best}):
                axes.axvline(epoch, color=INK, linewidth=0.8, linestyle=":", label="chosen epoch")
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", integer=True)
            if chosen:
                axes.legend(loc="best")
        return figure


def bars_figure(title: str, results: Sequence[Result], label: str) -> Figure:
    """Draw SROCC and PLCC of several models as bars side by side, deviations or intervals as whiskers.

    For ablations and for losses: one result a model and metric, in the order given.
    """
    with style():
        metrics = [m for m in ("srocc", "plcc") if any(r.metric == m for r in results)]
        figure, drawn = panels(
            [f"{title}, {m.upper()}" if i == 0 else m.upper() for i, m in enumerate(metrics)],
            ROW,
        )
        for place, (axes, metric) in enumerate(zip(drawn, metrics, strict=True)):
            own = [r for r in results if r.metric == metric and r.value is not None]
            for x, one in enumerate(own):
                value = one.value or 0.0
                axes.bar(x, value, width=0.7, **bar_look(place))
                ends = _whisker(one)
                if ends is not None:
                    axes.plot([x, x], ends, color=INK, linewidth=1.0, marker="_", markersize=5)
            axes.set_xticks(range(len(own)), labels=[r.model for r in own], rotation=25, ha="right")
            plain_ticks(axes)
            axes.axhline(0, color=INK, linewidth=0.6)
            axes.set_ylabel(f"{metric.upper()} with {label}")
        return figure


def size_figure(results: Sequence[Result], label: str) -> Figure:
    """Draw SROCC against the number of parameters, one named point a model."""
    with style():
        figure, axes = panel("accuracy and size")
        own = [r for r in results if r.metric == "srocc" and r.value is not None and r.parameters]
        names = distinct(r.model for r in own)
        for one in own:
            drawn = look(one.model, names)
            x, y = (one.parameters or 0) / 1e6, one.value or 0.0
            ends = _whisker(one)
            if ends is not None:
                axes.plot([x, x], ends, color=drawn.color, linewidth=0.8, alpha=0.6)
            axes.plot([x], [y], color=drawn.color, marker=drawn.marker, markersize=7, linestyle="none")
            axes.annotate(one.model, (x, y), (5, 4), textcoords="offset points", fontsize=8, parse_math=False)
        axes.set_xlabel("parameters (M)")
        axes.set_ylabel(f"SROCC with {label}")
        axes.margins(x=0.2, y=0.15)
        return figure


def lr_figure(results: Sequence[Result], label: str) -> Figure:
    """Draw SROCC and PLCC against the trunk's learning rate, the best one marked."""
    with style():
        figure, axes = panel("learning rate")
        metrics = [m for m in ("srocc", "plcc") if any(r.metric == m for r in results)]
        for metric in metrics:
            points = sorted(
                (r.lr, r.value) for r in results if r.metric == metric and r.lr and r.value is not None
            )
            if points:
                draw_line(axes, metric, points, metrics, label=metric.upper())
                best = max(points, key=lambda point: point[1])
                axes.plot(
                    *best, marker="o", markersize=12, fillstyle="none", color=INK, linestyle="none",
                    label="best" if metric == metrics[0] else None,
                )  # fmt: skip
        axes.set_xscale("log")
        rates = sorted({r.lr for r in results if r.lr})
        axes.set_xticks(rates, labels=[f"{rate:.2g}" for rate in rates], rotation=30)
        axes.minorticks_off()
        axes.set_xlabel("peak learning rate of the trunk")
        axes.set_ylabel(f"correlation with {label}")
        axes.legend(loc="best")
        return figure


def attention_figure(rows: Sequence[Attention], model: str, label: str) -> Figure:
    """Draw the mean weight of each stage for the thirds of the images by label, and every image."""
    with style():
        own = sorted((a for a in rows if a.model == model), key=lambda a: (a.mos, a.image_id))
        figure, (left, right) = panels([f"{model}, by {label}", "image by image"], ROW)
        thirds = _thirds(own)
        for place, (name, part) in enumerate(zip(QUALITY_TERCILES, thirds, strict=True)):
            xs = [stage + (place - 1) * 0.26 for stage in range(4)]
            means = [sum(a.stages[stage] for a in part) / max(1, len(part)) for stage in range(4)]
            left.bar(xs, means, width=0.24, label=f"{name} ({len(part)})", **bar_look(place))
        left.set_xticks(range(4), labels=STAGE_NAMES)
        left.set_ylabel("mean attention weight")
        left.set_ylim(0, 1)
        left.legend(loc="best")
        for stage in range(4):
            points = ((a.mos, a.stages[stage]) for a in own)
            draw_line(right, STAGE_NAMES[stage], points, STAGE_NAMES, linestyle="none", markersize=3)
        right.set_xlabel(label)
        right.set_ylim(-0.02, 1.02)
        right.legend(loc="best")
        return figure


def features_figure(rows: Sequence[Feature], model: str, image_id: str) -> Figure:
    """Draw the mean absolute activation of the four stages on one image, each on its own scale."""
    with style():
        own = sorted((f for f in rows if (f.model, f.image_id) == (model, image_id)), key=lambda f: f.stage)
        titles = [f"stage {f.stage} ({f.height} × {f.width})" for f in own]
        figure, drawn = panels(titles or ["no maps"], (SIZE[0], 2.5), columns=2)
        for axes, found in zip(drawn, own, strict=False):
            flat = list(found.activation)
            grid = [flat[row * found.width : (row + 1) * found.width] for row in range(found.height)]
            axes.imshow(grid, cmap="cividis", interpolation="nearest")
            axes.grid(visible=False)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
        return figure


def gate_figure(rows: Sequence[Diagnostic], model: str) -> Figure:
    """Draw SRM figure 4 from quantiles: gate entropy, routing mass, cap factor and size before the cap."""
    with style():
        own = [d for d in rows if d.model == model and d.table == "gate"]
        figure, (left, middle, right) = panels([f"{model}, gate entropy", "routing mass", "gain cap"], ROW)
        _boxes(left, own, [("entropy", "all", "entropy")])
        share = _statistic(own, "below_entropy_floor", "all", "share")
        if share is not None:
            left.set_xlabel(f"{share:.1%} of images below the floor")
        stages = [(f"stage {s}", f"stage {s}") for s in range(1, 4)]
        _boxes(middle, own, [("routing_mass", place, name) for place, name in stages])
        _boxes(right, own, [("cap_factor", "all", "cap factor"), ("rms_before_cap", "all", "RMS before cap")])
        middle.set_ylim(-0.02, 1.02)
        return figure


def gamma_figure(epochs: Sequence[Epoch], model: str) -> Figure:
    """Draw SRM figure 3 (right): each link's learned γ over training."""
    with style():
        own = [e for e in epochs if e.model == model and e.quantity == "gamma"]
        figure, axes = panel(f"{model}, γ")
        links = distinct(e.place for e in own)
        for link in links:
            points = sorted((e.epoch, e.value) for e in own if e.place == link)
            draw_line(axes, link, points, links, label=link or "all links")
        axes.axhline(1, color=INK, linewidth=0.6, linestyle=":")
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("γ, median over heads")
        axes.legend(loc="best")
        return figure


def scale_figure(rows: Sequence[Diagnostic], model: str) -> Figure:
    """Draw SRM figure 3 (left): size of attention outputs before and after γ, link by link."""
    with style():
        own = [d for d in rows if d.model == model and d.table == "scale"]
        links = [place for place in distinct(d.place for d in own) if place != "all"]
        figure, axes = panel(f"{model}, scale of attention outputs")
        for shift, quantity, color, words in (
            (-0.16, "rms_before", BLUE, "before γ"),
            (0.16, "rms_after", VERMILION, "after γ"),
        ):
            _boxes(
                axes, own, [(quantity, link, link) for link in links], shift=shift, color=color, label=words
            )
        axes.set_ylabel("RMS / √d")
        axes.legend(loc="best")
        return figure


# Parts ---------------------------------------------------------------------------------------------


def _boxes(
    axes: Axes,
    rows: Sequence[Diagnostic],
    places: Sequence[tuple[str, str, str]],
    *,
    shift: float = 0.0,
    color: str = BLUE,
    label: str | None = None,
) -> None:
    """Draw boxes from stored quantiles (quantity, place, name): box 25-75 %, whiskers 5-95 %, median."""
    for x, (quantity, place, _) in enumerate(places):
        points = {
            name: _statistic(rows, quantity, place, name) for name in ("p05", "p25", "median", "p75", "p95")
        }
        if any(value is None for value in points.values()):
            continue
        p05, p25, median, p75, p95 = (points[n] or 0.0 for n in ("p05", "p25", "median", "p75", "p95"))
        at = x + shift
        axes.plot([at, at], [p05, p95], color=color, linewidth=1.0)
        axes.bar(
            at, p75 - p25, width=0.28, bottom=p25, color=color, alpha=0.55, label=label if x == 0 else None
        )
        axes.plot([at - 0.14, at + 0.14], [median, median], color=INK, linewidth=1.4)
    axes.set_xticks(range(len(places)), labels=[name for _, _, name in places])
    axes.set_xlim(-0.6, len(places) - 0.4)


def _statistic(rows: Sequence[Diagnostic], quantity: str, place: str, statistic: str) -> float | None:
    return next(
        (d.value for d in rows if (d.quantity, d.place, d.statistic) == (quantity, place, statistic)), None
    )


def _whisker(result: Result) -> tuple[float, float] | None:
    if result.value is not None and result.std is not None:
        return result.value - result.std, result.value + result.std
    return None if result.low is None or result.high is None else (result.low, result.high)


def _thirds(rows: Sequence[Attention]) -> list[Sequence[Attention]]:
    first, second = len(rows) // 3, 2 * len(rows) // 3
    return [rows[:first], rows[first:second], rows[second:]]
