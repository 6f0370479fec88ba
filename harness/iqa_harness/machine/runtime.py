"""How work is carried out: where, with how many, and how an attack's gradients are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_harness.errors import RunError

if TYPE_CHECKING:
    from iqa_harness.machine.tuning import Tuning

EXECUTORS = ("inline", "processes", "ray", "slurm")
TUNE = ("off", "fast", "full")
CHUNK = 8
"""Images in a pass where nobody says how many and no GPU's memory is measured."""


@dataclass(frozen=True)
class Runtime:
    """Devices, sizes and workers, which change rows by rounding only, and how gradients are computed.

    A choice of `tune` may lead an attack along another path. Scores that are stored are the model's own.
    """

    device: str = "cpu"
    """Torch device: cpu, cuda:1; several of this machine as cuda:0,cuda:1; cuda for all that are visible."""
    chunk: int | None = None
    """Images in one forward or backward pass; halved where memory runs out. None: `CHUNK` on a CPU, on a GPU
    what its memory holds of each model, see `iqa_harness.machine.memory`."""
    threads: int | None = None
    """Threads within one operation, None for torch's own number."""
    executor: str | None = None
    """One of `EXECUTORS`; None for inline, or processes with several devices or workers."""
    workers: int | None = None
    """Processes a device, or Slurm jobs at once; None for 1."""
    address: str = "local"
    """Ray: `local` starts a cluster here, `auto` or HOST:PORT joins one."""
    cpus: int | None = None
    """Ray, Slurm: cores of a task or job; None for 1."""
    gpus: float = 0.0
    """Ray, Slurm: GPUs of a task or job; Ray takes fractions."""
    settings: tuple[str, ...] = ()
    """Slurm, Ray: KEY=VALUE for submitit's ``update_parameters`` or ``ray.init``."""
    tune: str = "fast"
    """How the gradients of an attack are computed, one of `TUNE`: `off`, as the model stands; `fast`, by
    measurement at the start of a long run; `full`, compilation too. See `iqa_harness.machine.tuning`."""
    choices: tuple[Tuning, ...] = ()
    """Choices made already: nothing is measured for their models."""

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise RunError(f"chunk: at least one image in a pass, not {self.chunk}")
        if self.tune not in TUNE:
            raise RunError(f"tune: one of {', '.join(TUNE)}, not {self.tune!r}")

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of this machine; all cards for `cuda` alone, unless the executor is one that takes one."""
        if self.device.strip() == "cuda" and self.executor in (None, "processes"):
            return devices_of(self.device, _cards())
        return devices_of(self.device)

    @property
    def at_most(self) -> int:
        """Images in one pass, where no GPU's memory is asked."""
        return self.chunk or CHUNK

    @property
    def chunk_by_memory(self) -> bool:
        """Whether each model's chunk is what a GPU's memory holds."""
        return self.chunk is None and self.device.startswith("cuda")

    @property
    def executor_name(self) -> str:
        """Name of the executor."""
        if self.executor is not None:
            return self.executor
        return "processes" if len(self.devices) > 1 or (self.workers or 1) > 1 else "inline"


def devices_of(text: str, cards: int = 0) -> tuple[str, ...]:
    """Return the devices that a text names; `cuda` alone are all visible cards if there are several."""
    names = tuple(name.strip() for name in text.split(",") if name.strip()) or ("cpu",)
    if names == ("cuda",) and cards > 1:
        return tuple(f"cuda:{card}" for card in range(cards))
    return names


def _cards() -> int:
    import torch

    return torch.cuda.device_count()
