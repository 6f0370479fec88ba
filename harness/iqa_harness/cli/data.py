"""`iqa-harness data`: images and labels."""

from __future__ import annotations

from typing import Annotated

import typer

from iqa_harness.cli.arguments import CacheOption
from iqa_harness.errors import ExitCode

app = typer.Typer(no_args_is_help=True, help="List, describe, make and check data sets.")

DataArgument = Annotated[str, typer.Argument(help="Name of an embedded set, or the path of a CSV.")]


@app.command("list")
def list_command() -> None:
    """List the embedded data sets."""
    from rich.console import Console
    from rich.table import Table

    from iqa_harness.data import list_data

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("set", "labels", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for card in list_data():
        table.add_row(card.name, card.label, card.summary)
    Console().print(table)


@app.command("info")
def info_command(data: DataArgument, cache: CacheOption = None) -> None:
    """Print a set's card, splits and fingerprint; an embedded set is made if it is not there."""
    from collections import Counter

    from iqa_harness.data import open_data

    images = open_data(data, cache_dir=cache)
    card = images.card
    splits = Counter(record.split for record in images.records)
    references = {s: len({r.reference for r in images.records if r.split == s}) for s in splits}
    typer.echo(f"{card.name}: {card.summary}")
    typer.echo(f"labels       {card.label}, {card.mos_range[0]:g} to {card.mos_range[1]:g}")
    for split in ("train", "val", "test"):
        typer.echo(f"{split:12} {splits[split]} images of {references.get(split, 0)} contents")
    typer.echo(f"fingerprint  {images.fingerprint}")
    typer.echo(f"source       {card.source}")
    for note in card.notes:
        typer.echo(f"note         {note}")


@app.command("prepare")
def prepare_command(data: DataArgument, cache: CacheOption = None) -> None:
    """Make an embedded set, or read a CSV through once."""
    from iqa_harness.data import open_data

    images = open_data(data, cache_dir=cache)
    typer.echo(f"{images.card.name}: {len(images)} images, fingerprint {images.fingerprint}")


@app.command("check")
def check_command(data: DataArgument, cache: CacheOption = None) -> None:
    """Read every image of a set against its record; exit code 1 if something is wrong."""
    from iqa_harness.data import check_data, open_data

    images = open_data(data, cache_dir=cache)
    problems = check_data(images)
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(images)} images, {len(problems)} problem(s)")
    raise typer.Exit(ExitCode.FOUND if problems else ExitCode.OK)
