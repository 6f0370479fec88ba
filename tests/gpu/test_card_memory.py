"""Memory of a card: foretold, and halved where it runs out, with equal rows."""

import pytest
import torch

from helpers import tiny
from iqa_attacks import score
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.memory import Peak, fitting_chunk, free_bytes, measured_peak, predicted_peak
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

SIZE = 128
TEXT = tiny.SUITE.replace("cell_images = 4", "cell_images = 16").replace("images = 12", "images = 16")
"""Cells whose attack fills a pass of sixteen."""


@pytest.mark.parametrize("name", ["convolutional", "hyperiqa_efficientnet_lite0", "srm_swin_tiny"])
def test_the_peak_of_a_gradient_is_foretold(card, convolutional, name):
    """From four and eight images, for 32, within a quarter."""
    own = name == "convolutional"
    made = convolutional(width=64, depth=8) if own else create_model(name, pretrained=False)
    model, image = made.eval().to(card), torch.rand(3, 224, 224, device=card)
    measured_peak(model, image, 4)
    a, b = (Peak(count, measured_peak(model, image, count)) for count in (4, 8))
    assert predicted_peak(a, b, 32) == pytest.approx(measured_peak(model, image, 32), rel=0.25)


def test_the_chunk_that_is_chosen_fits(card, convolutional):
    """A gradient of that many images takes no more than four fifths of what is free."""
    model, image = convolutional(width=64, depth=8).eval().to(card), torch.rand(3, SIZE, SIZE, device=card)
    chunk = fitting_chunk(model, [image], default=8)
    assert chunk >= 8
    assert measured_peak(model, image, chunk) <= 0.85 * free_bytes(torch.device(card))


def _rows(folder, model, images, chunk, card):
    entrants = [Entrant("m", model)]
    work = plan(parse_suite(TEXT, "tiny"), entrants, images)
    store = ResultStore(folder)
    runtime = Runtime(device=card, chunk=chunk, tune="off")
    manifest = run_suite(work, entrants, RunConfig("r", TEXT, only=("pgd",)), store, runtime)
    done = [cell.key for cell in manifest.cells if cell.attack == "pgd"]
    return store.read_cells(done).drop_columns(["seconds"]), manifest


def test_no_memory_for_a_chunk_halves_it_and_changes_no_row(card, tmp_path, convolutional):
    """Room for eight images, sixteen asked for: the rows of a run with chunks of eight."""
    images = tiny.make_images(test=16, val=8, size=SIZE)
    model = convolutional(width=64, depth=12).eval().to(card)
    image = torch.rand(3, SIZE, SIZE, device=card)
    roomy, _ = _rows(tmp_path / "a", model, images, 8, card)
    measured_peak(model, image, 16)
    eight, sixteen = (measured_peak(model, image, count) for count in (8, 16))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(card)
    before = torch.cuda.memory_allocated(card)
    score(model, image.expand(32, -1, -1, -1), chunk=32)
    stored = torch.cuda.max_memory_allocated(card) - before
    assert stored < sixteen, "the passes of stored scores fit where a gradient of sixteen does not"
    torch.cuda.empty_cache()
    room = before + (max(eight, stored) + sixteen) // 2
    whole = torch.cuda.get_device_properties(card).total_memory
    torch.cuda.set_per_process_memory_fraction(room / whole, card)
    try:
        cramped, manifest = _rows(tmp_path / "b", model, images, 16, card)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
    assert manifest.tuning["reduced_chunks"] == {"m": 8}
    assert cramped.equals(roomy)
