"""Options of the command line that say where cells are computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from iqa_harness.errors import RunError

if TYPE_CHECKING:
    from iqa_harness.running.executors import Executor
    from iqa_results import ResultStore

PANEL = "Where cells are computed (the rows are the same)"
EXECUTORS = ("inline", "processes", "ray", "slurm")

ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help=f"{' | '.join(EXECUTORS)} [default: inline; processes with several devices or --workers].",
        rich_help_panel=PANEL,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes a device, or Slurm jobs at once [default: 1].",
        rich_help_panel=PANEL,
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        help="Ray: `local` starts a cluster here, `auto` or HOST:PORT joins one.",
        rich_help_panel=PANEL,
    ),
]
CpusOption = Annotated[
    int | None,
    typer.Option(
        "--cpus", min=1, help="Ray, Slurm: cores of a task or job [default: 1].", rich_help_panel=PANEL
    ),
]
GpusOption = Annotated[
    float,
    typer.Option(
        "--gpus", min=0, help="Ray, Slurm: GPUs of a task or job; Ray takes fractions.", rich_help_panel=PANEL
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Slurm, Ray: KEY=VALUE for submitit's update_parameters (slurm_partition=gpu) or ray.init.",
        rich_help_panel=PANEL,
    ),
]


class Where(NamedTuple):
    """What the user said of executor and devices."""

    executor: str | None = None
    workers: int | None = None
    device: str = "cpu"
    threads: int | None = None
    address: str = "local"
    cpus: int | None = None
    gpus: float = 0.0
    settings: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of this machine."""
        return tuple(name.strip() for name in self.device.split(",") if name.strip()) or ("cpu",)

    @property
    def name(self) -> str:
        """Name of the executor."""
        if self.executor is not None:
            return self.executor
        return "processes" if len(self.devices) > 1 or (self.workers or 1) > 1 else "inline"


def make_executor(where: Where, store: ResultStore) -> Executor:
    """Return the executor a user asked for.

    Raises:
        RunError: no such executor, or options it has no use for.
    """
    from iqa_harness.running.executors import Inline

    name = where.name
    if name not in EXECUTORS:
        raise RunError(f"no executor {name!r}; there are {', '.join(EXECUTORS)}")
    _refuse_unused(where)
    if name == "inline":
        return Inline()
    if name == "processes":
        from iqa_harness.running.executors.processes import Processes, places

        return Processes(places(where.devices, where.workers or 1, where.threads))
    if name == "ray":
        from iqa_harness.running.executors.ray_cluster import RayCluster

        return RayCluster(where.address, cpus=where.cpus or 1, gpus=where.gpus, options=_settings(where))
    from iqa_harness.running.executors.slurm import Slurm

    options = _settings(where)
    cluster = options.pop("cluster", None)
    folder = Path(
        options.pop("folder", store.root / "slurm" if isinstance(store.root, Path) else "iqa-slurm")
    )
    return Slurm(
        folder.resolve(),
        jobs=where.workers or 1,
        cpus=where.cpus or 1,
        gpus=round(where.gpus),
        cluster=cluster,
        options=options,
    )


def _refuse_unused(where: Where) -> None:
    """Refuse options that would be dropped in silence."""
    name = where.name
    far = name in ("ray", "slurm")
    wrong = {
        "--workers": where.workers is not None and name in ("inline", "ray"),
        "several devices in --device": len(where.devices) > 1 and name != "processes",
        "--threads": where.threads is not None and far,
        "--cpus": where.cpus is not None and not far,
        "--gpus": bool(where.gpus) and not far,
        "--set": bool(where.settings) and not far,
        "--address": where.address != "local" and name != "ray",
    }
    for option, is_wrong in wrong.items():
        if is_wrong:
            instead = " (use --cpus)" if option == "--threads" else ""
            raise RunError(f"{option} means nothing to the executor {name!r}{instead}")
    if name == "slurm" and where.gpus != round(where.gpus):
        raise RunError(f"--gpus {where.gpus:g}: Slurm gives whole GPUs; fractions are Ray's")


def _settings(where: Where) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in where.settings:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise RunError(f"--set {text!r} is not KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found
