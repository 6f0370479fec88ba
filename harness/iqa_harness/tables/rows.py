"""Rows of a run's table: a value beside its clean value, with intervals; holes stay visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from iqa_harness.measures.bootstrap import Replicates
from iqa_harness.measures.correlation import METRICS, Interval, Metric, Vector
from iqa_harness.measures.model_scores import NOTHING, Attacked, AttackKey, Judged
from iqa_results import Estimate, RunManifest


class Scores(NamedTuple):
    """Scores of the images an adversary chose."""

    full: Vector
    """(n,)."""
    rounded: Vector
    """(n,) after rounding the images to 8 bits."""

    @classmethod
    def of(cls, attacked: Attacked) -> Scores:
        """Return those of one attack."""
        return cls(attacked.score, attacked.score_8bit)


def missing_rows(
    manifest: RunManifest, model: str, row: str, reason: str, key: AttackKey = NOTHING, *, final: bool = True
) -> list[Estimate]:
    """Return the rows, one a metric, of a model that has not even clean scores, with the reason."""
    data = manifest.data
    place = (model, data.name, data.split, 0, row, *key, final)
    return [Estimate(*place, metric, undefined=reason) for metric in METRICS]


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one model."""

    manifest: RunManifest
    judged: Judged

    def defined(
        self,
        row: str,
        metric: Metric,
        scores: Scores,
        key: AttackKey = NOTHING,
        *,
        final: bool = True,
        replicates: Replicates | None = None,
    ) -> Estimate:
        """Return a row from scores.

        Args:
            row: clean, attack, suite_min or composed.
            metric: srocc or plcc.
            scores: of the attacked images.
            key: the attack.
            final: True for full strength.
            replicates: of the value where it is no plain correlation of `scores` (a minimum).
        """
        judged = self.judged
        value, own = judged.estimate(scores.full, metric)
        replicates = replicates or own
        clean = judged.clean_estimate(metric)
        interval = replicates.interval()
        # A clean row is its own clean value: a drop of exactly 0, known without a bootstrap.
        drop = replicates - clean.replicates
        ends = Interval(None, None) if row == "clean" else drop.interval()
        exists = interval.low is not None
        return self._row(row, metric, key, final)._replace(
            images=len(scores.full),
            value=value.value,
            low=interval.low,
            high=interval.high,
            drop=drop.point.value,
            drop_low=ends.low,
            drop_high=ends.high,
            interval=judged.bootstrap.label(replicates.method) if exists else "",
            units=judged.bootstrap.units if exists else 0,
            value_8bit=judged.value(scores.rounded, metric).value,
            undefined=value.undefined or clean.value.undefined,
        )

    def undefined(
        self,
        row: str,
        reason: str,
        key: AttackKey,
        *,
        final: bool = True,
        metrics: Sequence[Metric] = METRICS,
    ) -> list[Estimate]:
        """Return rows that have no value, one a metric, with the reason; the clean value still stands."""
        return [self._row(row, metric, key, final)._replace(undefined=reason) for metric in metrics]

    def _row(self, row: str, metric: Metric, key: AttackKey, final: bool) -> Estimate:
        judged, data = self.judged, self.manifest.data
        mapping, fit = ("none", None) if metric == "srocc" else (judged.mapping, judged.fit.mark)
        return Estimate(
            judged.model, data.name, data.split, 0, row, *key, final, metric,
            clean=judged.clean_estimate(metric).value.value, mapping=mapping, fit=fit,
        )  # fmt: skip
