"""The table of a study: a row a point, mean and deviation over seeds, published figures beside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from iqa_harness.studies.study import StudyRow
from iqa_harness.training.figures import Figures
from iqa_harness.training.tables import METRICS, Spread, Table, metric_columns, raw_notes
from iqa_reports import Entry, TableView
from iqa_reports.table_view import columns, label, stub


class RowResult(NamedTuple):
    """What the runs of one row came to."""

    row: StudyRow
    figures: dict[int, Figures]
    """By seed, finished runs only."""
    failures: dict[int, str]
    """By seed, why a run has no checkpoint."""


Worst = Mapping[str, float | None]
"""Worst cases of one checkpoint by column name, such as ``suite_min@1/255``."""


def study_table(results: Sequence[RowResult], worst: Mapping[tuple[str, int], Worst]) -> Table:
    """Return the table of a study.

    Args:
        results: one a row, in the study's order.
        worst: worst cases by (label, seed), of those that were attacked; None for a value there is not.

    A row of which a run failed has no mean: fewer seeds are not the same figure.
    """
    names = list(dict.fromkeys(name for values in worst.values() for name in values))
    published = list(dict.fromkeys(name for result in results for name in result.row.published))
    failed = any(result.failures for result in results)
    rows: list[dict[str, object]] = []
    entries = []
    for result in results:
        point = result.row.label
        spreads = {f"{s}_{m}": _over_seeds(result, s, m) for s, m in METRICS}
        for name in names:
            # A seed that no such suite was meant for has no such column; one without a value has None.
            found = (worst.get((point, seed), {}) for seed in result.row.configs)
            values = [of_seed[name] for of_seed in found if name in of_seed]
            spreads[name] = Spread.of([] if result.failures else values)
        printed = {name: result.row.published.get(name) for name in published}
        seconds = sum(figures.seconds for figures in result.figures.values())
        status = "; ".join(f"seed {seed}: {why}" for seed, why in result.failures.items()) or "ok"
        row: dict[str, object] = {
            "label": point,
            "settings": json.dumps(result.row.settings, sort_keys=True),
            "seeds": len(result.figures),
        }
        for name, spread in spreads.items():
            row |= {name: spread.mean, f"{name}_std": spread.std}
        row |= {f"published_{name}": value for name, value in printed.items()}
        rows.append({**row, "seconds": seconds, "status": status})
        entries.append(
            (
                label(point),
                label(str(len(result.figures))),
                *(spread.entry for spread in spreads.values()),
                *(label("") if v is None else Spread(v, None).entry for v in printed.values()),
                Entry(f"{seconds:.0f}", "number", number=seconds),
                *([label(status)] if failed else []),
            )
        )
    groups = [*metric_columns(), *(columns("", group=name) for name in names)]
    groups += [columns("", group=f"{name} (published)") for name in published] + [columns("seconds")]
    groups += [columns("status", numeric=False)] if failed else []
    warned = (f"{r.row.label}: {w}" for r in results for c in r.row.configs.values() for w in c.warnings())
    raw = raw_notes([(f"{r.row.label} seed {seed}", f) for r in results for seed, f in r.figures.items()])
    notes = (*(("", words) for words in dict.fromkeys(warned)), *raw)
    return Table(rows, TableView("study", "", stub("row", "seeds"), tuple(groups), tuple(entries), notes))


def _over_seeds(result: RowResult, split: str, metric: str) -> Spread:
    if result.failures:
        return Spread(None, None)
    return Spread.of([figures.value(split, metric) for figures in result.figures.values()])
