"""The measures of a run in long form, one row a (attack, objective, radius, steps, measure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from iqa_harness.measures import robustness as m
from iqa_harness.measures.correlation import Value, Vector, krocc, srocc
from iqa_harness.measures.model_scores import NOTHING, Attacked, AttackKey, Judged, column
from iqa_harness.measures.optimality import gradients_of, optimality
from iqa_results import Measure

OPTIMALITY = ("optimality_srocc", "optimality_move")
"""Measures of an attack with all its objectives: by the fall of SROCC, by how far scores moved."""


def measure_rows(
    judged: Judged, attacked: Mapping[AttackKey, Attacked], main_epsilon: float
) -> list[Measure]:
    """Return the rows of one model; the ends of all scores are left out."""
    rows = [_row(judged, NOTHING._replace(attack="clean", objective="none"), True, *pair)
            for pair in _clean_measures(judged)]  # fmt: skip
    for key, found in attacked.items():
        rows += [_row(judged, key, found.final, *pair) for pair in _attack_measures(judged, found)]
    rows += cost_rows(judged, attacked)
    rows += _curve_rows(judged, attacked)
    rows += _optimality_rows(judged, {k: a for k, a in attacked.items() if k.epsilon == main_epsilon})
    return rows


def _clean_measures(judged: Judged) -> Iterator[tuple[str, Value]]:
    yield from _agreement(judged, judged.clean)
    gradients = column(judged.clean_rows, "gradient_l1")
    yield "gradient_l1", m.mean_of(gradients, "finite gradient")
    yield from _cost(judged.clean_rows)


def _attack_measures(judged: Judged, found: Attacked) -> Iterator[tuple[str, Value]]:
    clean, score = judged.clean, found.score
    yield "self_srocc", m.self_srocc(clean, score)
    yield from _agreement(judged, score)
    for kind in ("signed", "absolute", "iqr"):
        yield f"gain_{kind}", m.gain(clean, score, kind)
    ratios = m.r_scores(clean, score, judged.score_range)
    yield "r_score_median", Value.of(float(np.median(ratios)))
    yield "r_score_mean", Value.of(float(ratios.mean()))
    yield "psnr_mean", m.psnr_mean(column(found.rows, "rmse"))
    if "ssim" in found.rows:
        yield "ssim_mean", m.mean_of(column(found.rows, "ssim"), "SSIM")
    rounded = column(judged.clean_rows, "adv_score_8bit")
    yield "kept_8bit", m.kept(clean, score, rounded, found.score_8bit)
    if found.rows["adv_score_jpeg"].notna().all():
        plain, compressed = (column(rows, "adv_score_jpeg") for rows in (judged.clean_rows, found.rows))
        yield "srocc_jpeg", srocc(compressed, judged.mos)
        yield "kept_jpeg", m.kept(clean, score, plain, compressed)


def _agreement(judged: Judged, score: Vector) -> Iterator[tuple[str, Value]]:
    yield "krocc", krocc(score, judged.mos)
    yield "pair_inversion", m.pair_inversion(score, judged.mos)
    if judged.fit.logistic is None:
        # Raw scores are on no label scale: an error against labels would compare two units.
        missing = Value.none(f"no logistic to the label scale: {judged.fit.detail}")
        yield "mae", missing
        yield "rmse_score", missing
        return
    mapped = judged.mapped(score, "plcc")
    yield "mae", m.mae(mapped, judged.mos)
    yield "rmse_score", m.rmse_score(mapped, judged.mos)


def cost_rows(judged: Judged, attacked: Mapping[AttackKey, Attacked]) -> list[Measure]:
    """Cost an image of each attack and radius at full strength; its objectives share it."""
    rows: list[Measure] = []
    seen = set()
    for key, found in attacked.items():
        if not found.final or key[:1] + key[2:] in seen:
            continue
        seen.add(key[:1] + key[2:])
        shared = key._replace(objective="all")
        rows += [_row(judged, shared, True, *pair) for pair in _cost(found.rows)]
    return rows


def _cost(rows: pd.DataFrame) -> Iterator[tuple[str, Value]]:
    for name in ("forwards", "backwards", "seconds"):
        yield name, m.mean_of(column(rows, name), name)


def _curve_rows(judged: Judged, attacked: Mapping[AttackKey, Attacked]) -> list[Measure]:
    """Area under the drift of every attack and objective with several radii, at full strength."""
    low, high = judged.score_range
    curves: dict[tuple[str, str, str], dict[float, tuple[int, float]]] = {}
    for key, found in attacked.items():
        if found.final:
            drift = float(np.abs(found.score - judged.clean).mean()) / (high - low)
            curves.setdefault(key[:3], {})[key.epsilon] = (key.steps, drift)
    rows = []
    for name, points in curves.items():
        if len(points) < 2:
            continue
        value = m.drift_auc(list(points), [drift for _, drift in points.values()])
        largest = max(points)
        rows.append(_row(judged, AttackKey(*name, largest, points[largest][0]), True, "drift_auc", value))
    return rows


def _optimality_rows(judged: Judged, attacked: Mapping[AttackKey, Attacked]) -> Iterator[Measure]:
    """How near each attack, its objectives together, comes to the best done for as many gradients.

    Attacks that cost this model nothing, such as other models' examples, take no part.
    """
    clean = judged.clean_estimate("srocc").value.value
    found: dict[AttackKey, list[Attacked]] = {}
    for key, each in attacked.items():
        found.setdefault(key._replace(objective="all"), []).append(each)
    falls: dict[AttackKey, dict[float, float]] = {}
    moves: dict[AttackKey, dict[float, float]] = {}
    for key, together in found.items():
        cost = max(_gradients(each) for each in together)
        values = [v for each in together if (v := judged.value(each.score, "srocc").value) is not None]
        if cost > 0 and values and clean is not None:
            name, reach = key._replace(steps=0), [np.abs(each.score - judged.clean) for each in together]
            falls.setdefault(name, {})[cost] = clean - min(values)
            moves.setdefault(name, {})[cost] = float(np.max(reach, axis=0).mean())
    for measure, curves in zip(OPTIMALITY, (falls, moves), strict=True):
        for name, value in optimality(curves).items():
            full = max(k.steps for k in found if k._replace(steps=0) == name)
            yield _row(judged, name._replace(steps=full), True, measure, value)


def _gradients(found: Attacked) -> float:
    """Return what an attack cost an image up to here, in gradients, all its objectives together."""
    forwards, backwards = (float(column(found.rows, name).mean()) for name in ("forwards", "backwards"))
    return gradients_of(forwards, backwards)


def _row(judged: Judged, key: AttackKey, final: bool, measure: str, value: Value) -> Measure:
    return Measure(judged.model, *key, final, measure, value.value, value.undefined)
