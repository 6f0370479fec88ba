"""What attacks find of plants in the models' scores: a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iqa_reports.drawing import INK, draw_line, panels, style
from iqa_reports.table_view import Entry, Group, Heading, Notes, TableView, columns, measured, missing, stub
from iqa_results import Power

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8
"""Most models one figure shows."""


def power_view(power: Sequence[Power], setting: str = "") -> TableView | None:
    """Return the share of plants that each attack found, of all it must find and by grade; None of none.

    Args:
        power: rows of some models.
        setting: what the caption ends with.
    """
    if not power:
        return None
    notes = Notes()
    widths = sorted({p.width for p in power if p.width is not None}, reverse=True)
    steep = sorted({p.steepness for p in power if p.steepness is not None})
    rows = []
    for model, attack in dict.fromkeys((p.model, p.attack) for p in power):
        mine = {(p.width, p.steepness): p for p in power if (p.model, p.attack) == (model, attack)}
        whole = mine.get((None, None))
        row = [Entry(model, "header"), Entry(attack, "label")]
        if whole is None:
            row += [missing(notes, "no plant of these grades") for _ in range(2)]
        else:
            ends = f"[{whole.low:.2f}, {whole.high:.2f}]"
            row.append(Entry(f"{whole.found} of {whole.plants}", "label"))
            row.append(
                Entry(
                    f"{whole.share:.2f}", "number", ends, number=whole.share, bounds=(whole.low, whole.high)
                )
            )
        for grade in [(width, each) for width in widths for each in steep]:
            found = mine.get(grade)
            row.append(measured(found and found.share, lambda v: f"{v:.2f}", notes, "no plant of this grade"))
        rows.append(tuple(row))
    must = Group("must be found", (Heading("", numeric=False), Heading("share [95 %]", numeric=True)))
    groups = [columns(*(f"{each:g}" for each in steep), group=f"width {w:.2g}, steepness") for w in widths]
    caption = (
        "Power of the attacks: the share of plants each one found; 'any' is what at least one found. "
        "Plants at least as steep as the model's own slope where attacks begin (steepness 1) must be found."
    )
    stubs = stub("Model", "Attack")
    return TableView(
        "power", f"{caption} {setting}".strip(), stubs, (must, *groups), tuple(rows), notes.listed()
    )


def power_figure(power: Sequence[Power]) -> Figure:
    """Draw the share of plants found against their steepness: a panel a model, a line an attack."""
    models = list(dict.fromkeys(p.model for p in power))[:SHOWN]
    attacks = list(dict.fromkeys(p.attack for p in power))
    with style():
        figure, every = panels([f"plants found: {model}" for model in models], (5.6, 2.4))
        for model, axes in zip(models, every, strict=True):
            for attack in attacks:
                mine = [
                    p for p in power if (p.model, p.attack) == (model, attack) and p.steepness is not None
                ]
                steep = sorted({p.steepness for p in mine if p.steepness is not None})
                shares = ((each, _pooled([p for p in mine if p.steepness == each])) for each in steep)
                draw_line(axes, attack, shares, attacks)
            axes.set_xscale("log", base=2)
            ticks = sorted({p.steepness for p in power if p.steepness is not None})
            axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.axvline(1, color=INK, linewidth=0.5, alpha=0.35)
            axes.set_ylim(-0.02, 1.02)
            axes.set_ylabel("share of plants found")
        every[-1].set_xlabel("slope of the plant where attacks begin, over the model's own")
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return figure


def _pooled(rows: Sequence[Power]) -> float | None:
    """Return the share of the plants of all widths together."""
    count = sum(row.plants for row in rows)
    return sum(row.found for row in rows) / count if count else None
