"""Intervals against SciPy's bootstrap and against drawn sets built by hand."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, pearsonr, rankdata, spearmanr
from scipy.stats import t as student

from iqa_harness.measures import bootstrap as module
from iqa_harness.measures.bootstrap import Bootstrap, lowest, widened
from iqa_harness.measures.correlation import Value, plcc, srocc

OF = {"srocc": srocc, "plcc": plcc}
ORACLE = {"srocc": spearmanr, "plcc": pearsonr}


def _spearman(a, b, axis):
    """SciPy's value of many drawn sets at once."""
    return pearsonr(rankdata(a, axis=axis), rankdata(b, axis=axis), axis=axis).statistic


MANY = {"srocc": _spearman, "plcc": lambda a, b, axis: pearsonr(a, b, axis=axis).statistic}


def _data(n=80, seed=2, ties=False):
    generator = np.random.default_rng(seed)
    mos = generator.random(n)
    scores = mos + 0.4 * generator.standard_normal(n)
    return (np.round(scores, 1), np.round(mos, 1)) if ties else (scores, mos)


def _replicates(drawn, scores, mos, metric):
    return drawn.replicates(OF[metric](scores, mos), scores, metric)


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("contents", [None, 8])
def test_every_replicate_is_scipys_value_on_the_drawn_set(metric, ties, contents):
    """Counting draws gives what building the drawn set and asking SciPy gives, contents drawn whole."""
    scores, mos = _data(40, ties=ties)
    references = None if contents is None else [f"c{i % contents}" for i in range(40)]
    drawn = Bootstrap(mos, references, resamples=30, seed=1)
    found, every = _replicates(drawn, scores, mos, metric), drawn._counts[0].T
    for value, counts in zip(found.draws, every, strict=False):
        index = np.repeat(np.arange(40), counts)
        assert value == pytest.approx(ORACLE[metric](scores[index], mos[index]).statistic, abs=1e-12)
    for value, counts in zip(found.left_out, every[30:], strict=True):
        kept = counts > 0
        assert value == pytest.approx(ORACLE[metric](scores[kept], mos[kept]).statistic, abs=1e-12)
    assert len(found.left_out) == (contents or 40)


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_intervals_agree_with_scipys_bootstrap(metric):
    """Both kinds of interval are SciPy's within the noise of the draws."""
    scores, mos = _data()
    drawn, theirs = _replicates(Bootstrap(mos, resamples=8000, seed=3), scores, mos, metric), None
    for method, draws in (("percentile", 3000), ("BCa", 0)):  # the second from SciPy's same draws
        ours = drawn.interval(method)
        theirs = bootstrap(
            (scores, mos),
            MANY[metric],
            paired=True,
            vectorized=True,
            n_resamples=draws,
            bootstrap_result=theirs,
            method=method,
            confidence_level=float(np.diff(widened(0.95, 80))[0]),
            rng=np.random.default_rng(4),
        )
        assert len(theirs.bootstrap_distribution) == 3000
        assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
        assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)


def test_a_difference_is_paired():
    """The interval of a difference is that of one bootstrap over both; against itself it is 0."""
    scores, mos = _data(60)
    other = scores + 0.05 * np.random.default_rng(5).standard_normal(60)
    drawn = Bootstrap(mos, resamples=4000, seed=3)
    difference = _replicates(drawn, scores, mos, "srocc") - _replicates(drawn, other, mos, "srocc")
    theirs = bootstrap(
        (scores, other, mos),
        lambda a, b, y, axis: _spearman(a, y, axis) - _spearman(b, y, axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        confidence_level=float(np.diff(widened(0.95, 60))[0]),
        rng=np.random.default_rng(4),
    ).confidence_interval
    ours = difference.interval("percentile")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    alone = _replicates(drawn, scores, mos, "srocc").interval("percentile")
    assert ours.high - ours.low < (alone.high - alone.low) / 2
    same = _replicates(drawn, scores, mos, "srocc")
    assert (same - same).interval() == (0.0, 0.0)


def test_the_minimum_is_taken_anew_in_every_draw():
    """Its interval is wider to the low side than that of the member that gives it."""
    _, mos = _data(60)
    generator = np.random.default_rng(0)
    members = [mos + 0.8 * generator.standard_normal(60) for _ in range(4)]
    drawn = Bootstrap(mos, seed=3)
    replicates = [_replicates(drawn, m, mos, "srocc") for m in members]
    least = lowest(replicates)
    assert least.point.value == min(r.point.value for r in replicates)
    assert np.array_equal(least.draws, np.min([r.draws for r in replicates], axis=0))
    chosen = min(replicates, key=lambda r: r.point.value)
    assert least.interval("percentile").low <= chosen.interval("percentile").low
    undefined = drawn.replicates(Value.none("constant"), np.ones(60), "srocc")
    assert lowest([*replicates, undefined]).point.undefined == "constant"
    assert lowest([*replicates, undefined]).interval() == (None, None)


def test_few_units_widen_an_interval_as_a_t_interval():
    """The mean of n normal numbers: the widened draws reach as far as Student's interval."""
    for n in (5, 20, 100):
        low, high = widened(0.95, n)
        spread = np.sqrt((n - 1) / n)  # of the mean's draws, in standard errors
        assert norm.ppf(high) * spread == pytest.approx(student.ppf(0.975, n - 1))
        assert low == pytest.approx(1 - high)
    assert tuple(widened(0.95, 10**6)) == pytest.approx((0.025, 0.975), abs=1e-5)


def test_contents_are_drawn_if_there_are_enough():
    """Seven contents are drawn whole; two are too few and the label says so; one an image is images."""
    scores, mos = _data(56)
    seven = Bootstrap(mos, [f"c{i % 7}" for i in range(56)])
    assert (seven.units, seven.label()) == (7, "percentile over references")
    two = Bootstrap(mos, [f"c{i % 2}" for i in range(56)])
    assert (two.units, two.label()) == (56, "BCa over images (2 references: too few to draw)")
    own = Bootstrap(mos, [f"c{i}" for i in range(56)])
    assert (own.units, own.label("percentile")) == (56, "percentile over images")
    for drawn in (seven, own):
        found = _replicates(drawn, scores, mos, "srocc")
        assert found.interval() == found.interval("BCa" if drawn is own else "percentile")
        assert lowest([found, found]).method == "percentile"


def test_shared_contents_widen_the_interval():
    """Errors that belong to the content make the cluster interval wider than that over images."""
    generator = np.random.default_rng(1)
    content = np.arange(200) % 10
    mos = generator.standard_normal(10)[content] + 0.1 * generator.standard_normal(200)
    scores = mos + generator.standard_normal(10)[content]
    over_images = _replicates(Bootstrap(mos), scores, mos, "srocc").interval()
    over_contents = _replicates(Bootstrap(mos, [str(c) for c in content]), scores, mos, "srocc").interval()
    assert over_contents.high - over_contents.low > 2 * (over_images.high - over_images.low)


def test_intervals_repeat_and_can_be_undefined():
    """The same seed gives the same interval; constant scores and an empty set have none."""
    scores, mos = _data(30)
    first, again = (_replicates(Bootstrap(mos, seed=5), scores, mos, "plcc").interval() for _ in range(2))
    assert first == again
    constant = Bootstrap(mos).replicates(srocc(np.ones(30), mos), np.ones(30), "srocc")
    assert constant.interval() == (None, None)
    nothing = np.zeros(0)
    assert Bootstrap(nothing).replicates(srocc(nothing, nothing), nothing, "srocc").interval() == (None, None)


def test_a_perfect_order_has_an_interval_of_no_width():
    """Where no draw can change the value, both ends are the value."""
    mos = np.linspace(0, 1, 20)
    low, high = _replicates(Bootstrap(mos), mos**3, mos, "srocc").interval()
    assert (low, high) == pytest.approx((1, 1))


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
@pytest.mark.parametrize("contents", [None, 7])
def test_a_large_set_s_draws_go_in_parts_and_are_the_same(monkeypatch, metric, contents):
    """Parts of a few draws, made and judged one after another, are the draws of a set that goes whole."""
    mos, values = np.random.default_rng(4).random((2, 40)).round(1)
    references = None if contents is None else [f"scene {i % contents}" for i in range(40)]
    whole = Bootstrap(mos, references, seed=5).replicates(Value.of(0), values, metric)
    monkeypatch.setattr(module, "KEPT", 0)
    monkeypatch.setattr(module, "PART", 130)
    parts = Bootstrap(mos, references, seed=5).replicates(Value.of(0), values, metric)
    for name in ("draws", "left_out"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=1e-14)


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_rounding_steps_over_neither_end(metric):
    """Of scores that are the labels, or turned round, every value is within 1: sums alone give a bit more."""
    for seed in range(8):
        mos = np.random.default_rng(seed).random(14)
        draws = Bootstrap(mos, resamples=200, seed=seed)
        for scores in (mos, -3 * mos):
            point = (srocc if metric == "srocc" else plcc)(scores, mos)
            found = draws.replicates(point, scores, metric)
            every = [point.value, *found.draws, *found.left_out]
            assert np.nanmax(np.abs(every)) <= 1
            assert np.nanmin(np.abs(every)) == pytest.approx(1, abs=1e-9)
