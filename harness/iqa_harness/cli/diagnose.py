"""`iqa-harness diagnose`: what an SRM neck does to images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    CacheOption,
    DeviceOption,
    ThreadsOption,
    load_entrant,
    parse_model,
    set_up_torch,
)
from iqa_harness.errors import RunError

if TYPE_CHECKING:
    from iqa_models.srm import DiagnosticRow

SHOWN = ("median", "p90", "mean", "share")
"""Statistics on the screen; the file has all."""


def diagnose(
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    data: Annotated[str, typer.Option("--data", help="Image set, as in `iqa-harness data list`.")] = "demo",
    split: Annotated[str | None, typer.Option("--split", help="One of its splits [default: all].")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First images only.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at once.")] = 8,
    out: Annotated[Path | None, typer.Option("--out", help="Parquet file for all statistics.")] = None,
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Print conditioning, scale and routing of an SRM neck over images, and write them as Parquet."""
    from iqa_harness.data import open_data
    from iqa_harness.diagnostics import image_batches, write_diagnostics
    from iqa_models import SRMQuality

    set_up_torch(device, threads)
    entrant = load_entrant(parse_model(model))
    if not isinstance(entrant.model, SRMQuality):
        raise RunError(f"{model}: has no Spectral Robustness Mixer to diagnose; take an srm model")
    images = open_data(data, cache_dir=cache)
    if split is not None:
        images = images.split(split)
    if limit is not None:
        images = images.subset(range(min(limit, len(images))))
    if not len(images):
        raise RunError(f"{data}: no images in split {split!r}")
    rows = entrant.model.to(device).diagnostics(image_batches(images, batch, device))
    _show(rows)
    if out is not None:
        context = {
            "model": entrant.label,
            "weights": entrant.sha256,
            "data": data,
            "images": str(len(images)),
        }
        typer.echo(str(write_diagnostics(out, rows, context=context.items())))


def _show(rows: Sequence[DiagnosticRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("quantity", "place", *SHOWN):
        table.add_column(column, no_wrap=True)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row.quantity, {}).setdefault(row.place, {})[row.statistic] = row.value
    for quantity, places in found.items():
        for place, values in places.items():
            cells = (f"{values[name]:.3g}" if name in values else "" for name in SHOWN)
            table.add_row(quantity, place, *cells)
    Console().print(table)
