"""A data set of a few synthetic images, small enough to train on within a second."""

import hashlib

import numpy as np
import pytest

from helpers import tiny
from iqa_harness.data import ArrayImageSet, DataCard, ImageRecord
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.loop import train


class TinySet(ArrayImageSet):
    """Noise of known strength on grey; the label is the strength, so a model can learn it."""

    def read(self, index):
        """Return the pixels of one image, and refuse the test split."""
        return super().read(self.allowed(index))

    def view(self, index):
        """Do the same read-only."""
        return super().view(self.allowed(index))

    def allowed(self, index):
        """Return the index of an image that training may look at."""
        assert self.records[index].split != "test", "training must not look at the test split"
        return index


CARD = DataCard(
    name="tiny", label="pseudo-MOS", mos_range=(1.0, 5.0), summary="noise on grey", source="made here"
)


def make_set(counts, side=40):
    """Make a set with so many images in each split."""
    records, pixels = [], []
    for split, count in counts.items():
        for number in range(count):
            rng = np.random.default_rng([number, len(split)])
            strength = number / max(count - 1, 1)
            noise = rng.normal(128, 2 + 60 * strength, (side, side, 3))
            image = noise.clip(0, 255).astype(np.uint8)
            name = f"{split}/{number}"
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            records.append(ImageRecord(name, 5 - 4 * strength, split, name, "noise", 1, digest))
            pixels.append(image)
    return TinySet(records, pixels, CARD, hashlib.sha256(repr(records).encode()).hexdigest())


@pytest.fixture(scope="session")
def tiny_set():
    """Twelve training, six validation and two test images of 40 x 40."""
    return make_set({"train": 12, "val": 6, "test": 2})


@pytest.fixture
def new_set():
    """The function that makes a set from the number of images a split."""
    return make_set


@pytest.fixture(scope="session")
def config():
    """Settings for a small convolutional model, three epochs of three steps."""
    return TrainConfig(
        name="tiny",
        model="timm_regressor",
        options={"backbone": "test_efficientnet", "hidden": 8},
        threads=1,
        epochs=3,
        batch_size=4,
        crop=32,
    )


@pytest.fixture(scope="session")
def trained(tiny_set, config, tmp_path_factory):
    """The checkpoint of those settings on those images, made once; only to be read."""
    return train(config, tiny_set, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def photographs(tmp_path):
    """A folder with a CSV set `set.csv`: twelve training, six validation and six test images of 40 x 40."""
    tiny.write_csv(tmp_path, make_set({"train": 12, "val": 6, "test": 6}), "set.csv")
    return tmp_path
