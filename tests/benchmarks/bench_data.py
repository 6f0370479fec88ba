"""What a set of JPEG files costs: CPU time and peak memory of opening and epochs, with cache and without.

Every row is a process of its own, so that its peak memory is its own. CPU seconds, since other processes
on the machine do not count in them.

    python tests/benchmarks/bench_data.py --images 500 2000 4000 --folder jpegs
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from iqa_harness.data import open_data
from iqa_harness.data.files.file_set import FileImageSet

WIDTH, HEIGHT = 512, 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rooms", nargs="+", default=["0", "20G", "200M"], help="Limits of the cache.")
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    parser.add_argument(
        "--folder", type=Path, help="Where the images are made [default: a temporary folder]."
    )
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        print(f"{WIDTH} x {HEIGHT} JPEGs, {os.cpu_count()} cores")  # noqa: T201
        print(  # noqa: T201
            f"{'images':>7} {'room':>6} {'first open':>11} {'open again':>11} {'epoch 1':>9} {'epoch 2':>9} "
            f"{'ms/img':>7} {'peak MB':>8} {'on disk MB':>10}"
        )
        for count in arguments.images:
            table = make(folder / str(count), count)
            for room in arguments.rooms:
                show(count, room, table)


def make(folder: Path, count: int) -> Path:
    """Write a CSV set of photograph-like JPEGs: smooth noise, so that decoding costs what it usually does."""
    table = folder / "set.csv"
    if table.is_file():
        return table
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["path,mos"]
    for i in range(count):
        small = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:06}.jpg", quality=90)
        rows.append(f"{i:06}.jpg,{i % 100}")
    table.write_text("\n".join(rows) + "\n")
    return table


def show(count: int, room: str, table: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "IQA_HARNESS_CACHE": cache, "IQA_HARNESS_PIXELS": room}
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(table)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    m = json.loads(done.stdout)
    each = 1000 * m["epochs"][1] / count
    print(  # noqa: T201
        f"{count:7} {room:>6} {m['open']:10.2f}s {m['again']:10.2f}s {m['epochs'][0]:8.2f}s "
        f"{m['epochs'][1]:8.2f}s {each:7.2f} {m['peak_mb']:8.0f} {m['disk_mb']:10.0f}",
        flush=True,
    )


def measure(table: Path) -> dict[str, object]:
    began = time.process_time()
    images = open_data(table, progress=False)
    opened = time.process_time() - began
    began = time.process_time()
    images = open_data(table, progress=False)
    again = time.process_time() - began
    assert isinstance(images, FileImageSet)
    epochs = []
    for seed in range(2):
        began = time.process_time()
        for index in np.random.default_rng(seed).permutation(len(images)):
            images.read(int(index))
        epochs.append(time.process_time() - began)
    return {
        "open": opened,
        "again": again,
        "epochs": epochs,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": images.cache.total() / 2**20 if images.cache else 0,
    }


if __name__ == "__main__":
    main()
