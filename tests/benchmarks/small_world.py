"""Images, a suite on them and a checkpoint, so small that a run takes a second: what faults are tried on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from iqa_models import create_model, save_checkpoint

SUITE = """
name = "small"
summary = "two attacks in cells of four"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/drift"]
cell_images = 4

[data]
name = "{folder}/small.csv"
mos_range = [1.0, 5.0]

[[attacks]]
name = "fgsm"
kind = "fgsm"
epsilons = ["4/255"]
objectives = ["raise", "lower"]

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["2/255", "4/255"]
objectives = ["drift", "raise", "lower"]
steps = 4
relative_step_size = 0.5
restarts = 2
"""


def make_world(folder: Path, *, test: int = 12, size: int = 32) -> None:
    """Write small.csv with its images, small.json, suite.toml, and the checkpoint folder `mine`."""
    generator = np.random.default_rng(0)
    lines, listed = ["path,mos,split"], []
    for split, count in (("train", 4), ("val", 4), ("test", test)):
        for i in range(count):
            image = generator.integers(0, 256, (size, size, 3)) * generator.uniform(0.3, 1)
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{split}{i}.png")
            mos = 1 + 4 * min(1.0, float(image.mean()) / 255 + generator.uniform(0, 0.1))
            lines.append(f"{split}{i}.png,{mos:.4f},{split}")
            if split == "test":
                listed.append({"image": f"{split}{i}.png", "score": round(mos, 4)})
    (folder / "small.csv").write_text("\n".join(lines) + "\n")
    (folder / "small.json").write_text(json.dumps(listed))
    (folder / "suite.toml").write_text(SUITE.format(folder=folder))
    training = {
        "identity": "0" * 64, "config": {"epochs": 1, "lr": 0.1}, "data": "small", "train_images": 4,
        "best_epoch": 0, "log": [{"epoch": 0, "loss": 1.0}], "seconds": 1.0, "pixels": "AAAA",
    }  # fmt: skip
    save_checkpoint(create_model("linear", seed=1), folder / "mine", training=training)
    card = json.loads((folder / "mine/card.json").read_text())
    figures = {
        "weights_sha256": card["weights_sha256"], "data": "small",
        "splits": [{"split": "val", "images": 4, "srocc": 0.5, "plcc": 0.5, "krocc": 0.4}],
    }  # fmt: skip
    (folder / "mine/figures.json").write_text(json.dumps(figures))
    log = [{"epoch": i, "loss": 1.0 / (i + 1), "rates": {"head": 0.1}, "val_srocc": 0.5} for i in range(3)]
    (folder / "mine/log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
