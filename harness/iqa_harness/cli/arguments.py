"""Options that several commands share, one by one and in groups.

A group is a record that a command takes as one argument and hands on as it is: its fields are the keywords of
a function of Python. Behind an option's description stands its default; None where nothing does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

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
DeviceOption = Annotated[str, typer.Option("--device", help="Torch device: cpu, cuda, cuda:1, ..."), "cpu"]
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
    list[Path],
    typer.Option("--plugin", help="Python file of yours that registers models; it is run. Repeat for more."),
    [],
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing of how far it is; the result is printed.")
]
SaveOption = Annotated[
    int, typer.Option("--save-every", min=0, help="Steps between saved states; 0 saves once an epoch.")
]
PANEL = "Where cells are computed (the rows are the same)"
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


class Place(TypedDict):
    """Where a model computes."""

    device: DeviceOption
    threads: ThreadsOption


class Files(TypedDict):
    """What models are made of."""

    backbone_weights: BackboneOption
    plugins: PluginOption


class Making(TypedDict):
    """What images and models are made of."""

    cache: CacheOption
    backbone_weights: BackboneOption
    plugins: PluginOption


class Changes(TypedDict):
    """What is trained otherwise than a preset or a study says."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Images: a set's name, koniq10k:/folder and the like, or a CSV.",
            show_default="the preset's",
        ),
    ]
    mos_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--mos-range", metavar="LOW HIGH", help="Ends of a CSV's label scale."),
    ]
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="key=value of a setting (see --show), options.KEY=value of the model's. Repeat."
        ),
    ]


class Workers(TypedDict):
    """Where the cells of a run are computed."""

    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            help="inline | processes | ray | slurm.",
            show_default="inline; processes with several devices or --workers",
            rich_help_panel=PANEL,
        ),
    ]
    workers: WorkersOption
    address: Annotated[
        str,
        typer.Option(
            "--address",
            help="Ray: `local` starts a cluster here, `auto` or HOST:PORT joins one.",
            rich_help_panel=PANEL,
        ),
        "local",
    ]
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus",
            min=1,
            help="Ray, Slurm: cores of a task or job.",
            show_default="1",
            rich_help_panel=PANEL,
        ),
    ]
    gpus: Annotated[
        float,
        typer.Option(
            "--gpus",
            min=0,
            help="Ray, Slurm: GPUs of a task or job; Ray takes fractions.",
            rich_help_panel=PANEL,
        ),
        0.0,
    ]
