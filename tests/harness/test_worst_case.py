"""The composed worst case against brute force, and as a bound on everything it is made of."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from helpers.judged_rows import judged
from iqa_attacks.assignment import Products, Ranks, descend
from iqa_harness.measures.composed import composed_worst_case
from iqa_harness.measures.correlation import average_ranks, plcc, srocc
from iqa_harness.tables.minima import compose
from iqa_harness.tables.rows import Scores


def _problem(seed, n=6, k=3, ties=False):
    generator = np.random.default_rng(seed)
    mos = generator.random(n)
    candidates = [mos[i] + 0.4 * generator.standard_normal(k) for i in range(n)]
    if ties:
        candidates = [np.round(c, 1) for c in candidates]
    return candidates, mos


def _brute(candidates, mos, metric):
    choices = np.array(list(itertools.product(*candidates)))
    choices = choices[np.ptp(choices, axis=1) > 0]
    if metric == "srocc":
        choices, mos = rankdata(choices, axis=1), rankdata(mos)
    return pearsonr(choices, np.broadcast_to(mos, choices.shape), axis=1).statistic.min()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_it_is_near_the_true_minimum(metric, ties):
    """On small sets coordinate descent meets the brute-force minimum nearly always, and never beats it."""
    gaps = []
    for seed in range(15):
        candidates, mos = _problem(seed, n=5, ties=ties)
        found = composed_worst_case(candidates, mos, metric).value.value
        gaps.append(found - _brute(candidates, mos, metric))
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


@given(seed=st.integers(0, 10_000), ties=st.booleans(), metric=st.sampled_from(["srocc", "plcc"]))
@settings(max_examples=40, deadline=None)
def test_every_change_of_one_image_is_judged_exactly(seed, ties, metric):
    """The value of a change, from counts or running sums, is SciPy's of the whole set, ties included."""
    candidates, mos = _problem(seed, n=9, k=5, ties=ties)
    candidates[3] = candidates[3][:2]  # rows may differ in length
    judge, oracle = {"srocc": (Ranks, spearmanr), "plcc": (Products, pearsonr)}[metric]
    judge = judge(candidates, mos)
    choice = np.random.default_rng(seed).integers(0, 2, 9)
    values = judge.of_changes(choice)
    for i, row in enumerate(candidates):
        for k in range(len(row)):
            changed = choice.copy()
            changed[i] = k
            scores = np.array([c[j] for c, j in zip(candidates, changed, strict=True)])
            exact = oracle(scores, mos).statistic
            assert values[i, k] == pytest.approx(exact, abs=1e-12)
            assert judge.of(changed) == pytest.approx(exact, abs=1e-12)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_ranks_of_whole_numbers_are_scipys(places):
    """To the last bit, ties included."""
    assert np.array_equal(average_ranks(np.array(places)), rankdata(places))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_every_round_goes_down_and_no_single_change_is_left(metric, ties):
    """A descent ends below its start, where SciPy finds no image whose change goes further down."""
    candidates, mos = _problem(4, n=40, k=4, ties=ties)
    judge, oracle = {"srocc": (Ranks, spearmanr), "plcc": (Products, pearsonr)}[metric]
    judge = judge(candidates, mos)
    met = []
    of_changes = judge.of_changes
    judge.of_changes = lambda choice: met.append(judge.of(choice)) or of_changes(choice)
    end = descend(judge, np.zeros(40, dtype=np.intp))
    assert len(met) > 2
    assert all(b < a for a, b in itertools.pairwise(met))
    scores = np.array([c[k] for c, k in zip(candidates, end, strict=True)])
    value = oracle(scores, mos).statistic
    for i, row in enumerate(candidates):
        for score in row:
            changed = scores.copy()
            changed[i] = score
            assert oracle(changed, mos).statistic >= value - 1e-11


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_moving_many_images_at_once_loses_nothing_to_one_at_a_time(metric):
    """On 120 images it ends no higher, on average, than plain coordinate descent, one image after another."""
    oracle = {"srocc": lambda a, b: np.corrcoef(rankdata(a), rankdata(b))[0, 1],
              "plcc": lambda a, b: np.corrcoef(a, b)[0, 1]}[metric]  # fmt: skip
    differences = []
    for seed in range(3):
        candidates, mos = _problem(seed, n=120, k=3)
        scores = np.array(
            [c.max() if y < np.median(mos) else c.min() for c, y in zip(candidates, mos, strict=True)]
        )
        value, improved = oracle(scores, mos), True
        while improved:
            improved = False
            for i, row in enumerate(candidates):
                for score in row:
                    changed = scores.copy()
                    changed[i] = score
                    reached = oracle(changed, mos)
                    if reached < value - 1e-12:
                        scores, value, improved = changed, reached, True
        differences.append(composed_worst_case(candidates, mos, metric).value.value - value)
    assert np.mean(differences) < 1e-4


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


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
def test_the_choice_of_a_table_is_among_attacks_and_clean_images(metric):
    """The lowest of all choices, clean images among them, each with its own score after rounding."""
    reached, left_alone = [], 0
    for seed in range(8):
        candidates, mos = _problem(seed, n=5, k=3)
        clean, *versions = np.stack(candidates, axis=1)
        attacks = [Scores(scores, scores + 0.1 * (place + 1)) for place, scores in enumerate(versions)]
        of = dataclasses.replace(judged(clean), mos=mos)
        found = compose(of, attacks, metric)
        own = [(score, score) for score in clean], *(zip(*attack, strict=True) for attack in attacks)
        for pair, admissible in zip(zip(*found, strict=True), zip(*own, strict=True), strict=True):
            assert pair in admissible
        measure = srocc if metric == "srocc" else plcc
        reached.append(measure(found.full, mos).value - _brute(candidates, mos, metric))
        left_alone += int((found.full == clean).sum())
    assert min(reached) > -1e-12
    assert np.mean(np.array(reached) < 1e-9) >= 0.8
    assert left_alone >= 8
