"""A small set of images with labels, on disk and open; models of a user's own that misbehave."""

import numpy as np
import pytest
from PIL import Image

from iqa_harness.data import open_data
from iqa_models import ModelSpec, QualityModel


@pytest.fixture
def own(tmp_path, monkeypatch, cache):
    """`own.csv` in the working folder: six training, fifteen validation, eight test images of 40 x 40."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(cache))
    generator = np.random.default_rng(0)
    rows = ["path,mos,split"]
    for split, count in {"train": 6, "val": 15, "test": 8}.items():
        for number in range(count):
            level = generator.uniform(0.2, 1)
            pixels = (generator.integers(0, 256, (40, 40, 3)) * level).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{split}{number}.png")
            rows.append(f"{split}{number}.png,{1 + 4 * level:.3f},{split}")
    (tmp_path / "own.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def opened(own):
    """The same set, open."""
    return open_data(own / "own.csv", mos_range=(1.0, 5.0), progress=False)


class Brightness(QualityModel):
    """Mean of all pixels; `trouble` is called with every image first."""

    def __init__(self, name="brightness", trouble=lambda images: None):
        super().__init__(
            ModelSpec(
                name=name,
                summary="mean of all pixels",
                score_range=(0, 1),
                input_protocol="whole image",
                mean=(0, 0, 0),
                std=(1, 1, 1),
                source="the test",
            )
        )
        self.trouble = trouble

    def predict(self, images):
        """Return the mean, plus what trouble says."""
        return images.flatten(1).mean(dim=1) + (self.trouble(images) or 0)


@pytest.fixture
def brightness():
    """The class of a model of a user's own."""
    return Brightness
