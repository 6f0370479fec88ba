"""A small image set in memory, and a suite on it."""

from __future__ import annotations

import signal
import sys

import numpy as np
import pytest

from iqa_harness.cli import main
from iqa_harness.data import ArrayImageSet, DataCard
from iqa_suites import parse_suite

SUITE = """
name = "tiny"
summary = "for tests"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/mse", "pgd/drift", "pgd/pairwise_inversion"]
step_sweep = "pgd"
cell_images = 4

[data]
name = "tiny"
images = 12

[[attacks]]
name = "fgsm"
kind = "fgsm"
epsilons = ["4/255"]
objectives = ["raise", "lower"]
batch = 2

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["2/255", "4/255"]
objectives = ["mse", "drift", "pairwise_inversion", "raise", "lower"]
steps = 4
report_steps = [1, 2]
relative_step_size = 0.6
restarts = 2
batch = 4
"""


def make_images(test=12, val=12, size=16, seed=0):
    """Return random images whose label is their mean brightness plus noise."""
    generator = np.random.default_rng(seed)
    pixels, mos, splits, ids = [], [], [], []
    for split, count in (("test", test), ("val", val)):
        for i in range(count):
            image = generator.integers(0, 256, (size, size, 3)) * generator.uniform(0.3, 1)
            array = image.astype(np.uint8)
            mos.append(1 + 4 * float(np.clip(array.mean() / 255 + generator.normal(0, 0.05), 0, 1)))
            pixels.append(array)
            splits.append(split)
            ids.append(f"{split}-{i}")
    references = [f"scene-{name}" for name in ids]
    made = ArrayImageSet.of(
        pixels, mos, ids=ids, references=references, splits=splits, mos_range=(1, 5), name="tiny"
    )
    made.card = DataCard("tiny", "pseudo-MOS", (1.0, 5.0), "random images", "made by the test")
    return made


@pytest.fixture(scope="session")
def images():
    """Twelve test and twelve validation images of 16 x 16 pixels."""
    return make_images()


@pytest.fixture(scope="session")
def suite():
    """A suite of 12 images in cells of 4."""
    return parse_suite(SUITE, "tiny")


@pytest.fixture(scope="session")
def suite_text():
    """The TOML of `suite`."""
    return SUITE


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache of embedded data for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(monkeypatch, capsys, cache, tmp_path):
    """Run a command line in a folder of its own; return exit code, stdout, stderr."""
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["iqa-harness", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, before)  # the command line took it for itself
