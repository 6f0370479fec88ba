"""`iqa-harness diagnose`: what an SRM neck does to images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import CacheOption, Place, QuietOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_figures
from iqa_harness.machine.terminal import say


def diagnose(
    *,
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    data: Annotated[str, typer.Option("--data", help="Image set, as in `iqa-harness data list`.")] = "demo",
    split: Annotated[
        str | None, typer.Option("--split", help="One of its splits.", show_default="all")
    ] = None,
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
    place: Place,
    quiet: QuietOption = False,
) -> Answer:
    """Print what an SRM neck does to images, or how SMART-IQA weighs its stages, and write it as Parquet."""
    from iqa_harness.api import diagnose as api

    found = api.diagnose(
        model, data=data, split=split, limit=limit, batch=batch, out=out, maps=maps, cache=cache,
        progress=not quiet, **place,
    )  # fmt: skip
    if found.rows:
        heads, texts, names = found.shown()
        print_figures(heads, texts, names=names)
    for file in found.files:
        say(str(file))
    return Answer(found)
