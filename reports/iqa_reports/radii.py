"""The smallest radii that move a model's scores: their table, and how many images are moved within each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iqa_reports import text
from iqa_reports.drawing import INK, draw_line, panel, style
from iqa_reports.inputs.stored_run import Member, StoredRun
from iqa_reports.table_view import Entry, Notes, TableView, columns, measured, stub, undefined
from iqa_results import Measure, RunManifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOALS = {
    "raise": "up by {goal}",
    "lower": "down by {goal}",
    "drift": "by {goal}, either way",
    "pairwise_inversion": "past its nearest pair",
}
"""What an objective asks for, in words."""

BEYOND = "beyond the largest radius tried: half of the images, or more, were not moved"


def radii_table(view: StoredRun) -> TableView | None:
    """Return the median of the smallest radii by model and goal; None if no attack looked for them."""
    notes, rows = Notes(), []
    for _, model in view.ranking():
        for member in members(view):
            found = {m.measure: m for m in _of(view, model, member) if m.measure != "moved_share"}
            if found:
                rows.append(
                    (
                        Entry(model, "header"),
                        Entry(_goal(view.manifest, member), "label"),
                        _median(found, notes),
                        *(_share(found.get(name), notes) for name in ("radius_missed", "radius_kept_8bit")),
                        _gradients(view, model, member, notes),
                    )
                )
    if not rows:
        return None
    return TableView(
        name="radii",
        caption="Minimum norm: the smallest change found that moves an image's score so far, in norm "
        f"{view.radii[0].norm}; median over the images with its 95 % interval, the share that nothing up "
        "to the largest radius moved, and of the others the share that is moved after rounding to 8 bits. "
        f"{text.setting(view.manifest)}",
        stub=stub("Model", "Moved"),
        groups=(
            columns("value [95 %]", group="median radius"),
            columns("not found", "kept by 8 bits", group="share"),
            columns("gradients", group="Cost an image"),
        ),
        rows=tuple(rows),
        notes=notes.listed(),
    )


def radii_figure(view: StoredRun, member: Member) -> Figure | None:
    """Draw the share of images moved against the radius, a line a model; None without a moved image."""
    curves = {model: _curve(view, model, member) for _, model in view.ranking()}
    curves = {model: curve for model, curve in curves.items() if any(radius > 0 for radius, _ in curve)}
    if not curves:
        return None
    norm = view.radii[0].norm
    unit = 1.0 if norm == "2" else 255.0
    radii = [radius * unit for curve in curves.values() for radius, _ in curve if radius > 0]
    with style():
        figure, axes = panel(f"Moved {_goal(view.manifest, member)}", (5.6, 4.2))
        first, last = min(radii) / 2, max(radii) * 1.25
        for model, curve in curves.items():
            at_once = max((share for radius, share in curve if radius == 0), default=0.0)
            points = [(first, at_once), *((r * unit, share) for r, share in curve if r > 0)]
            points.append((last, points[-1][1]))
            every = max(1, len(points) // 5)
            draw_line(axes, model, points, list(curves), drawstyle="steps-post", markevery=every)
        axes.axhline(0.5, color=INK, linewidth=0.5, alpha=0.35)
        axes.set_xscale("log")
        axes.set_xlim(first, last)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"radius, norm {norm}" + ("" if unit == 1 else ", in grey levels (1/255)"))
        axes.set_ylabel("share of the images moved")
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def members(view: StoredRun) -> list[Member]:
    """Return the attacks and objectives that looked for the smallest radius."""
    return list(dict.fromkeys(Member(m.attack, m.objective) for m in view.radii if m.objective != "all"))


def _of(view: StoredRun, model: str, member: Member) -> list[Measure]:
    return [m for m in view.radii if (m.model, m.attack, m.objective) == (model, *member)]


def _curve(view: StoredRun, model: str, member: Member) -> list[tuple[float, float]]:
    points = _of(view, model, member)
    return sorted((m.epsilon, m.value) for m in points if m.measure == "moved_share" and m.value is not None)


def _goal(manifest: RunManifest, member: Member) -> str:
    """Say what a member asks for; how far stands in the suite."""
    attacks = text.suite_of(manifest).get("attacks") or ()
    own = [a for a in attacks if isinstance(a, dict) and a.get("name") == member.attack]
    goal = own[0].get("goal", 1) if own else 1
    words = GOALS.get(member.objective, member.label)
    return words.format(goal="one IQR" if goal == 1 else f"{goal:g} IQRs")


def _median(found: dict[str, Measure], notes: Notes) -> Entry:
    median, low, high = (found.get(f"radius_{name}") for name in ("median", "low", "high"))
    if median is None or low is None or high is None:
        return undefined(notes, median and median.undefined)
    interval = f"[{_worded(low)}, {_worded(high)}]"
    mark = notes.mark(BEYOND) if median.value is None else ""
    bounds = None if low.value is None or high.value is None else (low.value, high.value)
    return Entry(_worded(median), "number", interval, mark, median.value, bounds)


def _worded(found: Measure) -> str:
    """Write a radius; one without a value is beyond the largest that was tried."""
    radius = found.epsilon if found.value is None else found.value
    size = f"{radius:.3g}" if found.norm == "2" else f"{radius * 255:.3g}/255"
    return f"> {size}" if found.value is None else size


def _share(found: Measure | None, notes: Notes) -> Entry:
    why = "not known" if found is None or found.undefined is None else found.undefined
    return measured(None if found is None else found.value, lambda value: f"{value:.1%}", notes, why)


def _gradients(view: StoredRun, model: str, member: Member, notes: Notes) -> Entry:
    spent: Sequence[float | None] = [
        m.value for m in view.radii if (m.model, m.attack, m.measure) == (model, member.attack, "backwards")
    ]
    return measured(spent[0] if spent else None, lambda value: f"{value:,.0f}", notes, "not recorded")
