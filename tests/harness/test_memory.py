"""The chunk that a memory holds, and the order and devices that cells are shared out by: pure arithmetic."""

import pytest

from helpers import tiny
from iqa_harness.cells.estimate import Experience, dearest_first
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.memory import Peak, largest_chunk, predicted_peak
from iqa_harness.machine.runtime import Runtime, devices_of
from iqa_models import create_model
from iqa_suites import parse_suite

A, B = Peak(4, 100 + 4 * 10), Peak(8, 100 + 8 * 10)
"""A hundred bytes whatever the images, ten more each."""


@pytest.mark.parametrize("images", [1, 4, 8, 100])
def test_memory_grows_along_a_line(images):
    """What a gradient takes is 100 + 10 n."""
    assert predicted_peak(A, B, images) == 100 + 10 * images


@pytest.mark.parametrize(
    ("free", "chunk"),
    [
        (0, 1),
        (149, 1),
        (150, 2),  # 0.8 x 150 = 120 = 100 + 2 x 10
        (174.9, 2),
        (175, 4),  # 0.8 x 175 = 140
        (1724, 64),  # 0.8 x 1724 = 1379.2 < 1380 = 100 + 128 x 10
        (1725, 128),
        (10**9, 256),
    ],
)  # fmt: skip
def test_the_chunk_is_the_largest_power_of_two_that_fits_four_fifths(free, chunk):
    """Bounds are met to the byte; beyond 256 nothing is gained."""
    assert largest_chunk(A, B, free) == chunk


def test_memory_that_does_not_grow_allows_the_most():
    """Two equal peaks: a constant, which fits or does not."""
    same = Peak(8, A.bytes)
    assert largest_chunk(A, same, free=175) == 256
    assert largest_chunk(A, same, free=174) == 1


@pytest.mark.parametrize(
    ("text", "cards", "devices"),
    [
        ("cuda", 3, ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda", 1, ("cuda",)),
        ("cuda", 0, ("cuda",)),
        ("cuda:0", 3, ("cuda:0",)),
        ("cuda:0, cuda:2", 3, ("cuda:0", "cuda:2")),
        ("cpu", 3, ("cpu",)),
        ("", 3, ("cpu",)),
    ],
)  # fmt: skip
def test_cuda_alone_is_every_visible_card(text, cards, devices):
    """A card that is named is that card."""
    assert devices_of(text, cards) == devices


def test_a_chunk_nobody_names_is_eight_on_a_cpu_and_the_memorys_on_a_gpu():
    """One that is named is that one everywhere."""
    assert (Runtime().at_most, Runtime().chunk_by_memory) == (8, False)
    assert Runtime(device="cuda").chunk_by_memory
    named = Runtime(device="cuda", chunk=3)
    assert (named.at_most, named.chunk_by_memory) == (3, False)


def test_the_dearest_cells_are_begun_first():
    """Clean scores cost least, one step of FGSM more, PGD most; equal costs keep the plan's order."""
    entrants = [Entrant("m", create_model("linear", seed=1))]
    work = plan(parse_suite(tiny.SUITE, "tiny"), entrants, tiny.make_images())
    order = dearest_first([[cell] for cell in work.cells], Experience(()), work.suite.sha256)
    names = [work.cells[place].attack_name for place in order]
    kinds = {"pgd": 0, "fgsm": 1, "clean": 2}
    assert sorted(order) == list(range(len(work.cells)))
    assert [kinds[name] for name in names] == sorted(kinds[name] for name in names)
    assert set(names) == set(kinds)
    pgd = [place for place, name in zip(order, names, strict=True) if name == "pgd"]
    assert pgd == sorted(pgd)


def test_a_timed_gradient_tells_the_time_of_a_model_nobody_has_run():
    """A forward pass is a third of a gradient; one model without a time makes the whole unknown."""
    entrants = [Entrant(name, create_model("linear", seed=seed)) for name, seed in (("m", 1), ("n", 2))]
    work = plan(parse_suite(tiny.SUITE, "tiny"), entrants, tiny.make_images())
    experience = Experience(())
    mine = [cell for cell in work.cells if cell.label == "m"]
    found = experience.of(mine, work.suite.sha256)
    assert found.seconds is None
    experience.learn(mine[0].model_sha256, 0.3)
    timed = experience.of(mine, work.suite.sha256)
    assert timed[:3] == found[:3]
    assert timed.seconds == pytest.approx(0.3 * found.backwards + 0.1 * (found.forwards - found.backwards))
    assert experience.of(work.cells, work.suite.sha256).seconds is None
