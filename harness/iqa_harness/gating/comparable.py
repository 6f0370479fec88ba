"""Whether a side is whole, and whether two can be compared: one suite, the same images, models by name."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from iqa_harness.errors import NotComparable
from iqa_harness.gating.baselines import Standpoint
from iqa_harness.measures.correlation import METRICS
from iqa_harness.tables.minima import is_member
from iqa_results import BadPart, Baseline


def require_comparable(before: Standpoint, after: Standpoint) -> list[str]:
    """Return notes on two comparable runs.

    Raises:
        NotComparable: suites, data, images, labels, radius, members of the minimum or models by name
            differ; the message says which.
        BadPart: one side is not whole, see `require_whole`.
    """
    _require_same_benchmark(before.record, after.record)
    for side in (before, after):
        require_whole(side, [m.name for m in before.record.models])
    _require_same_values(before, after)
    return _notes(before.record, after.record)


def _require_same_benchmark(old: Baseline, new: Baseline) -> None:
    """Refuse records of other suites, data or models."""
    if old.suite_sha256 != new.suite_sha256:
        raise NotComparable(
            f"suites differ: the baseline is of {old.suite!r} ({old.suite_sha256[:12]}), the run of "
            f"{new.suite!r} ({new.suite_sha256[:12]}); run the baseline's suite, or save a new baseline"
        )
    if (old.data_sha256, old.split) != (new.data_sha256, new.split):
        raise NotComparable(
            f"data differ: the baseline is on {old.data!r} {old.split} ({old.data_sha256[:12]}), the run on "
            f"{new.data!r} {new.split} ({new.data_sha256[:12]})"
        )
    names = [m.name for m in new.models]
    missing = [m.name for m in old.models if m.name not in names]
    if missing:
        raise NotComparable(
            f"models differ: the run has no {', '.join(missing)} (it has {', '.join(names)}); models are "
            "compared by name, give one with --model NAME=..."
        )


def _require_same_values(before: Standpoint, after: Standpoint) -> None:
    """Refuse values at other radii, of other members, images, labels or surrogates."""
    old, new = before.record, after.record
    for what, one, other in (
        ("radii", old.main_epsilon, new.main_epsilon),
        ("members of suite_min", sorted(old.suite_min), sorted(new.suite_min)),
        ("seeds", old.seed, new.seed),
        ("norms", sorted(norms_of(before)), sorted(norms_of(after))),
    ):
        if one != other:
            raise NotComparable(f"{what} differ: {one} in the baseline, {other} in the run")
    for model in old.models:
        if not _images(before, model.name).equals(_images(after, model.name)):
            raise NotComparable(f"images differ: {model.name!r} has other images or labels in the two runs")
        was, now = _transfers(before, model.name), _transfers(after, model.name)
        if was != now:
            raise NotComparable(
                f"surrogates differ: {model.name!r} was tried on {', '.join(sorted(was)) or 'no transfer'} "
                f"before, on {', '.join(sorted(now)) or 'none'} now; run the same models together"
            )


def _notes(old: Baseline, new: Baseline) -> list[str]:
    """Say what may matter to a reader and does not keep two runs from being compared."""
    notes = []
    compared = {m.name for m in old.models}
    extra = [m.name for m in new.models if m.name not in compared]
    if extra:
        notes.append(f"not in the baseline, and not compared: {', '.join(extra)}")
    if old.provenance.device != new.provenance.device:
        notes.append(f"device differs: {old.provenance.device} before, {new.provenance.device} now")
    before = {m.name: m.gradients for m in old.models}
    for model in new.models:
        was = before.get(model.name)
        if was and model.gradients and was != model.gradients:
            notes.append(
                f"gradients differ: those of {model.name} are of {model.gradients} now, of {was} before; its "
                "attacks may find a little more or less"
            )
    changed = [
        f"{p} {v} -> {new.provenance.packages.get(p, 'none')}"
        for p, v in old.provenance.packages.items()
        if new.provenance.packages.get(p) != v
    ]
    if changed:
        notes.append(f"packages differ: {', '.join(changed)}")
    return notes


def _transfers(side: Standpoint, model: str) -> set[str]:
    """Return the attacks of other models' examples, 'NAME:SURROGATE', that a model was judged by."""
    names = set(side.scores.loc[side.scores["model"] == model, "attack"])
    return {name for name in names if ":" in name}


def _images(side: Standpoint, model: str) -> pd.DataFrame:
    rows = side.scores[(side.scores["model"] == model) & (side.scores["row"] == "clean")]
    ordered: pd.DataFrame = rows[["image_id", "mos"]].sort_values("image_id").reset_index(drop=True)
    return ordered


def require_whole(side: Standpoint, models: Iterable[str]) -> None:
    """Refuse a side that lacks something of some models: nothing can be said to have got worse in it.

    Raises:
        BadPart: a model has no clean scores, no composed ones or none of a member of the suite's minimum; a
            value is of other images than the clean scores, at another radius or in a second norm; a score
            is not finite.
    """
    record = side.record
    where = f"{record.name!r} (run {record.run!r})"
    if not record.suite_min:
        raise BadPart(f"{where}: no member of a minimum is named; save it again from a complete run")
    for model in models:
        rows = side.scores[side.scores["model"] == model]
        wrong = _wrong(rows, side)
        if wrong:
            raise BadPart(f"{where}: {model!r} {wrong}; save it again from a complete run")


def norms_of(side: Standpoint) -> set[str]:
    """Return the norms of the attacked scores."""
    return set(side.scores.loc[side.scores["row"] != "clean", "norm"])


def _wrong(rows: pd.DataFrame, side: Standpoint) -> str:
    """Say what is wrong with one model's rows, '' if nothing is."""
    record = side.record
    groups = {
        (str(row), str(attack), str(objective)): group
        for (row, attack, objective), group in rows.groupby(["row", "attack", "objective"], sort=False)
    }
    clean = groups.get(("clean", "", ""))
    if clean is None or len(set(clean["image_id"])) != record.images:
        found = 0 if clean is None else clean["image_id"].nunique()
        return f"has clean scores of {found} of {record.images} images"
    lost = [f"composed scores of {metric}" for metric in METRICS if ("composed", "", metric) not in groups]
    attacks = [(attack, objective) for row, attack, objective in groups if row == "attack"]
    lost += [
        f"scores under {member}, a member of suite_min"
        for member in record.suite_min
        if not any(is_member(attack, objective, member) for attack, objective in attacks)
    ]
    if lost:
        return f"has no {lost[0]}"
    ids = sorted(clean["image_id"])
    for (row, attack, objective), group in groups.items():
        name = f"{attack}/{objective}" if attack else f"{row} {objective}".strip()
        if sorted(group["image_id"]) != ids:
            return f"has scores of {name} that are not of exactly the images with clean scores"
        if not np.isfinite(group[["mos", "score", "mapped"]].to_numpy(dtype=np.float64)).all():
            return f"has scores of {name} that are not finite"
        if row != "clean" and (set(group["epsilon"]) != {record.main_epsilon} or len(norms_of(side)) > 1):
            return (
                f"has scores of {name} at another radius than {record.main_epsilon * 255:.3g}/255 or in a "
                "second norm"
            )
    return ""
