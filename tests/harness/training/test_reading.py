"""Resizing before the crop, and reading ahead."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from iqa_harness.data.files.resized import resized_for_now, target_size
from iqa_harness.errors import TrainingError
from iqa_harness.training.loop import train
from iqa_harness.training.prefetch import Prefetched
from iqa_models import load_checkpoint


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        ("512x384", (768, 1024), (512, 384)),
        ("keep_aspect", (768, 1024), (384, 512)),
        ("shorter:512", (768, 1024), (512, 683)),
        ("shorter:512", (600, 300), (1024, 512)),
        ("shorter:512", (512, 384), (683, 512)),
    ],
)
def test_the_rules_say_what_they_are(rule, size, expected):
    """HEIGHTxWIDTH makes landscape portrait, as the authors' code; the others keep the aspect."""
    assert target_size(rule, *size) == expected


def test_resized_pixels_are_pillows_and_read_once(tiny_set, monkeypatch):
    """A resized image is Pillow's bilinear one, on the second read too, and its file is read once."""
    small = resized_for_now(tiny_set.split("val"), "20x28")
    expected = np.array(
        Image.fromarray(tiny_set.split("val").read(2)).resize((28, 20), Image.Resampling.BILINEAR)
    )
    assert np.array_equal(small.read(2), expected)
    monkeypatch.setattr(type(tiny_set), "view", None)
    assert np.array_equal(small.read(2), expected)
    part = small.subset([2, 0])
    assert part.records[0] == small.records[2]
    assert np.array_equal(part.view(0), expected)
    folder = small.cache.folder
    assert folder.exists()
    del small
    assert np.array_equal(part.view(0), expected)  # the folder goes with the last part of the set
    del part
    assert not folder.exists()


def test_training_sees_the_resized_images(tiny_set, config, tmp_path):
    """A crop larger than the images fits after resizing, and is refused without."""
    large = config.model_validate({**config.model_dump(), "crop": 64, "resize": "shorter:80", "epochs": 1})
    assert load_checkpoint(train(large, tiny_set, tmp_path / "large"))
    with pytest.raises(TrainingError, match="40x40 pixels, the crop needs 64"):
        train(large.model_copy(update={"resize": "none"}), tiny_set, tmp_path / "small")


def test_items_come_in_order_and_an_error_where_it_is_taken():
    """Reading ahead keeps the order; what the reader raises is raised at its place."""

    def items():
        yield from range(5)
        raise TrainingError("no more")

    taken = []
    with pytest.raises(TrainingError, match="no more"):
        for item in Prefetched(items()):
            taken.append(item)  # noqa: PERF402 - the error comes in the midst
    assert taken == [0, 1, 2, 3, 4]


def test_closing_early_ends_the_thread():
    """A reader whose items are not all taken stops, also while it waits for room."""
    before = threading.active_count()
    ahead = Prefetched(iter(range(1000)))
    assert next(iter(ahead)) == 0
    ahead.close()
    assert threading.active_count() == before


def test_the_time_spent_waiting_is_measured():
    """A slow reader's time is what the taker waited for; a fast one's is next to nothing."""

    def slow():
        for item in range(3):
            time.sleep(0.05)
            yield item

    ahead = Prefetched(slow())
    assert list(ahead) == [0, 1, 2]
    assert 0.1 < ahead.waited < 5
