"""`iqa-harness profile`: what a model costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import Place
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_figures
from iqa_harness.machine.terminal import say

if TYPE_CHECKING:
    from iqa_models.profile import Growth, Measured


def profile(
    *,
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
    place: Place,
) -> Answer:
    """Print parameters, multiply-adds, time and memory of a model, by parts."""
    from iqa_harness.api import profile as api

    found = api.profile(
        model, size=size, batch=batch, precision=precision, repeats=repeats, growth=growth, out=out, **place
    )
    say(f"{found.model}, {found.input}\n{found.convention}")
    parts = [(part.part, f"{part.parameters:,}", f"{part.macs / 1e9:.4f}") for part in found.parts]
    print_figures(("part", "parameters", "GMAC"), parts)
    if found.measured:
        say(f"batch {batch}, {precision}, {place['device']}, {repeats} repetitions")
        steps = [(name, *_measured(one)) for name, one in found.measured.items()]
        print_figures(("step", "median ms", "least ms", "peak MB", "reserved MB"), steps)
        say(f"peak MB: {found.measured['forward'].memory}")
    if found.growth:
        say("links of the neck, one image, by the tokens of all four stages")
        heads = ("attention", "image side", "tokens", "GMAC", "median ms", "peak MB")
        print_figures(heads, [_growth(row) for row in found.growth])
        say("\n".join(found.exponents))
    for file in found.files:
        say(str(file))
    return Answer(found)


def _measured(one: Measured) -> tuple[str, ...]:
    reserved = "" if one.reserved_bytes is None else f"{one.reserved_bytes / 1e6:.1f}"
    times = f"{one.median * 1e3:.2f}", f"{min(one.seconds) * 1e3:.2f}"
    return (*times, f"{one.peak_bytes / 1e6:.1f}", reserved)


def _growth(row: Growth) -> tuple[str, ...]:
    one = row.measured
    measured = ("", "") if one is None else (f"{one.median * 1e3:.2f}", f"{one.peak_bytes / 1e6:.1f}")
    return (row.attention, str(row.side), f"{row.tokens:,}", f"{row.macs / 1e9:.4f}", *measured)
