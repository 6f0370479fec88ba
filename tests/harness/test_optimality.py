"""How near an attack comes to the best that any does for as many gradients."""

import math

import pytest

from iqa_harness.measures.optimality import gradients_of, optimality


def test_the_area_is_that_of_the_steps_on_a_logarithmic_axis():
    """By hand: each doubling from 1 to twice the dearest cost, 8, is one column of the area."""
    slow = {2.0: 0.1, 4.0: 0.6, 8.0: 0.5}  # what was done at 4 is not undone at 8
    fast = {1.0: 0.4}
    found = optimality({"slow": slow, "fast": fast})
    envelope = 0.4 + 0.4 + 0.6 + 0.6
    assert found["slow"].value == pytest.approx((0 + 0.1 + 0.6 + 0.6) / envelope)
    assert found["fast"].value == pytest.approx(4 * 0.4 / envelope)


def test_the_envelope_itself_has_one_and_an_attack_that_only_helps_none():
    """Also between doublings: two attacks of which one is never below; one that raises the SROCC."""
    found = optimality({"a": {1.5: 0.2, 6.0: 0.9}, "b": {1.5: 0.1, 6.0: 0.9}, "c": {2.0: -0.3}})
    assert found["a"].value == 1
    assert found["b"].value == pytest.approx(
        (0.1 * math.log(4) + 0.9 * math.log(2)) / (0.2 * math.log(4) + 0.9 * math.log(2))
    )
    assert found["c"].value == 0


def test_a_cost_below_one_gradient_counts_as_one():
    """The axis begins there."""
    assert optimality({"a": {0.3: 0.5}, "b": {1.0: 0.25}})["b"].value == pytest.approx(0.5)


@pytest.mark.parametrize("curves", [{"a": {3.0: 0.0}, "b": {1.0: -1.0}}, {"a": {}}])
def test_without_damage_there_is_no_optimality(curves):
    """Undefined with the reason, for every attack."""
    found = optimality(curves)
    assert {v.value for v in found.values()} == {None}
    assert all(v.undefined for v in found.values())


def test_a_score_alone_is_a_third_of_a_gradient():
    """Of 10 evaluations 4 have a gradient."""
    assert gradients_of(10, 4) == pytest.approx(6)
