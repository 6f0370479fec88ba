"""How fast a run went: gradients and images a second, and the share of a card's peak that was reached."""

from __future__ import annotations

import re
from typing import NamedTuple

from iqa_results.manifest import CellRecord, RunManifest

# Dense bfloat16 on tensor cores without sparsity, float16 where a card has no bfloat16; operations a second.
# From NVIDIA's data sheets of the H100 (SXM and PCIe), H200, A100 (SXM and PCIe alike), L40S, L4 and V100
# (SXM2); of the GeForce RTX 4090 from "NVIDIA Ada GPU Architecture" (sums in float32).
PEAKS: tuple[tuple[str, float], ...] = (
    (r"H100 (80GB HBM3|SXM)", 989.4e12),
    (r"H100 PCIe", 756e12),
    (r"H200(?! NVL)", 989.4e12),
    (r"A100", 312e12),
    (r"L40S", 362e12),
    (r"L4", 121e12),
    (r"V100-SXM2", 125e12),
    (r"RTX 4090(?! (D|Laptop))", 165.2e12),
)
"""Pattern of what a card calls itself, and its peak."""


class Throughput(NamedTuple):
    """What a model's attacked cells on one kind of device went at, each device by itself."""

    model: str
    device: str
    """What the device calls itself."""
    gradients: float
    """Input gradients a second; 0 where no attack followed any."""
    images: float
    """Images attacked a second, each counted once for every attack and radius."""
    share: float | None
    """Operations counted, over the time, over the card's peak; None where one of them is not known."""
    peak_memory: int | None
    """Most bytes in use at once, by any model: of a GPU what torch had allocated, of a CPU the process."""


def peak_flops(device_name: str) -> float | None:
    """Return the operations a second of a card at its best, None of a CPU or a card that is not listed."""
    found = (peak for name, peak in PEAKS if re.search(rf"\b{name}\b", device_name))
    return next(found, None)


def throughput(manifest: RunManifest) -> list[Throughput]:
    """Return what the attacks of a run went at, by model and device, in the manifest's order.

    Cells whose examples another cell found count nowhere: their time is none of an attack.
    """
    names: dict[str, set[str]] = {}
    memory: dict[str, int] = {}
    for worker in manifest.workers:
        names.setdefault(worker.device, set()).add(worker.device_name)
        if worker.peak_memory is not None:
            memory[worker.device_name] = max(memory.get(worker.device_name, 0), worker.peak_memory)
    flops = {model.name: model.flops for model in manifest.models}
    groups: dict[tuple[str, str], list[CellRecord]] = {}
    for cell in manifest.cells:
        if cell.status == "done" and cell.attack != "clean" and cell.forwards and cell.seconds > 0:
            device = " or ".join(sorted(names.get(cell.device or "", ()))) or cell.device or "unknown"
            groups.setdefault((cell.model, device), []).append(cell)
    return [
        _of(cells, model, device, flops.get(model), memory.get(device))
        for (model, device), cells in groups.items()
    ]


def _of(
    cells: list[CellRecord], model: str, device: str, flops: tuple[int, int] | None, memory: int | None
) -> Throughput:
    seconds = sum(cell.seconds for cell in cells)
    following = [cell for cell in cells if cell.backwards]
    backwards = sum(cell.backwards for cell in following)
    peak, share = peak_flops(device), None
    if flops is not None and peak is not None:
        alone = sum(cell.forwards - cell.backwards for cell in cells)
        share = (alone * flops[0] + backwards * flops[1]) / seconds / peak
    return Throughput(
        model,
        device,
        backwards / sum(cell.seconds for cell in following) if following else 0.0,
        sum(cell.count for cell in cells) / seconds,
        share,
        memory,
    )
