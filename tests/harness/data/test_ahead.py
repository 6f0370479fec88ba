"""Images read ahead: the same pixels, each decoded once, errors for who asks for the image."""

import threading

import numpy as np
import pytest

from helpers import tiny
from iqa_harness.data.ahead import ReadAhead
from iqa_harness.errors import DataError


class Counted:
    """Counts the reads of each image of a set, and can lose one."""

    def __init__(self, images, lost=None):
        self.images, self.lost, self.reads, self.lock = images, lost, {}, threading.Lock()

    def __getattr__(self, name):
        return getattr(self.images, name)

    def read(self, index):
        with self.lock:
            self.reads[index] = self.reads.get(index, 0) + 1
        if index == self.lost:
            raise DataError(f"image {index} cannot be read")
        return self.images.read(index)


@pytest.fixture
def images():
    """Twelve images in memory."""
    return tiny.make_images().split("test")


def test_pixels_are_the_sets_own(images):
    """In order, backwards, twice: the set's; who writes into them changes nobody else's."""
    ahead = ReadAhead(images, ahead=2)
    for index in [*range(12), *range(11, -1, -1), 5, 5]:
        found = ahead.read(index)
        np.testing.assert_array_equal(found, images.read(index))
        found[:] = 0
    assert ahead.fingerprint == images.fingerprint
    assert [r.image_id for r in ahead.subset([3, 1]).records] == ["test-3", "test-1"]


def test_a_pass_in_cells_decodes_every_image_once(images):
    """Cells of four, each read twice as an attack's are: twelve images, twelve reads and those ahead."""
    counted = Counted(images)
    ahead = ReadAhead(counted, ahead=4)
    for first in (0, 4, 8):
        for _ in range(2):
            for index in range(first, first + 4):
                ahead.read(index)
    assert {counted.reads[index] for index in range(4, 12)} == {1}
    # After the last image come the first ones, for the next attack.
    assert sum(counted.reads.values()) <= 12 + 4


def test_an_image_that_cannot_be_read_is_an_error_when_it_is_asked_for(images):
    """Not when a neighbour is."""
    ahead = ReadAhead(Counted(images, lost=3), ahead=4)
    np.testing.assert_array_equal(ahead.read(2), images.read(2))
    with pytest.raises(DataError, match="image 3 cannot be read"):
        ahead.read(3)
    np.testing.assert_array_equal(ahead.read(4), images.read(4))
