"""Times the training loop beside a plain PyTorch loop, and says what reading images costs of a step.

Run by hand: ``python tests/benchmarks/bench_training.py [--images 2000] [--steps 24] [--model demo_lite0]
[--data demo] [--device cuda]``. Both loops train the same model on as many crops of one size; the plain one
decodes every file in the step's own thread. Fails if the loop waits for images for 5 % of its time or more.
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iqa_harness.data import ImageSet, open_data
from iqa_harness.training.config import changed, load_preset
from iqa_harness.training.environment import repeatable
from iqa_harness.training.loop import RunOptions, train
from iqa_harness.training.optimisers import create_optimiser
from iqa_harness.training.prepare import training_mode
from iqa_harness.training.state import Training
from iqa_harness.training.step import Stepper
from iqa_models import create_model

MOST_WAITING = 0.05
BATCH, CROP = 16, 160


def generate(folder: Path, count: int) -> Path:
    """Write JPEG files of 512 x 384 pixels, smooth colour and noise, and their CSV file."""
    lines = ["path,mos,split"]
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((512, 384), Image.Resampling.BICUBIC), dtype=np.float64)
        strength = number / max(1, count - 1)
        noisy = (pixels + rng.normal(0, 1 + 30 * strength, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.jpg", quality=90)
        lines.append(f"{number}.jpg,{5 - 4 * strength},{'val' if number % 100 == 0 else 'train'}")
    path = folder / "generated.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def ours(data: ImageSet, model: str, steps: int, device: str, folder: Path) -> tuple[float, float]:
    """Return images a second and the share of waiting of the harness's loop."""
    config = load_preset("demo_lite0")
    changes = {
        "model": model, "options": {"seed": 0}, "head_start": "random", "epochs": 1, "batch_size": BATCH,
        "crop": CROP, "images_per_epoch": steps * BATCH,
    }  # fmt: skip
    few = [i for i, r in enumerate(data.records) if r.split == "val"][:4]
    rest = [i for i, r in enumerate(data.records) if r.split == "train"]
    out = train(changed(config, changes, "bench"), data.subset([*rest, *few]), folder, run=RunOptions(device))
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    return last["images_per_second"], last["data_share"]


def plain(
    files: list[Path] | None, data: ImageSet, model: str, steps: int, device: str
) -> tuple[float, float]:
    """Return images a second and the share of reading of a loop as one writes it without the harness."""
    torch.set_num_threads(1)
    network = create_model(model, seed=0).to(device).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    rng = np.random.default_rng(0)
    reading, began = 0.0, time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        crops = []
        for index in rng.integers(0, len(files or data), BATCH).tolist():
            pixels = np.asarray(Image.open(files[index]).convert("RGB")) if files else data.read(index)
            top, left = (int(rng.integers(0, side - CROP + 1)) for side in pixels.shape[:2])
            crops.append(pixels[top : top + CROP, left : left + CROP])
        images = torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).copy()).float().div(255).to(device)
        reading += time.perf_counter() - start
        update(network, optimiser, images, torch.rand(BATCH, device=device))
    seconds = time.perf_counter() - began
    return steps * BATCH / seconds, reading / seconds


def step_costs(model: str, repeats: int) -> tuple[float, float]:
    """Return CPU seconds of one step of both loops on one batch, the least of several, taken in turn."""
    config, device = load_preset("demo_lite0"), torch.device("cpu")
    crops = torch.rand(BATCH, 3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    labels, ids = torch.linspace(0, 1, BATCH), [str(number) for number in range(BATCH)]
    network, other = create_model(model, seed=0), create_model(model, seed=0).eval()
    stepper = Stepper(config, network, Training(network, create_optimiser(network, config), {}, {}, device))
    training_mode(network, live_batch_norm=False)
    optimiser = torch.optim.AdamW(other.parameters(), lr=1e-4)
    found: list[tuple[float, float]] = []
    for _ in range(repeats + 1):
        began = time.process_time()
        with repeatable(config, device):
            stepper(crops, labels, ids)
        between = time.process_time()
        update(other, optimiser, crops, labels)
        found.append((between - began, time.process_time() - between))
    return min(a for a, _ in found[1:]), min(b for _, b in found[1:])


def update(
    network: torch.nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    """Do a step as one writes it without the harness."""
    loss = torch.nn.functional.smooth_l1_loss(network(images), labels, beta=0.1)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    loss.item()


def main() -> int:
    """Run both loops on both sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each loop in turn; the fastest counts"
    )
    parser.add_argument("--model", default="demo_lite0")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    worst = 0.0
    print(f"{options.model}, {options.steps} steps of {BATCH} crops of {CROP} x {CROP}, {options.device}")
    print(f"{'data':<24}{'loop':<10}{'images/s':>10}{'reading':>10}")
    torch.set_num_threads(1)
    mine, theirs = step_costs(options.model, options.repeats)
    print(f"CPU seconds of a step without reading: harness {mine:.3f}, plain {theirs:.3f}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "jpeg").mkdir()
        table = generate(folder / "jpeg", options.images)
        sets = {options.data: (open_data(options.data), None)}
        generated = open_data(table, mos_range=(1, 5))
        sets[f"generated, {options.images} JPEG"] = (
            generated,
            [table.parent / r.image_id for r in generated.records],
        )
        for name, (data, files) in sets.items():
            runs: dict[str, list[tuple[float, float]]] = {"harness": [], "plain": []}
            ours(data, options.model, 2, options.device, folder / f"{name}-warm")
            for number in range(options.repeats):  # in turn: a busy machine slows both alike
                where = folder / f"{name}-{number}"
                runs["harness"].append(ours(data, options.model, options.steps, options.device, where))
                runs["plain"].append(plain(files, data, options.model, options.steps, options.device))
            for loop, found in runs.items():
                speed, share = max(found)
                print(f"{name:<24}{loop:<10}{speed:>10.1f}{share:>10.1%}", flush=True)
            worst = max(worst, max(runs["harness"])[1])
    print(f"longest wait {worst:.1%}, limit {MOST_WAITING:.0%}")
    return int(worst >= MOST_WAITING)


if __name__ == "__main__":
    sys.exit(main())
