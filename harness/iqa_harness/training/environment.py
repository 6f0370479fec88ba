"""Device, precision and what else decides rounding, set for a run and put back after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from iqa_harness.errors import TrainingError
from iqa_harness.machine.allocator import keep_buffers
from iqa_harness.training.config import TrainConfig


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Refuse a device that is not there, or a precision it cannot train in.

    Raises:
        TrainingError: one of these.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise TrainingError(
            f"{config.name}: fp16 needs CUDA and its loss scaling; on {device.type} take bf16 or fp32"
        )
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(f"device {str(device)!r}: this torch finds no CUDA device")
        if (device.index or 0) >= torch.cuda.device_count():
            raise TrainingError(f"device {str(device)!r}: there are {torch.cuda.device_count()} CUDA devices")
        if config.precision == "bf16" and not torch.cuda.is_bf16_supported():
            raise TrainingError(f"{config.name}: this device has no bf16; take fp16")


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a forward pass in the settings' precision."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=kinds[config.precision])


def create_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """Return the loss scaling of fp16; other precisions have float32's range of exponents and need none."""
    return torch.amp.GradScaler(device.type) if config.precision == "fp16" else None


def reseed(seed: int, device: torch.device) -> None:
    """Set the generators dropout draws from: the CPU's, and the device's own."""
    # torch.manual_seed would reseed every device, the unused ones too.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def repeatable(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Fix what decides rounding and dropout inside the block; put everything back after it."""
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    warn_before = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its attribute is a property no type checker sees
    fill_before = memory.fill_uninitialized_memory
    cudnn: Any = torch.backends.cudnn
    benchmark_before, tf32_before = cudnn.benchmark, cudnn.allow_tf32
    if device.type == "cuda" and config.deterministic:
        # cuBLAS reads it when its first handle is made; without it torch refuses matrix products.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_buffers()
    try:
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.deterministic)
        cudnn.benchmark = not config.deterministic
        # Filling fresh memory only helps to find an operator that reads it; it costs a fifth of the time.
        memory.fill_uninitialized_memory = False
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(strict_before, warn_only=warn_before)
        memory.fill_uninitialized_memory = fill_before
        cudnn.benchmark, cudnn.allow_tf32 = benchmark_before, tf32_before
