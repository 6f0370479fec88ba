"""Whether one side of a comparison is whole: every gated value, on every image, at the main radius."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from iqa_harness.gating.baselines import Standpoint
from iqa_harness.tables.minima import is_of
from iqa_results import BadPart

COMPOSED = (("composed", "", "srocc"), ("composed", "", "plcc"))


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
    lost = _lost(groups, record.suite_min)
    if lost:
        return f"has no {lost}"
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


def _lost(groups: Iterable[tuple[str, str, str]], suite_min: Iterable[str]) -> str:
    """Name a gated value without any row, '' if all have some."""
    there = list(groups)
    for composed in COMPOSED:
        if composed not in there:
            return f"composed scores of {composed[2]}"
    for member in suite_min:
        attack, _, objective = member.partition("/")
        if not any(r == "attack" and o == objective and is_of(a, attack) for r, a, o in there):
            return f"scores under {member}, a member of suite_min"
    return ""
