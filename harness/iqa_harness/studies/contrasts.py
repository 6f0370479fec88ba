"""Differences between rows of a study: mean over seeds, interval over images, spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from iqa_harness.measures.all_pairs import at_once
from iqa_harness.measures.bootstrap import Replicates
from iqa_harness.measures.correlation import Value
from iqa_harness.tables.ties import Place, Standing
from iqa_harness.training.tables import Spread, Table
from iqa_reports import Entry, TableView, text
from iqa_reports.table_view import columns, label, stub

Contrast = tuple[str, str]
"""Labels of two rows: the first one's value minus the second one's."""
Seeds = Mapping[int, tuple[Mapping[Place, Standing], Mapping[Place, Standing]]]
"""Seed to what the checkpoints of both rows came to."""
NOTE: Final = (
    "First row minus second, of checkpoints of one seed on the same images; mean over seeds. Intervals over "
    "images or their contents, with these checkpoints; those of one suite and value hold together with 95 %."
)


class ContrastRow(NamedTuple):
    """A difference of two rows of a study at one place."""

    suite: str
    minuend: str
    subtrahend: str
    row: str
    """clean, suite_min or composed."""
    norm: str
    epsilon: float
    metric: str
    seeds: int
    """Pairs of checkpoints with a difference; of fewer than were attacked there is no mean."""
    difference: float | None
    """Mean over seeds."""
    low: float | None
    """Of its interval over the images, 95 % at once for all contrasts of this place."""
    high: float | None
    std: float | None
    """Sample deviation of the difference over seeds."""
    positive: int
    """Seeds in which it is above 0."""


def contrast_rows(suite: str, found: Mapping[Contrast, Seeds]) -> list[ContrastRow]:
    """Return every contrast at every place that its checkpoints share.

    Every pair is of one seed and of the same images, which all draws of the bootstrap take alike: the
    interval is of these checkpoints on other images. What other seeds would give is the deviation beside it.

    Args:
        suite: name, for the rows.
        found: contrasts, and what they are of.
    """
    places = list(dict.fromkeys(p for seeds in found.values() for pair in seeds.values() for p in pair[0]))
    return [row for place in places for row in _at(suite, place, found)]


def _at(suite: str, place: Place, found: Mapping[Contrast, Seeds]) -> list[ContrastRow]:
    """Return the contrasts at a place, whose intervals hold at once."""
    means: dict[Contrast, Replicates] = {}
    values: dict[Contrast, list[float | None]] = {}
    for contrast, seeds in found.items():
        pairs = [(a.get(place), b.get(place)) for a, b in seeds.values()]
        whole = [(a, b) for a, b in pairs if a and b and a.images == b.images]
        each = [a.replicates - b.replicates for a, b in whole]
        values[contrast] = [one.point.value for one in each] + [None] * (len(pairs) - len(whole))
        if each and None not in values[contrast]:
            means[contrast] = _mean(each)
    intervals = dict(zip(means, at_once(list(means.values())), strict=True))
    rows = []
    for contrast, of_seeds in values.items():
        spread = Spread.of(of_seeds)
        interval = intervals.get(contrast)
        known = [value for value in of_seeds if value is not None]
        low, high = (None, None) if interval is None else interval
        above = sum(value > 0 for value in known)
        row, norm, epsilon, metric = place
        places = (suite, *contrast, row, norm, epsilon, metric)
        rows.append(ContrastRow(*places, len(known), spread.mean, low, high, spread.std, above))
    return rows


def _mean(each: Sequence[Replicates]) -> Replicates:
    """Return the mean of statistics of the same draws."""
    points = [one.point.value for one in each if one.point.value is not None]
    draws, left_out = (
        np.mean([getattr(one, name) for one in each], axis=0) for name in ("draws", "left_out")
    )
    smooth = all(one.smooth for one in each)
    return Replicates(Value.of(float(np.mean(points))), draws, left_out, each[0].units, smooth)


def contrast_table(rows: Sequence[ContrastRow]) -> Table:
    """Return the contrasts as values, all of them, and as people see them: SROCC only."""
    shown = [row for row in rows if row.metric == "srocc"]
    entries = tuple(
        (
            label(f"{row.minuend} - {row.subtrahend}"),
            label(row.suite),
            label("clean" if row.row == "clean" else f"{row.row} {text.radius(row.epsilon)}, {row.norm}"),
            _number(row.difference, row.low, row.high),
            Entry(text.DASH, "missing") if row.std is None else Entry(text.number(row.std, 3), "number"),
            label(f"{row.positive} of {row.seeds}"),
        )
        for row in shown
    )
    groups = (
        columns("SROCC [95 % at once]"),
        columns("over seeds"),
        columns("above 0", numeric=False),
    )
    view = TableView("contrasts", "", stub("rows", "suite", "value"), groups, entries, ())
    return Table([row._asdict() for row in rows], view)


def _number(value: float | None, low: float | None, high: float | None) -> Entry:
    if value is None:
        return Entry(text.DASH, "missing")
    around = "" if low is None or high is None else f" [{text.number(low, 3)}, {text.number(high, 3)}]"
    return Entry(text.number(value, 3) + around, "number", number=value)
