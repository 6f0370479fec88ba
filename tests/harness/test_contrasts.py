"""Contrasts of a study: the mean over seeds of paired differences, and intervals that hold at once."""

import numpy as np
import pytest

from iqa_harness.measures.all_pairs import all_pairs, at_once
from iqa_harness.measures.bootstrap import Bootstrap
from iqa_harness.measures.correlation import srocc
from iqa_harness.studies.contrasts import contrast_rows
from iqa_harness.tables.ties import Place, Standing

PLACE = Place("suite_min", "inf", 1 / 255, "srocc")
IDS = tuple(f"image {i}" for i in range(30))


@pytest.fixture(scope="module")
def found():
    """What eight checkpoints came to: scores that follow the labels more and less, on one set of draws."""
    generator = np.random.default_rng(5)
    mos = generator.random(len(IDS))
    bootstrap = Bootstrap(mos, resamples=300)
    scores = [mos * weight + generator.normal(size=len(mos)) for weight in (1, 2, 3, 4, 2, 3, 4, 6)]
    return [bootstrap.replicates(srocc(each, mos), each, "srocc") for each in scores]


def standing(replicates, images=IDS):
    """A checkpoint's value at the one place."""
    return {PLACE: Standing("", "", "", images, "over images", replicates)}


def test_one_interval_of_a_difference_is_that_of_a_pair(found):
    """Of a single difference `at_once` is `all_pairs` of its two values."""
    a, b = found[:2]
    wanted = all_pairs([a, b]).interval(0, 1)
    assert at_once([a - b])[0] == pytest.approx(wanted)


def test_intervals_at_once_are_those_of_all_pairs(found):
    """Three values have three differences: one family, made either way."""
    a, b, c = found[:3]
    pairs = all_pairs([a, b, c])
    wanted = [pairs.interval(0, 1), pairs.interval(0, 2), pairs.interval(1, 2)]
    assert at_once([a - b, a - c, b - c]) == [pytest.approx(each) for each in wanted]


def test_a_contrast_is_the_mean_of_its_seeds(found):
    """Difference, deviation and signs by hand; its interval is that of the mean of the draws."""
    seeds = {0: (found[4], found[0]), 1: (found[5], found[1]), 2: (found[2], found[6])}
    (row,) = contrast_rows("s", {("a", "b"): {k: (standing(x), standing(y)) for k, (x, y) in seeds.items()}})
    each = [x.point.value - y.point.value for x, y in seeds.values()]
    assert row[:7] == ("s", "a", "b", *PLACE)
    assert (row.seeds, row.positive) == (3, sum(value > 0 for value in each))
    assert (row.difference, row.std) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    draws = np.mean([x.draws - y.draws for x, y in seeds.values()], axis=0)
    error = np.sqrt(np.mean((draws - np.mean(each)) ** 2))
    assert row.high - row.difference == pytest.approx(row.difference - row.low)
    assert 1.9 * error < row.high - row.difference < 2.5 * error


@pytest.mark.parametrize("images", [None, IDS[::-1]])
def test_a_seed_that_cannot_be_paired_leaves_no_mean(found, images):
    """A value that is missing, or of other images, is not left out in silence."""
    other = {} if images is None else standing(found[2], images)
    pairs = {0: (standing(found[4]), standing(found[0])), 1: (standing(found[5]), other)}
    (row,) = contrast_rows("s", {("a", "b"): pairs})
    assert (row.difference, row.low, row.high, row.std, row.seeds) == (None, None, None, None, 1)
