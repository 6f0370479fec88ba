"""What a device is called, and how its memory runs out."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether torch could not get memory: on a GPU an error of its own, on a CPU one with these words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def device_name(device: str) -> str:
    """Return what a device calls itself, its model and not its host."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return device
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line for line in lines if line.startswith("model name")), "")
    return named.partition(":")[2].strip() or platform.machine()


def peak_memory(device: str) -> int | None:
    """Return the most bytes in use at once: of a GPU torch's own, of the CPU the process's."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    if device != "cpu" or sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
