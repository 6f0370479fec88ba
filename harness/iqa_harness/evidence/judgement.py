"""Is the number to be believed? What the stored rows of a run say about their own attacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from iqa_harness.evidence.check import as_checks
from iqa_harness.evidence.flags import FLAGS, Flag, measured, not_measured
from iqa_harness.evidence.model_checks import UNCHANGED
from iqa_harness.evidence.strength import (
    BLACK_BOX,
    OBJECTIVES,
    STEPPED,
    Group,
    Grouped,
    compare,
    grouped,
    strength,
    strongest,
)
from iqa_harness.measures.model_scores import Attacked, AttackKey, Judged, column
from iqa_results import ModelRecord, Power

BY_CHECK = {
    "finite_scores": "scores_not_finite",
    "score_range": "outside_score_range",
    "repeatable": "scores_vary",
    "batch_independent": "batch_dependence",
    "gradient_finite": "gradient_missing",
    "gradient_alive": "zero_gradients",
    "gradient_agrees": "gradient_disagrees",
    "gain_on_fresh": "fresh_images_differ",
    UNCHANGED: "changed_during_run",
    "tones_alive": "input_range",
    "noise_weaker": "noise_as_strong",
    "ends_reached": "ends_not_reached",
    "converged": "still_rising",
}
"""Checks of `check_model` and `probe_model`, made before any attack, and of `check_again`, made after the
last; and the flags they raise."""

GREY_LEVEL = 1 / 255
"""Radius (inf) or root mean square change (2) from which an attack should survive storing with 8 bits."""
MIN_AGREEMENT = 30
"""Images on which a clean SROCC says something."""
CROSSES = 2 - 1e-9
"""Reach, in radii, that takes a pixel from one side of the ball to the other."""
BY_CHANCE = 1.15
"""Strength of FGSM over attacks with steps that the choice among noisy iterates may give it."""
FLOAT_MARGIN = 1e-6
MUST_BE_FOUND = 0.95
"""Share of plants that attacks on sound models find: where the interval holds it, there is no flag."""
MARGIN_CLEAN = 1e-4
"""Difference, in score ranges, that two clean scores of one image may have."""


Truths = np.ndarray[Any, np.dtype[np.bool_]]
"""One truth value an image."""


class Completeness(NamedTuple):
    """How much of what counts for a model's verdict is there."""

    main_epsilon: float
    """Radius the leaderboard is ranked at."""
    planned: int
    """Cells without attack and at that radius."""
    missing: int
    """Of them not in the store."""
    undefined: tuple[str, ...]
    """Worst cases at that radius without a value, by name."""
    reason: str
    """Why they have none."""


def flags_of_checks(checks: Mapping[str, Any]) -> list[Flag]:
    """Return the flags of what was measured before any attack.

    Args:
        checks: by name, as `check_model` returns them or a manifest stores them.
    """
    flags, known = [], as_checks(checks)
    for name, flag in BY_CHECK.items():
        if name not in known:
            flags.append(not_measured(flag, "an earlier check failed, or the run is of an older version"))
            continue
        value, threshold, passed, detail = known[name]
        if value is None and passed:
            flags.append(not_measured(flag, detail))  # nothing measured, nothing against it
        else:
            severity = FLAGS[flag].severity
            flags.append(Flag(flag, value, float(threshold), not passed, True, severity, detail))
    return flags


def flags_without_scores(record: ModelRecord, whole: Completeness, reason: str) -> list[Flag]:
    """Return the flags of a model without clean scores: those of its checks, and what is missing."""
    found = {flag.flag: flag for flag in (*flags_of_checks(record.checks), *_completeness(whole))}
    return [found.get(name) or not_measured(name, reason) for name in FLAGS]


def check_results(
    record: ModelRecord,
    judged: Judged,
    attacked: Mapping[AttackKey, Attacked],
    whole: Completeness,
    power: Sequence[Power] = (),
) -> list[Flag]:
    """Return every flag of one model, from its checks and its stored rows.

    Args:
        record: the model as the manifest has it.
        judged: its clean scores.
        attacked: its attacks on all images, prefixes included.
        whole: how much of its plan is there.
        power: what attacks found of plants in its score, all together and one by one.
    """
    before = {flag.flag: flag for flag in flags_of_checks(record.checks)}
    full, every = grouped(attacked), grouped(attacked, final=False)
    after = [
        *_completeness(whole),
        _scores_vary(record, judged, attacked),
        _zero_gradients(judged, attacked),
        _noise(judged, full),
        _fgsm(record, judged, full),
        _more_steps(judged, full, every),
        _larger_epsilon(judged, full),
        _against_white(
            judged,
            full,
            BLACK_BOX,
            "black_box_stronger",
            "no transfer or Square beside a gradient attack with a shared objective",
        ),
        _rounding(judged, attacked, whole.main_epsilon),
        plant_flag(power),
        _constant(judged),
        _agreement(record, judged),
    ]
    for flag in after:
        former = before.get(flag.flag)
        if former is None or (flag.measured and not former.raised):
            # What was found on all images stands, unless a few images raised the flag already.
            before[flag.flag] = flag
    return [before[name] for name in FLAGS]


def _completeness(whole: Completeness) -> list[Flag]:
    names = ", ".join(whole.undefined) or "none"
    why = f": {whole.reason}" if whole.undefined and whole.reason else ""
    return [
        measured(
            "attacks_missing",
            whole.missing,
            f"cells that are not in the store, of {whole.planned} without attack and at "
            f"{_radius(whole.main_epsilon)}",
        ),
        measured(
            "worst_case_undefined",
            len(whole.undefined),
            f"worst cases without a value at {_radius(whole.main_epsilon)}, {names}{why}",
        ),
    ]


def _scores_vary(record: ModelRecord, judged: Judged, attacked: Mapping[AttackKey, Attacked]) -> Flag:
    name = "scores_vary"
    if record.card.get("is_stochastic"):
        return not_measured(name, "the model calls itself stochastic: its draws are averaged (EOT)")
    if not attacked:
        return not_measured(name, "no attack")
    low, high = judged.score_range
    largest, where = 0.0, "no attack"
    for key, found in attacked.items():
        apart = np.abs(column(found.rows, "clean_score") - judged.clean).max() / (high - low)
        if not apart <= MARGIN_CLEAN:
            what = f"difference between clean scores of one image, without attack and in {key.attack}"
            return measured(name, float(apart), what)._replace(threshold=MARGIN_CLEAN, raised=True)
        kept = ~(column(found.rows, "projection_moved") > FLOAT_MARGIN)
        own = (found.rows["kind"] != "transfer").to_numpy() & kept
        if own.any():
            moved = column(found.rows, "adv_score") - column(found.rows, "attack_score")
            apart = np.abs(moved[own]).max() / (high - low)
            if _worse(apart, largest):
                largest, where = float(apart), f"{key.attack}/{key.objective} at {_radius(key.epsilon)}"
    return measured(
        name, largest, f"largest difference between the attack's score and the harness's, {where}"
    )


def _zero_gradients(judged: Judged, attacked: Mapping[AttackKey, Attacked]) -> Flag:
    """Judge each attack by its zero gradients, less those of images where nothing is left to gain."""
    lanes: dict[Group, dict[str, Attacked]] = {}
    for key, found in attacked.items():
        if found.final:
            group = (key.attack, key.norm, key.epsilon, key.steps)
            lanes.setdefault(group, {})[key.objective] = found
    share, where = 0.0, "any attack"
    counted = False
    for (attack, _, epsilon, _), objectives in lanes.items():
        # An image's count is of all objectives of the attack together: they share gradients.
        taken, zero = (
            np.max([column(found.rows, name) for found in objectives.values()], axis=0)
            for name in ("backwards", "zero_gradients")
        )
        if not taken.sum():
            continue
        counted = True
        mine = float(np.where(_exhausted(judged, objectives), 0, zero).sum() / taken.sum())
        if _worse(mine, share):
            share, where = mine, f"{attack} at {_radius(epsilon)}"
    if not counted:
        return not_measured("zero_gradients", "no attack with gradients")
    return measured("zero_gradients", share, f"share of gradients that are exactly zero, {where}")


def _exhausted(judged: Judged, objectives: Mapping[str, Attacked]) -> Truths:
    """Return which images were brought to an end of the card's range, every objective having had its gain.

    There a clamped output has no gradient and needs none. An objective that gained nothing, and is not at
    the end it wants, was in need of one.
    """
    low, high = judged.score_range
    margin, gain = 0.02 * (high - low), 0.01
    was_high, was_low = judged.clean >= high - margin, judged.clean <= low + margin
    arrived = np.zeros(len(judged.clean), dtype=bool)
    gained = ~arrived
    for objective, found in objectives.items():
        at_high, at_low = found.score >= high - margin, found.score <= low + margin
        wanted = {"raise": at_high, "lower": at_low}.get(
            objective, (at_high & ~was_high) | (at_low & ~was_low)
        )
        arrived |= wanted
        if objective in ("raise", "lower", "drift"):
            gained &= wanted | (strength(judged, objective, found.score) > gain)
    return arrived & gained


def _worse(value: float, than: float) -> bool:
    """Whether a value is larger; a NaN is larger than any number, and none than it."""
    return not (value <= than) and not math.isnan(than)


def _against_white(
    judged: Judged,
    full: Mapping[Group, Grouped],
    kinds: tuple[str, ...],
    name: str,
    nothing: str,
    objectives: tuple[str, ...] = OBJECTIVES,
) -> Flag:
    """Compare attacks of some kinds with the strongest gradient attack, objective by objective.

    Of the gradient attacks those count whose steps can cross the ball; `nothing` says that there are none.
    """
    worst: tuple[bool, float, str] | None = None
    for (attack, norm, epsilon, _), group in full.items():
        if group.kind not in kinds:
            continue
        same = [g for (_, n, e, _), g in full.items() if (n, e) == (norm, epsilon)]
        white = [g for g in same if g.kind in STEPPED and g.reach >= CROSSES]
        for objective in [o for o in objectives if o in group.scores]:
            best = strongest(judged, white, objective)
            if best is None:
                continue
            alone = Grouped(group.kind, math.inf, {objective: group.scores[objective]})
            pair = compare(judged, alone, best)
            where = f"{attack}/{objective} over the strongest gradient attack at {_radius(epsilon)}"
            if pair is not None:
                # A ratio that is no number is the worst there can be.
                ratio = math.inf if math.isnan(pair.ratio) else pair.ratio
                found = (not (pair.errors <= 2), ratio, where)
                worst = found if worst is None else max(worst, found)
    if worst is None:
        return not_measured(name, nothing)
    beyond, ratio, where = worst
    return measured(name, ratio, where, also=beyond)


def _noise(judged: Judged, full: Mapping[Group, Grouped]) -> Flag:
    nothing = "the suite has no noise attack beside a gradient attack"
    flag = _against_white(judged, full, ("noise",), "noise_as_strong", nothing)
    # Half as strong is enough: no test against equality.
    return measured(flag.flag, flag.value, flag.detail) if flag.measured else flag


def _fgsm(record: ModelRecord, judged: Judged, full: Mapping[Group, Grouped]) -> Flag:
    # Not drift and mse: where one step goes up and many find the way down, the two are not comparable.
    nothing = "no FGSM beside an attack whose steps can cross the ball, with a shared objective"
    flag = _against_white(judged, full, ("fgsm",), "fgsm_as_strong", nothing, ("raise", "lower"))
    if flag.value is not None and record.card.get("is_stochastic"):
        return flag._replace(threshold=BY_CHANCE, raised=flag.raised and flag.value > BY_CHANCE)
    return flag


def _more_steps(judged: Judged, full: Mapping[Group, Grouped], every: Mapping[Group, Grouped]) -> Flag:
    name = "more_steps_not_stronger"
    found = []
    for (attack, norm, epsilon, steps), whole in full.items():
        if whole.kind not in STEPPED:
            continue
        prefixes = [
            (s, g) for (a, n, e, s), g in every.items()
            if (a, n, e) == (attack, norm, epsilon) and s < steps and g.reach <= 1 + 1e-9
        ]  # fmt: skip
        if prefixes:
            shortest, prefix = min(prefixes, key=lambda p: p[0])
            pair = compare(judged, whole, prefix)
            if pair is not None:
                found.append((epsilon, _bounded(pair.ratio), f"{attack}, {steps} steps over {shortest}"))
    if not found:
        return not_measured(name, "no attack reports a prefix too short to cross the radius")
    smallest = min(epsilon for epsilon, _, _ in found)
    _, ratio, what = min((f for f in found if f[0] == smallest), key=lambda f: f[1])
    return measured(name, ratio, f"{what}, at {_radius(smallest)}")


def _larger_epsilon(judged: Judged, full: Mapping[Group, Grouped]) -> Flag:
    name = "larger_epsilon_not_stronger"
    found: list[tuple[float, str]] = []
    reason = "no gradient attack at two radii of which one is 1.5 times the other"
    for attack, norm in dict.fromkeys((a, n) for (a, n, _, _), g in full.items() if g.kind in STEPPED):
        radii = sorted(
            ((e, g) for (a, n, e, _), g in full.items() if (a, n) == (attack, norm)), key=lambda pair: pair[0]
        )
        small, group = radii[0]
        larger = next(((e, g) for e, g in radii if e >= 1.5 * small * (1 - 1e-9)), None)
        if larger is None:
            continue
        if _saturated(judged, group):
            reason = f"most scores are at the ends of the card's range at {_radius(small)} already"
            continue
        pair = compare(judged, larger[1], group)
        if pair is not None:
            found.append((_bounded(pair.ratio), f"{attack}, {_radius(larger[0])} over {_radius(small)}"))
    if not found:
        return not_measured(name, reason)
    ratio, what = min(found)
    return measured(name, ratio, what)


def _bounded(ratio: float) -> float:
    """Return a ratio that can be ordered and stored: one that is no number is the lowest."""
    return -math.inf if math.isnan(ratio) else min(ratio, 1e9)


def _saturated(judged: Judged, group: Grouped) -> bool:
    low, high = judged.score_range
    margin = 0.02 * (high - low)
    at_end = [(s >= high - margin) | (s <= low + margin) for o, s in group.scores.items() if o in OBJECTIVES]
    return bool(np.mean(at_end) > 0.5)


def _rounding(judged: Judged, attacked: Mapping[AttackKey, Attacked], main_epsilon: float) -> Flag:
    name = "rounding_decides"
    candidates = [
        (k.epsilon, k, a)
        for k, a in attacked.items()
        if a.final
        and k.epsilon >= main_epsilon * (1 - 1e-9)
        and k.objective in ("raise", "lower", "drift", "mse")
        and str(a.rows.iloc[0]["kind"]) in STEPPED
        and _survives_rounding(k, a)
    ]
    if not candidates:
        return not_measured(
            name, "no gradient attack from the main radius on changes images by about a grey level"
        )
    smallest = min(epsilon for epsilon, _, _ in candidates)
    at = [(k, a) for epsilon, k, a in candidates if epsilon == smallest]
    before = np.mean([np.abs(a.score - judged.clean).mean() for _, a in at])
    after = np.mean([np.abs(a.score_8bit - judged.clean).mean() for _, a in at])
    if not before > 0:
        return measured(name, 0.0 if after == 0 else None, f"no drift before rounding at {_radius(smallest)}")
    kept = float(after / before)
    return measured(
        name,
        abs(1 - kept),
        f"{kept:.0%} of the drift is left after rounding to 8 bits at {_radius(smallest)}",
    )


def _survives_rounding(key: AttackKey, found: Attacked) -> bool:
    size = key.epsilon if key.norm == "inf" else float(column(found.rows, "rmse").mean())
    return not (size < GREY_LEVEL * (1 - 1e-6))


def plant_flag(power: Sequence[Power]) -> Flag:
    """Return the flag of a model's plants from the rows of its power, those of all attacks first."""
    name = "plant_missed"
    whole = next((row for row in power if row.width is None), None)  # all attacks together come first
    if whole is None:
        return not_measured(name, "nothing was planted: `iqa-harness power`, or a suite's `plants`")
    what = f"share of {whole.plants} plants that no attack found"
    return measured(name, 1 - whole.share, what, also=whole.high < MUST_BE_FOUND)


def _constant(judged: Judged) -> Flag:
    largest = float(np.abs(judged.clean).max())
    spread = float(np.ptp(judged.clean)) / largest if largest else 0.0
    return measured(
        "constant_predictor", spread, f"range of {len(judged.clean)} clean scores over the largest"
    )


def _agreement(record: ModelRecord, judged: Judged) -> Flag:
    name = "no_agreement"
    if len(judged.clean) < MIN_AGREEMENT:
        return not_measured(name, f"{len(judged.clean)} images, at least {MIN_AGREEMENT} are needed")
    if record.checkpoint is None and record.card.get("initial_weights", "random") == "random":
        return not_measured(name, "the card says the weights are random: no agreement is claimed")
    clean = judged.clean_estimate("srocc").value
    return measured(name, clean.value, clean.undefined or f"clean SROCC on {len(judged.clean)} images")


def _radius(epsilon: float) -> str:
    return f"{epsilon * 255:.3g}/255"
