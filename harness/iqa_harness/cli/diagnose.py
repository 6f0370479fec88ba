"""`iqa-harness diagnose`: what an SRM neck does to images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import CacheOption, DeviceOption, ThreadsOption
from iqa_harness.entrants.naming import load_entrant, notes_on, parse_model
from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_file

if TYPE_CHECKING:
    from iqa_harness.data import ImageSet
    from iqa_models.hyper.model import HyperQuality
    from iqa_models.srm import DiagnosticRow
    from iqa_reports.inputs.frames import Attention

SHOWN = ("median", "p90", "mean", "share")
"""Statistics on the screen; the file has all."""


def diagnose(
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    data: Annotated[str, typer.Option("--data", help="Image set, as in `iqa-harness data list`.")] = "demo",
    split: Annotated[str | None, typer.Option("--split", help="One of its splits [default: all].")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="First images only.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at once.")] = 8,
    out: Annotated[Path | None, typer.Option("--out", help="Parquet file for all statistics.")] = None,
    maps: Annotated[
        int,
        typer.Option(
            "--maps", min=0, help="Of a hyper model: feature maps of so many images, beside --out as *-maps."
        ),
    ] = 0,
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Print what an SRM neck does to images, or how SMART-IQA weighs its stages, and write it as Parquet."""
    from iqa_harness.data import open_data
    from iqa_harness.reporting.diagnostics import image_batches, write_diagnostics
    from iqa_models import SRMQuality
    from iqa_models.hyper.model import HyperQuality

    require_file(out, "--out")
    from iqa_harness.machine.devices import use_devices

    use_devices([device], threads)
    entrant = load_entrant(parse_model(model))
    if not isinstance(entrant.model, SRMQuality | HyperQuality):
        raise RunError(
            f"{model} has neither an SRM neck nor SMART-IQA's attention: of the models that "
            "`iqa-harness models list` shows, srm_... and smart_iqa_... have"
        )
    for note in notes_on([entrant], "iqa-store"):
        typer.echo(note, err=True)
    images = open_data(data, cache_dir=cache)
    if split is not None:
        images = images.split(split)
    if limit is not None:
        images = images.subset(range(min(limit, len(images))))
    if not len(images):
        raise RunError(f"{data}: no images in split {split!r}")
    subject = entrant.model.to(device)
    if isinstance(subject, HyperQuality):
        _attention(subject, entrant.label, images, out, maps, device)
        return
    rows = subject.diagnostics(image_batches(images, batch, device))
    _show(rows)
    if out is not None:
        context = {
            "model": entrant.label,
            "weights": entrant.sha256,
            "data": data,
            "images": str(len(images)),
        }
        typer.echo(str(write_diagnostics(out, rows, context=context.items())))


def _attention(
    subject: HyperQuality, label: str, images: ImageSet, out: Path | None, maps: int, device: str
) -> None:
    """Print the mean weight of each stage by thirds of the labels; write weights and feature maps."""
    from iqa_harness.reporting import insights
    from iqa_reports import rows_of
    from iqa_reports.inputs.frames import Attention

    if maps and out is None:
        raise RunError("--maps writes feature maps beside the file of --out; name one")
    if subject.head.fusion.attention is not None:
        frame = insights.attention_frame(subject, label, images, device)
        rows = sorted(rows_of(frame, Attention), key=lambda a: a.mos)
        for name, part in zip(("low", "middle", "high"), _thirds(rows), strict=True):
            means = [f"{sum(a.stages[s] for a in part) / len(part):.3f}" if part else "-" for s in range(4)]
            typer.echo(f"{name:6} {len(part)} images, stages 1-4: {' '.join(means)}")
        if out is not None:
            typer.echo(str(insights.write_frame(out, frame)))
    elif not maps:
        raise RunError(f"{label}: has no attention over stages; --maps N still writes its feature maps")
    if maps and out is not None:
        beside = out.with_name(f"{out.stem}-maps.parquet")
        chosen = insights.by_quality(images, maps)
        typer.echo(
            str(insights.write_frame(beside, insights.feature_frame(subject, label, images, chosen, device)))
        )


def _thirds(rows: list[Attention]) -> list[list[Attention]]:
    first, second = len(rows) // 3, 2 * len(rows) // 3
    return [rows[:first], rows[first:second], rows[second:]]


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
