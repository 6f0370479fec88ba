"""The composed worst case against brute force, and as a bound on everything it is made of."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from iqa_harness.metrics import srocc
from iqa_harness.worst_case import _srocc_of, composed_worst_case


def _problem(seed, n=6, k=3, ties=False):
    generator = np.random.default_rng(seed)
    mos = generator.random(n)
    candidates = [mos[i] + 0.4 * generator.standard_normal(k) for i in range(n)]
    if ties:
        candidates = [np.round(c, 1) for c in candidates]
    return candidates, mos


def _brute(candidates, mos, measure):
    choices = (np.array(chosen) for chosen in itertools.product(*candidates))
    return min(measure(chosen, mos).statistic for chosen in choices if np.ptp(chosen) > 0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("metric", "oracle"), [("srocc", spearmanr), ("plcc", pearsonr)])
def test_it_is_near_the_true_minimum(metric, oracle, ties):
    """On small sets coordinate descent meets the brute-force minimum nearly always, and never beats it."""
    gaps = []
    for seed in range(15):
        candidates, mos = _problem(seed, n=5, ties=ties)
        found = composed_worst_case(candidates, mos, metric).value.value
        gaps.append(found - _brute(candidates, mos, oracle))
    assert min(gaps) > -1e-12
    assert np.mean(np.array(gaps) < 1e-9) >= 0.8
    assert max(gaps) < 0.15


@given(seed=st.integers(0, 10_000), ties=st.booleans(), metric=st.sampled_from(["srocc", "plcc"]))
@settings(max_examples=60, deadline=None)
def test_it_is_never_above_a_member(seed, ties, metric):
    """Whatever an attack alone reaches, the composed worst case reaches or passes."""
    candidates, mos = _problem(seed, n=12, k=4, ties=ties)
    oracle = spearmanr if metric == "srocc" else pearsonr
    members = [np.full(12, k) for k in range(4)]
    found = composed_worst_case(candidates, mos, metric, starts=members).value.value
    for member in members:
        scores = np.array([c[k] for c, k in zip(candidates, member, strict=True)])
        if np.ptp(scores) > 0:
            assert found <= oracle(scores, mos).statistic + 1e-12


@given(seed=st.integers(0, 10_000), ties=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_incremental_srocc_is_exact(seed, ties):
    """The value judged from prefix sums is SciPy's SROCC of the whole set, ties included."""
    candidates, mos = _problem(seed, n=9, k=5, ties=ties)
    scores = np.array([c[0] for c in candidates])
    weight = rankdata(mos) - rankdata(mos).mean()
    others = np.delete(scores, 4)
    order = np.argsort(others, kind="stable")
    values = _srocc_of(candidates[4], others[order], np.delete(weight, 4)[order], weight[4], 9, weight)
    for trial, value in zip(candidates[4], values, strict=True):
        changed = scores.copy()
        changed[4] = trial
        assert value == pytest.approx(spearmanr(changed, mos).statistic, abs=1e-12)


def test_wide_intervals_reverse_the_order():
    """An adversary who can move every score anywhere reaches -1."""
    mos = np.linspace(0, 1, 20)
    candidates = [np.linspace(0, 1, 20) for _ in mos]
    assert composed_worst_case(candidates, mos, "srocc").value.value == pytest.approx(-1)


def test_no_choice_is_the_clean_value():
    """With one candidate an image nothing can be chosen."""
    candidates, mos = _problem(1, n=10, k=1)
    clean = srocc(np.array([c[0] for c in candidates]), mos)
    assert composed_worst_case(candidates, mos, "srocc").value == clean


def test_a_collapse_is_undefined_not_zero():
    """If every choice is constant there is no correlation, and the reason is given."""
    result = composed_worst_case([np.array([0.5, 0.5])] * 5, np.arange(5.0), "srocc")
    assert result.value.value is None
    assert "equal" in result.value.undefined


def test_a_candidate_that_is_no_number_is_refused():
    """NaN sorts anywhere: it must never reach the search, where it would pass for robustness."""
    candidates, mos = _problem(1)
    candidates[2][1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        composed_worst_case(candidates, mos, "srocc")


def test_largest_drift_is_not_the_worst_case():
    """Taking the largest change an image can leave the order intact where the composed choice breaks it."""
    mos = np.linspace(0, 1, 10)
    candidates = [np.array([y, y + 0.5, y - 0.45]) for y in mos]
    drift = np.array([c[1] for c in candidates])
    assert srocc(drift, mos).value == pytest.approx(1)
    assert composed_worst_case(candidates, mos, "srocc").value.value < 0.5
