"""Metrics against SciPy and closed forms; what does not exist is said so."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit, nnls
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

from iqa_harness.measures.correlation import Fit, Logistic, fit_logistic, krocc, plcc, srocc
from iqa_harness.measures.model_scores import judge
from iqa_results import DataRecord, ModelRecord, RunManifest


@given(st.integers(0, 10_000), st.integers(3, 40), st.booleans())
@settings(max_examples=50, deadline=None)
def test_correlations_equal_scipy(seed, n, ties):
    """SROCC, KROCC and PLCC are SciPy's, ties included."""
    generator = np.random.default_rng(seed)
    scores, mos = generator.random(n), generator.random(n)
    if ties:
        scores = np.round(scores, 1)
    if np.ptp(scores) == 0:
        return
    assert srocc(scores, mos).value == pytest.approx(spearmanr(scores, mos).statistic, abs=1e-12)
    assert krocc(scores, mos).value == pytest.approx(kendalltau(scores, mos).statistic, abs=1e-12)
    assert plcc(scores, mos).value == pytest.approx(pearsonr(scores, mos).statistic, abs=1e-10)


@pytest.mark.parametrize("measure", [srocc, krocc, plcc])
@pytest.mark.parametrize(
    ("scores", "mos", "reason"),
    [
        ([0.1, 0.2], [1, 2], "only 2 images"),
        ([0.3, 0.3, 0.3], [1, 2, 3], "all scores are equal"),
        ([50.0, 50.000004, 50.000002], [1, 2, 3], "all scores are equal"),
        ([0.1, 0.2, 0.3], [2, 2, 2], "all labels are equal"),
        ([0.1, np.nan, 0.3], [1, 2, 3], "not finite"),
        ([0.1, np.inf, 0.3], [1, 2, 3], "not finite"),
    ],
)
def test_undefined_has_a_reason(measure, scores, mos, reason):
    """A correlation that does not exist is neither 0 nor NaN but a stated reason."""
    value = measure(np.array(scores, dtype=float), np.array(mos, dtype=float))
    assert value.value is None
    assert reason in value.undefined


def test_lengths_must_agree():
    """Vectors of different length are a programming error, not an undefined value."""
    with pytest.raises(ValueError, match="3 scores and 2 labels"):
        srocc(np.zeros(3), np.zeros(2))


def test_the_logistic_recovers_its_own_curve():
    """Data made by a five-parameter logistic are fitted to rounding error."""
    truth = Logistic(0.5, 0.2, (3.0, 2.0, 0.3, 0.1, 2.5), 0.0)
    scores = np.linspace(0, 1, 60)
    fit = fit_logistic(scores, truth(scores)).logistic
    assert fit.rmse < 1e-6
    assert np.allclose(fit(scores), truth(scores), atol=1e-5)


def test_the_logistic_straightens_a_curved_scale():
    """On a saturating scale the mapped PLCC beats the raw one, and the map rises."""
    generator = np.random.default_rng(0)
    mos = generator.random(200)
    scores = 1 / (1 + np.exp(-12 * (mos - 0.5))) + 0.01 * generator.standard_normal(200)
    fit = fit_logistic(scores, mos).logistic
    assert plcc(fit(scores), mos).value > plcc(scores, mos).value + 0.01
    line = fit(np.linspace(scores.min(), scores.max(), 100))
    assert (np.diff(line) > 0).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_fit_does_not_depend_on_the_scores_unit(scale):
    """Scores in another unit give the same mapped values."""
    generator = np.random.default_rng(1)
    mos = generator.random(50)
    scores = mos + 0.1 * generator.standard_normal(50)
    scaled, plain = fit_logistic(scores * scale, mos).logistic, fit_logistic(scores, mos).logistic
    assert np.allclose(scaled(scores * scale), plain(scores), atol=1e-4)


def test_a_reversed_predictor_is_not_turned_round():
    """Scores that fall with the labels get no map, so that PLCC stays negative."""
    generator = np.random.default_rng(3)
    mos = generator.random(60)
    fit = fit_logistic(-mos + 0.2 * generator.standard_normal(60), mos)
    assert fit.logistic is None
    assert fit.mark == "failed: the best rising curve is a constant: scores do not rise with the labels"


def test_no_fit_without_substance():
    """Too few images or constant scores give no fit, and the reason."""
    few = fit_logistic(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    assert (few.logistic, few.status, few.detail) == (None, "failed", "9 images, at least 10 are needed")
    assert fit_logistic(np.full(30, 0.5), np.linspace(0, 1, 30)).detail == "all scores are equal"


def _curve(s, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (s - b3)))) + b4 * s + b5


@pytest.mark.parametrize("seed", range(5))
def test_no_peer_fits_better(seed):
    """From the truth itself SciPy's curve_fit finds no smaller residual than our starts do."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(10, 90, 120)
    truth = (4.0, generator.uniform(0.03, 0.4), generator.uniform(30, 70), 0.005, 3.0)
    mos = _curve(scores, *truth) + 0.3 * generator.standard_normal(120)
    fit = fit_logistic(scores, mos)
    best, _ = curve_fit(_curve, scores, mos, p0=truth, maxfev=20000)
    theirs = np.sqrt(((_curve(scores, *best) - mos) ** 2).mean())
    # Theirs has no bounds: a curve that falls somewhere may be a hair better.
    assert fit.logistic.rmse <= theirs * 1.02
    assert fit.detail.endswith("starts converged")


@pytest.mark.parametrize("seed", range(4))
def test_no_curve_of_a_fine_grid_fits_better(seed):
    """Of scores that hardly follow labels, steepness and place all over, the rest by SciPy's nnls."""
    generator = np.random.default_rng(seed)
    mos = generator.uniform(0, 100, 20)
    scores = 0.006 * mos + generator.standard_normal(20)
    q = (scores - scores.mean()) / scores.std()
    line = [q, np.ones(20), -np.ones(20)]
    least = np.inf
    for steepness in np.geomspace(0.1, 50, 15):
        for place in np.linspace(-3, 3, 121):
            (height, _, up, down), residual = nnls(
                np.stack([expit(steepness * (q - place)) - 0.5, *line], 1), mos
            )
            if height < 1000 and -200 < up - down < 300:
                least = min(least, residual / np.sqrt(20))
    assert fit_logistic(scores, mos).logistic.rmse <= least * (1 + 1e-9)


def test_stored_parameters_give_the_same_curve():
    """b1..b5 on scores as they are equal the map on standardised scores, and the residual is its own."""
    generator = np.random.default_rng(4)
    scores = generator.uniform(10, 90, 60)
    mos = _curve(scores, 4, 0.1, 50, 0.01, 3) + 0.1 * generator.standard_normal(60)
    logistic = fit_logistic(scores, mos).logistic
    assert np.allclose(_curve(scores, *logistic.on_scores), logistic(scores), atol=1e-9)
    assert logistic.rmse == pytest.approx(np.sqrt(((logistic(scores) - mos) ** 2).mean()))


def test_an_undefined_plcc_says_whether_its_scores_were_mapped():
    """Scores that differ may all be mapped to one value: the reason must not call them equal."""
    mos = np.linspace(0, 1, 12)
    assert plcc(np.full(12, 3.0), mos, mapped=True).undefined == "all mapped scores are equal"
    assert plcc(np.full(12, 3.0), mos).undefined == "all scores are equal"


def test_a_flat_part_of_the_logistic_is_named():
    """Scores that differ, all where the curve is flat: SROCC exists, PLCC says why it does not."""
    mos = np.linspace(0, 1, 12)
    ids = [f"i{i}" for i in range(12)]
    same = {"attack": "clean", "split": "test", "reference": "r"}
    rows = pd.DataFrame({**same, "image_id": ids, "mos": mos, "clean_score": mos, "position": range(12)})
    data = DataRecord(name="d", sha256="d", split="test", images=12, label="MOS", card={})
    manifest = RunManifest.model_construct(
        data=data,
        cells=(),
        seed=0,
        models=(ModelRecord(name="m", sha256="a", card={}, checkpoint=None, checks={}),),
    )
    judged = judge("m", rows, rows, manifest, resamples=5)
    step = Logistic(0.0, 1.0, (1.0, 500.0, 0.5, 0.0, 0.0), 0.1)
    judged = dataclasses.replace(judged, fit=Fit(step, "1 start"))
    far = 5.0 + mos
    assert judged.value(far, "srocc").value == pytest.approx(1.0)
    assert judged.value(far, "plcc").undefined == "all mapped scores are equal"
