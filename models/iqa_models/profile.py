"""What a model costs: parameters, multiply-adds, time and memory, and how attention grows with its tokens.

Multiply-adds (MACs) are those of torch's counter (`torch.utils.flop_counter`) on the meta device, halved:
matrix products and convolutions, attention products included; element-wise work and the r x r
factorisations of landmark systems (O(r^3) a head and link, r = 32) are not counted.
"""

from __future__ import annotations

import copy
import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from iqa_models.errors import BadModelOption
from iqa_models.quality_model import QualityModel
from iqa_models.srm.config import SRMConfig
from iqa_models.srm.model import SRMQuality
from iqa_models.srm.neck import SRMNeck

CONVENTION: Final = (
    "multiply-adds (MACs) by torch.utils.flop_counter on the meta device, FLOPs / 2; attention products "
    "included, element-wise work and r x r factorisations not"
)
"""For the head of a table of costs."""

PRECISIONS: Final = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Name to autocast type, None for no autocast."""

CUDA_WARM_UPS: Final = 50
"""Passes before a CUDA measurement, as the SRM paper does."""

GROWTH_SIDES: Final = (256, 384, 512, 640)
"""Sides of the images whose token counts the growth table uses; all have more than 32 keys at stride 32."""

REST: Final = "other"
"""Part of a cost that no direct child module accounts for."""

TOTAL: Final = "whole"
"""The model itself in a table of parts."""


class PartCost(NamedTuple):
    """Static cost of a part of a model."""

    part: str
    """Name of a direct child module (``trunk``, ``neck``, ``head``), ``other``, or ``whole``."""
    parameters: int
    """Count."""
    macs: int
    """Multiply-adds of one batch."""


class Measured(NamedTuple):
    """Time and memory of one step, repeated."""

    seconds: tuple[float, ...]
    """One a repetition, without warm-ups."""
    peak_bytes: int
    """Peak memory; what it counts stands in `memory`."""
    reserved_bytes: int | None
    """Peak reserved memory on CUDA, None elsewhere."""
    memory: str
    """What `peak_bytes` counts."""

    @property
    def median(self) -> float:
        """Median seconds a repetition."""
        return statistics.median(self.seconds)


class Growth(NamedTuple):
    """Cost of a neck's links at one number of tokens."""

    attention: str
    """``nystroem`` or ``full``."""
    side: int
    """Of the square image the tokens would come from."""
    tokens: int
    """Of all four stages together."""
    macs: int
    """Multiply-adds of all links for one image."""
    measured: Measured | None
    """Forward pass, None if only counted."""


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, int]:
    """Count the multiply-adds of `run` on a copy of a module on the meta device.

    Args:
        module: left as it is.
        run: calls the copy with meta tensors.

    Returns:
        Name of each direct child that was called to its count, and ``whole``.
    """
    wrapper = _Runner(copy.deepcopy(module).to("meta"), run)
    with FlopCounterMode(display=False, depth=3) as counter, torch.no_grad():
        wrapper()
    counts = counter.get_flop_counts()
    found = {TOTAL: counter.get_total_flops() // 2}
    for name, _ in module.named_children():
        key = f"{type(wrapper).__name__}.inner.{name}"
        if key in counts:
            found[name] = sum(counts[key].values()) // 2
    return found


class _Runner(nn.Module):
    """Gives the counter a root, so that a model's parts have names below it."""

    def __init__(self, inner: nn.Module, run: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.inner = inner
        self.run = run

    def forward(self) -> None:
        """Run what is counted."""
        self.run(self.inner)


def count_cost(model: QualityModel, *, height: int, width: int, batch: int = 1) -> list[PartCost]:
    """Return parameters and multiply-adds of each part of a model, the rest, and the whole.

    Args:
        model: left as it is.
        height: of the images, before the model's input protocol.
        width: of the images.
        batch: images at once.
    """

    def run(copied: nn.Module) -> None:
        # predict, not forward: the checks of pixel values need values.
        copied.predict(torch.empty(batch, 3, height, width, device="meta"))  # type: ignore[operator]

    macs = count_macs(model, run)
    parts = [
        PartCost(name, count_parameters(child), macs.get(name, 0)) for name, child in model.named_children()
    ]
    whole = PartCost(TOTAL, count_parameters(model), macs[TOTAL])
    rest = PartCost(
        REST,
        whole.parameters - sum(part.parameters for part in parts),
        whole.macs - sum(part.macs for part in parts),
    )
    return [*parts, *([rest] if rest.parameters or rest.macs else []), whole]


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Return the autocast context of a precision on a device, none for ``fp32``.

    Raises:
        BadModelOption: no such precision.
    """
    if precision not in PRECISIONS:
        raise BadModelOption(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


def forward_step(model: QualityModel, images: Tensor, precision: str) -> Callable[[], None]:
    """Return a step that scores images (B, 3, H, W) without gradients."""
    device = str(images.device)

    def step() -> None:
        with torch.no_grad(), autocast(device, precision):
            model(images)

    return step


def neck_step(model: SRMQuality, images: Tensor, precision: str) -> Callable[[], None]:
    """Return a step that runs the neck alone, without gradients, on the stage maps of images (B, 3, H, W)."""
    device = str(images.device)
    with torch.no_grad(), autocast(device, precision):
        maps = model.trunk(model.normalise(model.protocol.crops(images)))

    def step() -> None:
        with torch.no_grad(), autocast(device, precision):
            model.neck(maps)

    return step


def training_step(model: QualityModel, images: Tensor, precision: str) -> Callable[[], None]:
    """Return a training step: forward, squared error and auxiliary losses, backward, AdamW.

    It changes the model's weights, so give it a copy. Under fp16 the loss is scaled.
    """
    device = str(images.device)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")
    labels = torch.full((len(images),), 0.5, device=images.device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, precision):
            if isinstance(model, SRMQuality):
                scores, losses = model.forward_with_losses(images)
                auxiliary = sum(losses.values(), start=torch.zeros((), device=images.device))
            else:
                scores, auxiliary = model(images), torch.zeros((), device=images.device)
        loss = (scores.float() - labels).square().mean() + auxiliary
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()

    return step


def measure(step: Callable[[], None], device: str, *, repeats: int, warm_ups: int | None = None) -> Measured:
    """Measure a step on a device.

    Args:
        step: called without arguments.
        device: torch device.
        repeats: measured repetitions.
        warm_ups: repetitions before; by default 50 on CUDA and 2 elsewhere.
    """
    if torch.device(device).type == "cuda":
        return measure_cuda(step, repeats=repeats, warm_ups=CUDA_WARM_UPS if warm_ups is None else warm_ups)
    return measure_cpu(step, repeats=repeats, warm_ups=2 if warm_ups is None else warm_ups)


def measure_cuda(
    step: Callable[[], None], *, repeats: int, warm_ups: int = CUDA_WARM_UPS, cuda: Any = torch.cuda
) -> Measured:
    """Time a step by CUDA events after warm-ups, with memory statistics reset in between.

    Args:
        step: called without arguments.
        repeats: measured repetitions.
        warm_ups: repetitions before the statistics are reset.
        cuda: `torch.cuda`, or what stands in for it.
    """
    for _ in range(warm_ups):
        step()
    cuda.synchronize()
    cuda.reset_peak_memory_stats()
    pairs = []
    for _ in range(repeats):
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        step()
        end.record()
        pairs.append((start, end))
    cuda.synchronize()
    return Measured(
        tuple(start.elapsed_time(end) / 1e3 for start, end in pairs),
        cuda.max_memory_allocated(),
        cuda.max_memory_reserved(),
        "peak allocated by torch on the device",
    )


def measure_cpu(
    step: Callable[[], None],
    *,
    repeats: int,
    warm_ups: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Time a step by the wall clock after warm-ups, with the peak of the process's memory."""
    for _ in range(warm_ups):
        step()
    release_free_memory()
    was_reset = reset_peak_rss()
    before = _proc_status("VmRSS")
    seconds = []
    for _ in range(repeats):
        start = clock()
        step()
        seconds.append(clock() - start)
    if was_reset and before is not None:
        what = "peak resident memory above the level before the step"
        return Measured(tuple(seconds), max(0, peak_rss() - before), None, what)
    return Measured(tuple(seconds), peak_rss(), None, "peak resident memory of the process since it began")


def release_free_memory() -> None:
    """Ask glibc to return freed memory to the system, where it would hide the next step's need."""
    if sys.platform == "win32":  # it has no library without a name
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def reset_peak_rss() -> bool:
    """Set the process's peak resident memory back to its present one; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_rss() -> int:
    """Return the process's peak resident memory in bytes."""
    found = _proc_status("VmHWM")
    if found is not None:
        return found
    if sys.platform == "win32":  # neither /proc nor resource: not known
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _proc_status(field: str) -> int | None:
    """Return a number of bytes that Linux states of this process, None where the system does not."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def growth_table(
    config: SRMConfig,
    *,
    sides: Sequence[int] = GROWTH_SIDES,
    device: str = "cpu",
    precision: str = "fp32",
    repeats: int | None = 3,
) -> list[Growth]:
    """Return the cost of a neck's links, Nystroem and full, over growing numbers of tokens.

    Alignment and gate are left out: they are the same in both. Tokens are random.

    Args:
        config: of the neck; its ``attention`` is replaced.
        sides: of square images with strides 4, 8, 16 and 32.
        device: torch device.
        precision: a key of `PRECISIONS`.
        repeats: of the forward pass; None counts only.
    """
    return [
        _growth(config.model_copy(update={"attention": attention}), side, device, precision, repeats)
        for attention in ("nystroem", "full")
        for side in sides
    ]


def _growth(config: SRMConfig, side: int, device: str, precision: str, repeats: int | None) -> Growth:
    grids = [math.ceil(side / stride) for stride in (4, 8, 16, 32)]
    neck = SRMNeck([1] * len(grids), config).eval()

    def maps(where: str) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        if where == "meta":
            return [torch.empty(1, config.width, grid, grid, device="meta") for grid in grids]
        drawn = [torch.randn(1, config.width, grid, grid, generator=generator) for grid in grids]
        return [stage.to(where) for stage in drawn]

    counted = count_macs(neck, lambda copied: copied.mix(maps("meta")))  # type: ignore[operator]
    measured = None
    if repeats is not None:
        inputs, neck = maps(device), neck.to(device)

        def step() -> None:
            with torch.no_grad(), autocast(device, precision):
                neck.mix(inputs)

        measured = measure(step, device, repeats=repeats)
    return Growth(config.attention, side, sum(grid * grid for grid in grids), counted[TOTAL], measured)


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of log cost over log size by least squares: the p of cost ~ size^p.

    Raises:
        ValueError: fewer than two sizes, or a value that has no logarithm.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(costs) or min(*sizes, *costs) <= 0:
        raise ValueError("an exponent needs two different positive sizes and a positive cost for each")
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope
