"""What flags of stored rows count: every image, every attack, in units of the card's range."""

import dataclasses

import numpy as np
import pytest

from helpers.judged_rows import (
    CLEAN,
    HONEST,
    PASSED,
    N,
    attack,
    flag,
    flags_of,
    judged,
    plants,
    record,
    whole,
)
from iqa_harness.evidence.judgement import check_results
from iqa_harness.measures.model_scores import Attacked

SCALE, SHIFT = 50.0, 20.0


def changed(key_and_found, places=slice(None), **columns):
    """An attack with something added to columns of its rows, at some images or all."""
    key, found = key_and_found
    rows = found.rows.copy()
    for name, added in columns.items():
        values = rows[name].to_numpy(dtype=float).copy()
        values[places] += added
        rows[name] = values
    return key, Attacked(found.score, found.score_8bit, found.final, rows)


def at_ends(objective, score, dead=4):
    """An attack that left images at given scores, with so many gradients of zero each."""
    key, found = attack(objective=objective)
    rows = found.rows.assign(adv_score=score, attack_score=score, zero_gradients=dead)
    return key, Attacked(score, score, True, rows)


def rescaled(key_and_found):
    """The same attack on the same model with another unit of its scores."""
    key, found = key_and_found
    names = ["adv_score", "attack_score", "clean_score"]
    rows = found.rows.copy()
    rows[names] = SHIFT + SCALE * rows[names]
    return key, Attacked(SHIFT + SCALE * found.score, SHIFT + SCALE * found.score_8bit, found.final, rows)


CASES = {
    "honest": HONEST,
    "other scores": [*HONEST, attack(apart=0.0012)],
    "other scores, few": [*HONEST, attack(apart=0.0008)],
    "other clean scores": [*HONEST, changed(attack(name="b"), clean_score=1.5e-4)],
    "other clean scores, few": [*HONEST, changed(attack(name="b"), clean_score=0.6e-4)],
    "zero at the upper end": [at_ends("raise", np.full(N, 0.99))],
    "zero below the upper end": [at_ends("raise", np.full(N, 0.96))],
    "zero at the lower end": [at_ends("lower", np.full(N, 0.01))],
    "zero above the lower end": [at_ends("lower", np.full(N, 0.04))],
    "saturated": [at_ends("raise", np.full(N, 0.99)), attack(name="pgd", epsilon=4 / 255)],
    "rounded": [attack(kept=0.2)],
    "noise": [attack(), attack("noise", "noise", 0.06, steps=0)],
    "labels": [attack(objective="mse"), attack("square", "square", 0.13, objective="mse", steps=100)],
}


@pytest.mark.parametrize("name", CASES)
def test_flags_are_the_same_in_every_unit_of_the_score(name):
    """A score of 0 to 1 or of 20 to 70: the same share, ratio and verdict on everything."""
    of = dataclasses.replace(judged(SHIFT + SCALE * CLEAN), score_range=(SHIFT, SHIFT + SCALE))
    before = flags_of(*CASES[name])
    after = check_results(record(), of, dict(map(rescaled, CASES[name])), whole(), plants(23))
    for one, other in zip(before, after, strict=True):
        assert (one.flag, one.raised, one.measured) == (other.flag, other.raised, other.measured)
        if one.value is not None and one.flag != "constant_predictor":  # over the largest, not the range
            assert other.value == pytest.approx(one.value, abs=1e-9)


def test_the_ends_of_the_range_are_a_fiftieth_of_it():
    """What is nearer is at an end, where zero gradients are no fault; what is farther is not."""
    assert {
        name: flag("zero_gradients", *attacks).raised for name, attacks in CASES.items() if "zero" in name
    } == {
        "zero at the upper end": False,
        "zero below the upper end": True,
        "zero at the lower end": False,
        "zero above the lower end": True,
    }


@pytest.mark.parametrize(("still", "gains"), [("raise", "lower"), ("lower", "raise"), ("drift", "raise")])
def test_an_objective_that_stood_still_needed_its_gradient(still, gains):
    """Another one came to its end, on the same images: the zeros count, whichever of the two it is."""
    end = {"raise": 1.0, "lower": 0.0}[gains]
    arrived, stuck = at_ends(gains, np.full(N, end)), at_ends(still, CLEAN.copy())
    assert flag("zero_gradients", arrived).value == 0
    assert flag("zero_gradients", arrived, stuck).value == pytest.approx(0.4)
    assert flag("zero_gradients", stuck, arrived).value == pytest.approx(0.4)


def test_the_attack_with_most_zero_gradients_counts():
    """Wherever it stands among the others; of prefixes and queries alone what few images showed stands."""
    bad, good = attack("mifgsm", "mifgsm", dead=5), attack()
    for attacks in ((bad, good), (good, bad)):
        assert flag("zero_gradients", *attacks).value == pytest.approx(0.5)
    assert flag("zero_gradients", attack(steps=1, dead=1, final=False), good).value == 0
    for none in (attack("square", "square", steps=100), attack(steps=1, dead=1, final=False)):
        assert flag("zero_gradients", none).detail == PASSED["gradient_alive"]["detail"]
        assert not flag("zero_gradients", none, of=record(checks={})).measured


@pytest.mark.parametrize("image", [0, 17, N - 1])
def test_one_image_of_one_attack_is_enough_for_scores_that_vary(image):
    """The score of one image, seen otherwise by the attack or stored otherwise by another cell."""
    for name, bound in (("attack_score", 1e-3), ("clean_score", 1e-4)):
        for added in (1.5 * bound, -1.5 * bound):
            one = changed(attack(name="b"), image, **{name: added})
            for attacks in ((*HONEST, one), (one, *HONEST)):
                found = flag("scores_vary", *attacks)
                assert (found.raised, found.threshold) == (True, bound)
                assert found.value == pytest.approx(1.5 * bound)
        assert not flag("scores_vary", *HONEST, changed(attack(name="b"), image, **{name: bound / 2})).raised


def test_scores_of_other_pixels_are_not_compared():
    """A transfer's attack saw another model, and what was projected again is another image."""
    assert not flag("scores_vary", *HONEST, attack("transfer:x", "transfer", 0.02, apart=0.3)).raised
    moved = changed(attack(name="b"), 5, projection_moved=1e-3, attack_score=0.3)
    assert not flag("scores_vary", *HONEST, moved).raised
    assert flag("scores_vary", *HONEST, changed(moved, 6, attack_score=0.3)).raised


def test_a_model_that_draws_is_not_told_to_repeat_itself():
    """Its draws are averaged; without any attack nothing can be said of any model."""
    varied = *HONEST, attack(apart=0.3)
    assert not flag("scores_vary", *varied, of=record(checks={}, is_stochastic=True)).measured
    assert flag("scores_vary", *varied, of=record(is_stochastic=True)).raised is False
    assert not flag("scores_vary", of=record(checks={})).measured


def test_attacks_are_compared_at_one_radius_in_one_norm():
    """Square beats PGD at the smaller radius; PGD at a larger one, or in another norm, hides it as little."""
    square = attack("square", "square", 0.06, epsilon=1 / 255, steps=100)
    small, large = attack(gain=0.05, epsilon=1 / 255), attack(gain=0.2, epsilon=4 / 255)
    other = attack(gain=0.2, epsilon=1 / 255, name="pgd2")
    other = other[0]._replace(norm="2"), other[1]
    for attacks in ((square, small), (square, small, large, other), (other, large, small, square)):
        found = flag("black_box_stronger", *attacks)
        assert found.raised
        assert found.value == pytest.approx(1.2, rel=0.05)
    assert not flag("black_box_stronger", square, large, other).raised
    assert "nothing" not in flag("black_box_stronger", square, large, other, of=record(checks={})).detail
    assert not flag("black_box_stronger", square, large, other, of=record(checks={})).measured


@pytest.mark.parametrize(("errors", "is_raised"), [(1.9, False), (2.1, True)])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("fgsm_as_strong", "fgsm"), ("black_box_stronger", "square"), ("noise_as_strong", "noise")],
)
def test_stronger_means_by_two_standard_errors(name, kind, errors, is_raised):
    """A mean a tenth above the other's, with a spread that makes it so many; noise is held against half."""
    spread = np.resize([1.0, -1.0], N)
    spread *= 0.01 * np.sqrt(N) / (errors * spread.std(ddof=1))
    made = []
    for what, gain in (("pgd", 0.1), (kind, 0.11 + spread)):
        key, found = attack(what, what, steps=10)
        score = CLEAN + gain
        rows = found.rows.assign(adv_score=score, attack_score=score)
        made.append((key, Attacked(score, score, True, rows)))
    found = flag(name, *made)
    assert found.value == pytest.approx(1.1)
    assert found.raised == (is_raised or kind == "noise")
