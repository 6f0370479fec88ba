"""Each measure against SciPy, a peer library or its closed form."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from skimage.metrics import peak_signal_noise_ratio

from iqa_harness.measures import robustness as m

generator = np.random.default_rng(0)
CLEAN, ATTACKED, MOS = generator.random(30), generator.random(30), generator.random(30)


def test_self_srocc_is_spearmans_of_clean_and_attacked():
    """It knows no labels."""
    assert m.self_srocc(CLEAN, ATTACKED).value == pytest.approx(spearmanr(CLEAN, ATTACKED).statistic)
    assert m.self_srocc(CLEAN, np.ones(30)).undefined == "all scores are equal"


def test_gains_are_in_units_of_the_clean_spread():
    """A shift by c gains c over the range, signed and absolute, and c over the IQR."""
    span = np.ptp(CLEAN)
    assert m.gain(CLEAN, CLEAN - 0.3, "signed").value == pytest.approx(-0.3 / span)
    assert m.gain(CLEAN, CLEAN - 0.3, "absolute").value == pytest.approx(0.3 / span)
    low, high = np.percentile(CLEAN, [25, 75])
    assert m.gain(CLEAN, CLEAN + 0.3, "iqr").value == pytest.approx(0.3 / (high - low))
    assert "no range" in m.gain(np.ones(30), ATTACKED, "signed").undefined
    flat = np.array([0.0, *[1.0] * 28, 2.0])
    assert "interquartile" in m.gain(flat, ATTACKED, "iqr").undefined


def test_r_scores_are_their_formula_with_a_floor():
    """log10 of the room left over the change; 3 at the most inside a range of 1 with a floor of 1e-3."""
    found = m.r_scores(np.array([20.0, 90.0, 100.0]), np.array([28.0, 80.0, 100.0]), (0.0, 100.0))
    assert found == pytest.approx([1.0, np.log10(9), 3.0])


def test_errors_are_those_of_numpy():
    """MAE and RMSE on the label scale."""
    assert m.mae(ATTACKED, MOS).value == pytest.approx(np.mean(np.abs(ATTACKED - MOS)))
    assert m.rmse_score(ATTACKED, MOS).value == pytest.approx(np.linalg.norm(ATTACKED - MOS) / np.sqrt(30))


def test_pair_inversion_is_kendalls_other_face():
    """Without ties the share of inverted pairs is (1 - tau) / 2; equal scores count half."""
    assert m.pair_inversion(ATTACKED, MOS).value == pytest.approx(
        (1 - kendalltau(ATTACKED, MOS).statistic) / 2
    )
    assert m.pair_inversion(np.ones(30), MOS).value == 0.5
    assert m.pair_inversion(np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0])).value == pytest.approx(
        0.5 / 3
    )
    assert m.pair_inversion(ATTACKED, np.ones(30)).undefined == "no two labels differ"


def test_pair_inversion_counts_every_pair_with_ties_on_both_sides():
    """Of all pairs with different labels, one after another; equal scores count half, exactly."""
    draw = np.random.default_rng(2)
    for size in (3, 10, 30):
        scores, labels = draw.integers(0, size, size), draw.integers(0, size // 2 + 1, size)
        labels[:2] = 0, 1
        pairs = [(i, j) for i in range(size) for j in range(size) if labels[i] > labels[j]]
        wrong = sum(1.0 if scores[i] < scores[j] else 0.5 * (scores[i] == scores[j]) for i, j in pairs)
        assert m.pair_inversion(scores.astype(float), labels.astype(float)).value == wrong / len(pairs)


def test_psnr_is_scikit_images():
    """The mean over images, from their root mean square changes; an unchanged image has none."""
    first = generator.random((8, 8, 3))
    seconds = [np.clip(first + d, 0, 1) for d in (0.01, 0.03)]
    rmse = np.array([np.sqrt(((first - s) ** 2).mean()) for s in seconds])
    expected = np.mean([peak_signal_noise_ratio(first, s, data_range=1) for s in seconds])
    assert m.psnr_mean(rmse).value == pytest.approx(expected)
    assert "1 of 2 examples are the clean image" in m.psnr_mean(np.array([0.1, 0])).undefined


def test_the_drift_curve_of_a_line_is_half_its_end():
    """A drift proportional to the radius has a mean of half the largest; the order does not matter."""
    assert m.drift_auc([4.0, 1.0, 2.0], [0.8, 0.2, 0.4]).value == pytest.approx(0.4)
    assert m.drift_auc([1.0, 3.0], [1.0, 1.0]).value == pytest.approx((0.5 + 2) / 3)
    assert m.drift_auc([], []).undefined == "no radius"


def test_what_a_file_keeps_is_a_share_of_the_change():
    """Half of the change left is .5, whatever the file does to clean and attacked image alike."""
    clean, attacked = np.array([0.0, 1.0]), np.array([0.4, 0.6])
    assert m.kept(clean, attacked, clean, attacked).value == 1
    assert m.kept(clean, attacked, clean - 3, np.array([0.2, 0.8]) - 3).value == pytest.approx(0.5)
    assert m.kept(clean, clean, clean, attacked).undefined == "no score was moved"


def test_a_mean_with_holes_is_undefined():
    """One missing image is one too many."""
    assert m.mean_of(np.array([1.0, 3.0]), "gradient").value == 2
    assert m.mean_of(np.array([1.0, np.nan]), "gradient").undefined == "1 of 2 images have no gradient"
