"""Options that several commands share, and the end of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_STORE = "iqa-store"

StoreOption = Annotated[
    str, typer.Option("--store", help="Folder of Parquet parts, manifests, reports and trained models.")
]
ResultsOption = Annotated[
    str,
    typer.Option(
        "--store", help="Folder or URL (s3://bucket/folder, ...) of Parquet parts, manifests and tables."
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of the embedded data.",
        show_default="$IQA_HARNESS_CACHE or the user's cache",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Torch device: cpu, cuda, cuda:1, ...")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads within one operation.", show_default="torch's own"),
]
ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Model under test: a registered NAME, NAME?option=value&..., a checkpoint ./FOLDER, or "
        "NAME?checkpoint=FOLDER; LABEL=... gives it another name in tables; ...|jpeg:75|flip puts it behind "
        "defences. Repeat for more.",
    ),
]
BackboneOption = Annotated[
    Path | None,
    typer.Option(
        "--backbone-weights",
        help="File of pretrained trunk weights (safetensors or weights-only .pth, timm's layout), for models "
        "created by name that have a trunk to load them into.",
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file of yours that registers models; it is run. Repeat for more."),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing of how far it is; the result is printed.")
]

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Images: a set's name, koniq10k:/folder and the like, or a CSV.",
        show_default="the preset's",
    ),
]
RangeOption = Annotated[
    tuple[float, float] | None, typer.Option("--mos-range", help="Ends of a CSV's label scale.")
]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="key=value of a setting (see --show), options.KEY=value of the model's. Repeat."
    ),
]
SaveOption = Annotated[
    int, typer.Option("--save-every", min=0, help="Steps between saved states; 0 saves once an epoch.")
]
PANEL = "Where cells are computed (the rows are the same)"

ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="inline | processes | ray | slurm.",
        show_default="inline; processes with several devices or --workers",
        rich_help_panel=PANEL,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes a device, or Slurm jobs at once.",
        show_default="1",
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
        "--cpus",
        min=1,
        help="Ray, Slurm: cores of a task or job.",
        show_default="1",
        rich_help_panel=PANEL,
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
