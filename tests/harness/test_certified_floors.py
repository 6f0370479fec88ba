"""Floors under SROCC and PLCC given an interval of every score: never above the truth, and how near."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from iqa_harness.measures import certified_srocc
from iqa_harness.measures.certified_plcc import plcc_floor
from iqa_harness.measures.certified_srocc import srocc_floor
from iqa_harness.measures.correlation import average_ranks, plcc, srocc

WEAK = {
    n: np.array([g for g in itertools.product(range(n), repeat=n) if set(g) == set(range(max(g) + 1))])
    for n in (3, 4, 5)
}
"""All weak orders of n images: the place of each one's group, from the lowest."""
RANKS = {n: np.array([average_ranks(g) for g in groups]) for n, groups in WEAK.items()}


def lowest_srocc(low, high, mos):
    """Return the lowest SROCC over all weak orders that scores in the intervals can have; inf without any.

    Groups are put as low as they can be: (value, steps above it), for the next must lie strictly above.
    """
    n = len(low)
    groups = WEAK[n]
    value, steps = np.full(len(groups), -np.inf), np.zeros(len(groups))
    can = np.ones(len(groups), dtype=bool)
    for place in range(n):
        mine = groups == place
        there = mine.any(axis=1)
        begin = np.where(mine, low, -np.inf).max(axis=1)
        end = np.where(mine, high, np.inf).min(axis=1)
        held = value >= begin
        steps = np.where(there, np.where(held, steps + 1, 0), steps)
        value = np.where(there, np.maximum(value, begin), value)
        can &= ~there | (value < end) | ((value == end) & (steps == 0))
    label = average_ranks(mos) - (n + 1) / 2
    ranks = RANKS[n] - (n + 1) / 2
    length = np.sqrt((ranks**2).sum(axis=1) * (label @ label))
    can &= length > 0
    return float((ranks[can] @ label / length[can]).min()) if can.any() else np.inf


def cases(seed, count):
    """Yield small sets: ends that touch, points, tied labels, and real numbers without any of these."""
    rng = np.random.default_rng(seed)
    for case in range(count):
        n = int(rng.integers(3, 6))
        mos = rng.integers(0, rng.integers(2, 6), n) if case % 2 else rng.permutation(n)
        if case % 4 < 2:
            low = rng.integers(0, 6, n).astype(float)
            high = low + rng.integers(0, 4, n)
        else:
            middle, reach = rng.random(n), rng.random(n) * rng.choice([0.05, 0.2, 0.6])
            low, high = middle - reach, middle + reach
        if np.ptp(mos):
            yield low, high, mos.astype(float)


def test_weak_orders_are_scored_as_the_measure_does():
    for low, high, mos in itertools.islice(cases(5, 40), 20):
        assert len(low) == len(high)
        scores = WEAK[len(mos)][-1].astype(float)
        found = srocc(scores, mos).value
        assert lowest_srocc(scores, scores, mos) == pytest.approx(found, abs=1e-12)


@pytest.fixture(scope="module")
def thousand():
    """A thousand small sets, each with its true lowest SROCC."""
    return [(*case, lowest_srocc(*case)) for case in cases(1, 1000)]


@pytest.mark.parametrize("relaxed", ["searched", "cut", "pairs"])
def test_no_choice_of_scores_goes_below_the_floor_of_srocc(thousand, relaxed, monkeypatch):
    """Against all weak orders; and where it says to be exact, it is, whichever way it was found."""
    if relaxed != "searched":
        monkeypatch.setattr(certified_srocc, "SEARCHED", 0)
    if relaxed == "pairs":
        monkeypatch.setattr(certified_srocc, "RELAXED", 0)
    gaps, exact = [], 0
    for low, high, mos, truth in thousand:
        floor = srocc_floor(low, high, mos)
        if floor.value.value is None:
            assert truth == np.inf
            continue
        assert floor.value.value <= truth + 1e-14
        if floor.exact:
            exact += 1
            assert floor.value.value == pytest.approx(truth, abs=1e-9)
        if len(np.unique(mos)) == len(mos) and not np.isin(low, high).any():
            gaps.append(truth - floor.value.value)
    assert exact > 50
    # Without ties and ends that touch, the search is exact; one cut was, on all of these, too.
    assert len(gaps) > 150
    assert max(gaps) < (1e-9 if relaxed != "pairs" else 1.1)


def test_a_larger_set_s_floor_is_near_what_an_adversary_reaches():
    """The cut of 60 images is at most .02 below scores that exist: those that move in blocks."""
    rng = np.random.default_rng(2)
    mos = rng.random(60)
    middle = mos + 0.3 * rng.standard_normal(60)
    low, high = middle - 0.15, middle + 0.15
    floor = srocc_floor(low, high, mos)
    best = np.where(mos > np.median(mos), low, high)
    for _ in range(3):
        for i in range(60):
            tried = np.linspace(low[i], high[i], 25)
            values = [srocc(np.where(np.arange(60) == i, t, best), mos).value for t in tried]
            best[i] = tried[int(np.argmin(values))]
    reached = srocc(best, mos).value
    assert reached - 0.03 <= floor.value.value <= reached


def test_sure_orders_and_none():
    """Disjoint intervals keep the order; intervals that all overlap reverse it."""
    mos = np.array([1.0, 2.0, 4.0, 3.0])
    places = np.arange(4.0)
    kept = srocc_floor(places - 0.4, places + 0.4, mos)
    assert kept.exact
    assert kept.value.value == pytest.approx(0.8)
    assert srocc_floor(np.zeros(4), np.arange(1.0, 5), mos).value.value == -1
    assert srocc_floor(np.full(4, -np.inf), np.full(4, np.inf), mos).value.value == -1
    assert plcc_floor(np.full(4, -np.inf), np.full(4, np.inf), mos).value.value == -1
    points = np.array([3.0, 3.0, 1.0, 2.0])
    for floor, measure in ((srocc_floor, srocc), (plcc_floor, plcc)):
        assert floor(points, points, mos).value.value == pytest.approx(measure(points, mos).value, abs=1e-8)


@pytest.mark.parametrize("floor", [srocc_floor, plcc_floor])
def test_what_has_no_floor_is_said_in_words(floor):
    ones, three = np.ones(3), np.arange(3.0)
    assert floor(ones, 2 * ones, ones).value.undefined == "all labels are equal"
    assert floor(ones, ones, three).value.undefined == "all scores are equal"
    assert "only 2 images" in floor(ones[:2], ones[:2], three[:2]).value.undefined
    with pytest.raises(ValueError, match="no interval"):
        floor(2 * ones, ones, three)
    with pytest.raises(ValueError, match="no interval"):
        floor(np.array([0, np.nan, 1]), 2 * ones, three)
    with pytest.raises(ValueError, match="labels"):
        floor(ones, ones, np.arange(4.0))


def test_no_choice_of_scores_goes_below_the_floor_of_plcc():
    """A minimum that is not negative stands at a corner; a negative one where descents end."""
    rng = np.random.default_rng(3)
    negative, gaps = [], []
    for _ in range(100):
        n = int(rng.integers(3, 7))
        mos = rng.random(n)
        middle = rng.choice([0.0, 1.0, 2.0]) * mos + rng.random(n)
        reach = rng.random(n) * rng.choice([0.05, 0.2, 0.6])
        low, high = middle - reach, middle + reach
        corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
        truth = float(np.corrcoef(np.vstack([mos, corners]))[0, 1:].min())
        floor = plcc_floor(low, high, mos)
        assert floor.value.value <= truth
        if truth < 0:
            truth = min(truth, _descended(low, high, mos, rng))
            assert floor.value.value <= truth + 1e-9
            negative.append(truth - floor.value.value)
        else:
            gaps.append(truth - floor.value.value)
        if floor.exact:
            assert floor.value.value == pytest.approx(truth, abs=1e-4)
    assert len(negative) > 20
    assert max(negative) < 1e-4
    assert len(gaps) > 50
    assert np.mean(gaps) < 0.02


def _descended(low, high, mos, rng):
    """Return a low PLCC, by descent within the box from random points."""
    weight = (mos - mos.mean()) / np.linalg.norm(mos - mos.mean())

    def value_and_slope(scores):
        centred = scores - scores.mean()
        length = np.linalg.norm(centred)
        value = weight @ centred / length
        return value, weight / length - value * centred / length**2

    found = []
    for _ in range(4):
        start = low + rng.random(len(mos)) * (high - low)
        bounds = list(zip(low, high, strict=True))
        options = {"ftol": 1e-15, "gtol": 1e-12}
        end = minimize(value_and_slope, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
        found.append(plcc(np.clip(end.x, low, high), mos).value)
    return min(found)


intervals = st.lists(
    st.tuples(st.floats(-100, 100), st.floats(0, 50), st.floats(0, 1), st.integers(0, 6)),
    min_size=3,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(intervals)
def test_any_scores_in_the_intervals_are_above_both_floors(rows):
    low, width, share, mos = np.array(rows, dtype=float).T
    high = low + width
    scores = np.clip(low + share * width, low, high)
    for floor, measure in ((srocc_floor, srocc), (plcc_floor, plcc)):
        value = measure(scores, mos).value
        if value is not None:
            assert floor(low, high, mos).value.value <= value + 1e-12
