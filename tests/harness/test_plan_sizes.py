"""Images that cannot be attacked, or not alone, are seen to when a run is planned."""

import numpy as np
import pytest

from helpers.tiny import make_images
from iqa_harness.cells.plan import plan
from iqa_harness.data import ArrayImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_models import create_model
from iqa_suites import parse_suite


def _entrant(**card):
    model = create_model("linear")
    model.spec = model.spec.replace(**card)
    return Entrant("mine", model)


def _with_one_of(images, height, width):
    pixels = list(images.pixels)
    pixels[5] = np.zeros((height, width, 3), np.uint8)
    return ArrayImageSet(images.records, pixels, images.card, images.fingerprint)


@pytest.mark.parametrize(
    ("card", "size", "message"),
    [
        ({"min_size": 16}, (15, 40), "'test-5' is 15 high and 40 wide, but mine needs at least 16 pixels"),
        ({"fixed_size": 16}, (16, 17), "'test-5' is 16 high and 17 wide, but mine takes 16 x 16 pixels only"),
        ({}, (10, 40), "'test-5' is 10 high and 40 wide, but SSIM needs at least 11 pixels a side"),
    ],
)
def test_an_image_of_no_use_to_a_model_is_named_before_anything_runs(images, suite, card, size, message):
    with pytest.raises(RunError, match=message):
        plan(suite, [_entrant(**card)], _with_one_of(images, *size))
    assert plan(suite, [_entrant(**card)], images).cells


def test_an_image_left_alone_joins_the_cell_before_it(suite_text):
    """Of thirteen images in cells of four; not where nothing couples images, nor in the validation split."""
    text = suite_text.replace("images = 12\n", "")
    suites = {True: parse_suite(text, "tiny")}
    alone = text.replace('"pairwise_inversion", ', "").replace(', "pgd/pairwise_inversion"', "")
    suites[False] = parse_suite(alone, "tiny")
    for coupled, suite in suites.items():
        cells = plan(suite, [_entrant()], make_images(test=13, val=13)).cells
        for name, split in (("pgd", "test"), ("fgsm", "test"), ("clean", "test"), ("clean", "val")):
            counts = [c.count for c in cells if (c.attack_name, c.split) == (name, split)][:4]
            joined = coupled and split == "test"
            assert counts[:3] == ([4, 4, 5] if joined else [4, 4, 4])
            assert joined or counts[3] == 1
