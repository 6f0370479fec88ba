"""What a device is called, and how its memory runs out."""

from __future__ import annotations

import functools
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from iqa_harness.errors import RunError
from iqa_harness.machine.allocator import keep_buffers

_P = ParamSpec("_P")
_T = TypeVar("_T")

_NO_MEMORY = (
    "can't allocate memory",  # a CPU
    "MPS backend out of memory",
    "CUDA error: out of memory",  # the driver, past torch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch's allocator has an error of its own, all others these words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def usable_cores() -> int:
    """Return the processor cores this process may use; of a system that does not say, all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


@contextmanager
def same_kernels(device: torch.device | str) -> Iterator[None]:
    """Let a GPU use only kernels that give equal bits at every call, chosen without timing them.

    What has no such kernel is computed as it is: an operator of a user's own model may not. What was set
    before is set again behind the block. A CPU's are such.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    deterministic: Any = torch.utils.deterministic
    before = cudnn.deterministic, cudnn.benchmark, deterministic.fill_uninitialized_memory
    mode = torch.get_deterministic_debug_mode()
    cudnn.deterministic, cudnn.benchmark, deterministic.fill_uninitialized_memory = True, False, False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic.*")
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        cudnn.deterministic, cudnn.benchmark, deterministic.fill_uninitialized_memory = before


def own_threads(verb: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a function set the number of threads for itself alone: behind it the caller's own is back."""

    @functools.wraps(verb)
    def alone(*arguments: _P.args, **options: _P.kwargs) -> _T:
        before = torch.get_num_threads()
        try:
            return verb(*arguments, **options)
        finally:
            torch.set_num_threads(before)

    return alone


def use_devices(devices: Iterable[str], threads: int | None, *, exact: bool = False) -> None:
    """Set the number of threads within one operation, keep freed buffers, make sure the devices are there.

    Args:
        devices: as torch names them.
        threads: None for torch's own number.
        exact: they are to attack: images are projected in float64, which not every device has.

    Raises:
        RunError: no such device, or one that cannot do it.
    """
    keep_buffers()
    if threads is not None:
        torch.set_num_threads(threads)
    for device in devices:
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            first = str(error).split("\n", 1)[0]
            raise RunError(f"device {device!r} cannot be used: {first}") from error
        if exact:
            try:
                torch.zeros(1, device=device, dtype=torch.float64)
            except (RuntimeError, TypeError) as error:
                raise RunError(
                    f"device {device!r} has no float64, in which attacked images are projected; attack on "
                    "the CPU or on a CUDA device"
                ) from error
