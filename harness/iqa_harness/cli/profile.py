"""`iqa-harness profile`: what a model costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iqa_harness.cli.arguments import DeviceOption, ThreadsOption
from iqa_harness.entrants.naming import load_entrant, parse_model
from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_file

if TYPE_CHECKING:
    from rich.table import Table

    from iqa_models.profile import Growth, Measured, PartCost


def profile(
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    size: Annotated[int, typer.Option("--size", min=1, help="Side of the square images.")] = 384,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at once.")] = 1,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16, by autocast.")] = "fp32",
    repeats: Annotated[
        int, typer.Option("--repeats", min=0, help="Measured passes; 0 counts and measures nothing.")
    ] = 10,
    growth: Annotated[
        bool,
        typer.Option("--growth", help="An SRM neck's links beside full attention over growing token counts."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Parquet file of the costs, for `report --input`.")
    ] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Print parameters, multiply-adds, time and memory of a model, by parts."""
    import copy

    import torch
    from rich.console import Console

    from iqa_models import SRMQuality
    from iqa_models import profile as costs

    require_file(out, "--out")
    from iqa_harness.machine.devices import use_devices

    use_devices([device], threads)
    costs.autocast(device, precision)  # an unknown precision is refused before anything is built
    entrant = load_entrant(parse_model(model))
    subject = entrant.model
    if growth and not isinstance(subject, SRMQuality):
        raise RunError("--growth compares the links of an SRM neck: take an srm model")
    console = Console()
    console.print(f"{subject.spec.name}, {batch} x 3 x {size} x {size}; input: {subject.spec.input_protocol}")
    console.print(costs.CONVENTION)
    parts = costs.count_cost(subject, height=size, width=size, batch=batch)
    console.print(_cost_table(parts))
    found: dict[str, Measured] = {}
    if repeats:
        subject = subject.to(device)
        images = torch.rand(batch, 3, size, size, device=device)
        steps = {
            "forward": costs.forward_step(subject, images, precision),
            # Training changes weights, and the growth table below wants the model as it was.
            "training step": costs.training_step(copy.deepcopy(subject), images, precision),
        }
        if isinstance(subject, SRMQuality):
            steps["neck, forward"] = costs.neck_step(subject, images, precision)
        found = {name: costs.measure(step, device, repeats=repeats) for name, step in steps.items()}
        console.print(f"batch {batch}, {precision}, {device}, {repeats} repetitions")
        console.print(_measured_table(found))
        console.print(f"peak MB: {found['forward'].memory}")
    if growth and isinstance(subject, SRMQuality):
        rows = costs.growth_table(subject.config, device=device, precision=precision, repeats=repeats or None)
        console.print("links of the neck, one image, by the tokens of all four stages")
        console.print(_growth_table(rows))
        for line in exponents(rows):
            console.print(line)
    if out is not None:
        setting = {"model": entrant.label, "size": size, "batch": batch, "precision": precision}
        typer.echo(str(_write(out, parts, found, setting, device)))


def _write(
    out: Path, parts: Sequence[PartCost], found: Mapping[str, Measured], setting: dict[str, Any], device: str
) -> Path:
    from iqa_harness.reporting.insights import write_frame
    from iqa_reports import make_frame
    from iqa_reports.inputs.frames import Cost

    none: dict[str, Any] = {"parameters": None, "macs": None, "seconds": None, "peak_bytes": None}
    counted = [
        Cost(**{**none, **setting, "part": p.part, "device": "", "parameters": p.parameters, "macs": p.macs})
        for p in parts
    ]
    measured = [
        Cost(**{**none, **setting, "part": name, "device": device, "seconds": one.median,
                "peak_bytes": one.peak_bytes})
        for name, one in found.items()
    ]  # fmt: skip
    return write_frame(out, make_frame(Cost, [*counted, *measured]))


def exponents(rows: Sequence[Growth]) -> list[str]:
    """Return a line on each form of attention: the fitted exponents of its costs in the token count."""
    from iqa_models.profile import fit_exponent

    lines = []
    for attention in dict.fromkeys(row.attention for row in rows):
        own = [row for row in rows if row.attention == attention]
        tokens = [row.tokens for row in own]
        parts = [f"multiply-adds {fit_exponent(tokens, [row.macs for row in own]):.2f}"]
        measured = [row.measured for row in own if row.measured is not None]
        if measured:
            parts.append(f"time {fit_exponent(tokens, [one.median for one in measured]):.2f}")
            if all(one.peak_bytes for one in measured):
                parts.append(f"memory {fit_exponent(tokens, [one.peak_bytes for one in measured]):.2f}")
        lines.append(f"{attention}: cost ~ tokens^p, p of {', '.join(parts)}")
    return lines


def _cost_table(parts: Sequence[PartCost]) -> Table:
    table = _table("part", "parameters", "GMAC")
    for part in parts:
        table.add_row(part.part, f"{part.parameters:,}", f"{part.macs / 1e9:.4f}")
    return table


def _measured_table(found: Mapping[str, Measured]) -> Table:
    table = _table("step", "median ms", "least ms", "peak MB", "reserved MB")
    for name, one in found.items():
        reserved = "" if one.reserved_bytes is None else f"{one.reserved_bytes / 1e6:.1f}"
        times = f"{one.median * 1e3:.2f}", f"{min(one.seconds) * 1e3:.2f}"
        table.add_row(name, *times, f"{one.peak_bytes / 1e6:.1f}", reserved)
    return table


def _growth_table(rows: Sequence[Growth]) -> Table:
    table = _table("attention", "image side", "tokens", "GMAC", "median ms", "peak MB")
    for row in rows:
        one = row.measured
        measured = ("", "") if one is None else (f"{one.median * 1e3:.2f}", f"{one.peak_bytes / 1e6:.1f}")
        table.add_row(row.attention, str(row.side), f"{row.tokens:,}", f"{row.macs / 1e9:.4f}", *measured)
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table
