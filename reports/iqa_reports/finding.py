"""What a run found, in one sentence: the first thing a reader of a report is told."""

from __future__ import annotations

from iqa_reports import text
from iqa_reports.inputs.stored_run import StoredRun


def finding(view: StoredRun) -> str:
    """Return one sentence on the best model at the main radius and how it stands to the others."""
    ranking = view.ranking()
    rank, best = ranking[0] if ranking else (None, "")
    if rank is None:
        return (
            f"Nothing was found: none of {text.count(len(ranking), 'model')} has a value that can be ranked."
        )
    shown = [
        "no value" if found is None or found.value is None else text.number(found.value)
        for found in (
            view.clean(best, "srocc"),
            view.worst(best, "suite_min", view.manifest.main_epsilon, "srocc"),
            view.worst(best, "composed", view.manifest.main_epsilon, "srocc"),
        )
    ]
    who = f"{best} (suspect)" if view.verdict(best) == "suspect" else best
    who = f"the first of {len(ranking)} models, {who}," if len(ranking) > 1 else who
    return (
        f"At {ball(view)}, {who} goes from SROCC {shown[0]} without attack to {shown[1]} under the "
        f"suite's worst attack and to {shown[2]} when the adversary chooses image by image"
        f"{_order(view) if view.compared else ''}."
    )


def ball(view: StoredRun, epsilon: float | None = None) -> str:
    """Say within what every attack of a radius stays, the main one if left out."""
    norm = f" in the {view.norm} norm" if view.norm else ""
    return f"ε = {text.radius(view.manifest.main_epsilon if epsilon is None else epsilon)}{norm}"


def _order(view: StoredRun) -> str:
    (_, best), *others = [(rank, name) for rank, name in view.ranking() if rank is not None]
    found = view.worst(best, "suite_min", view.manifest.main_epsilon, "srocc")
    if not others or found is None or found.ties_with is None:
        return ""  # nothing was compared
    tied = sum(name in found.ties for _, name in others)
    if tied == 0:
        return "; it is told apart from every other one"
    return f"; {text.count(tied, 'other')} cannot be told apart from it"
