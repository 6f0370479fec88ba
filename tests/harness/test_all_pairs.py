"""All pairs of models at once: intervals, ties and ranks that hold together."""

import math

import numpy as np
import pytest
from scipy import stats

from helpers.simulated_board import Population, draw_board, holds
from iqa_harness.measures.all_pairs import all_pairs
from iqa_harness.measures.bootstrap import Bootstrap, Replicates
from iqa_harness.measures.correlation import Value, srocc
from iqa_harness.tables.ties import Place, Standing, difference_rows

GENERATOR = np.random.default_rng(11)
MOS = GENERATOR.standard_normal(40)
SCORES = [w * MOS + GENERATOR.standard_normal(40) for w in (0.3, 1.0, 1.1, 3.0)]


@pytest.fixture(scope="module")
def values():
    drawn = Bootstrap(MOS, seed=2)
    return [drawn.replicates(srocc(s, MOS), s, "srocc") for s in SCORES]


def test_intervals_reach_as_many_errors_as_the_largest_t_of_the_draws(values):
    """By hand: SciPy's t quantile at the normal tail of the 95 % quantile of the largest |t|, widened."""
    found = all_pairs(values)
    sizes, errors = [], {}
    for i in range(4):
        for j in range(i):
            off = (values[i].draws - values[j].draws) - (values[i].point.value - values[j].point.value)
            errors[i, j] = math.sqrt(np.mean(off**2))
            sizes.append(np.abs(off) / errors[i, j])
    largest = np.quantile(np.max(sizes, axis=0), 0.95)
    wide = stats.t(39).isf(stats.norm.sf(largest)) * math.sqrt(40 / 39)
    assert found.quantile == pytest.approx(wide, rel=1e-12)
    assert 1.96 < stats.norm.isf(0.025 / 6) - 0.5 < largest < wide
    for (i, j), error in errors.items():
        low, high = found.interval(i, j)
        middle = values[i].point.value - values[j].point.value
        assert (low, high) == pytest.approx((middle - wide * error, middle + wide * error), rel=1e-12)
        assert found.interval(j, i) == pytest.approx((-high, -low))


def test_a_value_that_does_not_exist_takes_no_part(values):
    """Undefined on the set, or on too many draws: no interval, and the others' stay as they are."""
    rarely = values[0].draws.copy()
    rarely[:200] = np.nan
    point = values[0].point
    more = [
        *values,
        Replicates(Value.none("constant"), np.full(1000, np.nan), values[0].left_out, 40),
        Replicates(point, rarely, values[0].left_out, 40),
    ]
    found, alone = all_pairs(more), all_pairs(values)
    assert found.quantile == alone.quantile
    assert found.interval(0, 4) == found.interval(5, 1) == (None, None)
    assert found.interval(0, 3) == alone.interval(0, 3)


def test_one_value_and_none_have_no_pairs(values):
    """Nothing to compare is no error."""
    assert all_pairs([]).difference.shape == (0, 0)
    assert all_pairs(values[:1]).interval(0, 0) == (None, None)


def test_equal_models_are_tied_and_differ_by_nothing(values):
    """The same scores under two names: an interval of no width around 0, which others' do not feel."""
    found = all_pairs([*values, values[0]])
    assert found.interval(0, 4) == (0, 0)
    assert found.quantile == all_pairs(values).quantile


def test_a_pair_is_tied_by_the_interval_of_its_family(values):
    """One that its own 95 % interval tells apart may be tied among six; the row says how many."""
    place = Place("suite_min", "inf", 1 / 255, "srocc")
    standings = [Standing(n, "", "", (), "over images", v) for n, v in zip("abcd", values, strict=True)]
    rows = {(r.model_a, r.model_b): r for r in difference_rows({place: standings}, list("abcd"))}
    assert {(r.low <= 0 <= r.high) == r.tied for r in rows.values()} == {True}
    assert {pair for pair, r in rows.items() if not r.tied} == {("a", "d"), ("b", "d")}
    assert {r.interval for r in rows.values()} == {"t of 6 pairs at once over images"}
    low, high = (values[2] - values[3]).interval()
    assert high < 0
    (alone,) = difference_rows({place: standings[2:]}, ["c", "d"])
    assert alone.interval == "t of 1 pair over images"
    assert not alone.tied
    assert (alone.low, alone.high) == pytest.approx((low, high), abs=0.06)


def test_the_places_of_twenty_models_hold_all_at_once():
    """Simulated boards, equal true values among them: on 29 of 30 or more, with places that say something."""
    population = Population([0.2] * 7 + [0.5] * 6 + [0.85] * 7, 60)
    boards = [draw_board(population, seed, resamples=300) for seed in range(30)]
    assert sum(holds(board, population.truth) for board in boards) >= 29
    assert np.mean([rank.last - rank.place + 1 for board in boards for rank in board.values()]) < 15
