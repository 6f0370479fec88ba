"""A small image set, in memory or as files, and suites on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from iqa_harness.data import ArrayImageSet, DataCard

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

SHORT = (
    SUITE.replace('["2/255", "4/255"]', '["4/255"]')
    .replace(', "raise", "lower"]\nsteps', "]\nsteps")
    .replace("steps = 4\nreport_steps = [1, 2]", "steps = 2\nreport_steps = [1]")
    .replace("restarts = 2", "restarts = 1")
)
"""The same at one radius, with fewer objectives, steps and restarts: where the numbers do not matter."""

ONE_PGD = """
name = "one"
summary = "for tests"
seed = 0
main_epsilon = "1/255"
suite_min = ["pgd/mse"]
cell_images = 8

[data]
name = "demo"
images = 6

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["1/255"]
objectives = ["mse", "raise", "lower"]
steps = 1
relative_step_size = 1.0
restarts = 1
"""
"""The smallest suite with a worst case, on any images."""


TRANSFER = """
[[attacks]]
name = "transfer"
kind = "transfer"
of = "pgd/mse"
"""
"""The examples of PGD for MSE, tried on every other model."""


def on_smoke(name, suite_min, attacks, more=""):
    """Return a suite on four images of `smoke`: attacks are kinds with their own settings, lines of TOML."""
    head = f"""name = "{name}"
summary = "for tests"
seed = 0
main_epsilon = "4/255"
suite_min = {suite_min}
cell_images = 4

[data]
name = "smoke"
split = "test"
images = 4
"""
    tables = [
        f'[[attacks]]\nname = "{kind}"\nkind = "{kind}"\nepsilons = ["4/255"]\n{settings}\n'
        for kind, settings in attacks.items()
    ]
    return "\n".join([head, *tables]) + more


def write_csv(folder, images, name="tiny.csv"):
    """Write images as PNG files with a CSV of their labels and splits; return the path of that."""
    lines = ["path,mos,split"]
    for record, pixels in zip(images.records, images.pixels, strict=True):
        file = record.image_id.replace("/", "-") + ".png"
        Image.fromarray(pixels).save(folder / file)
        lines.append(f'"{file}",{record.mos},{record.split}')
    path = Path(folder) / name
    path.write_text("\n".join(lines) + "\n")
    return path


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
