"""`iqa-harness data`: images and labels."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import CacheOption
from iqa_harness.errors import ExitCode

if TYPE_CHECKING:
    from iqa_harness.data.public.layout import Layout

app = typer.Typer(no_args_is_help=True, help="List, describe, make and check data sets.")

DataArgument = Annotated[
    str,
    typer.Argument(
        help="A set: embedded (demo), public with its folder (koniq10k:/folder), json:/folder?test=LIST, "
        "or the path of a CSV; ?option=value&... may follow."
    ),
]


@app.command("list")
def list_command() -> None:
    """List the data sets there are: embedded ones, and public ones for whose folder you are asked."""
    from rich.console import Console
    from rich.table import Table

    from iqa_harness.data import list_data
    from iqa_harness.data.catalogue import list_layouts

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("set", "labels", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for card in list_data():
        table.add_row(card.name, card.label, f"embedded: {card.summary}")
    for layout in list_layouts().values():
        table.add_row(
            f"{layout.name}:FOLDER", layout.labels[0].column, f"{layout.title}, {layout.images:,} images"
        )
    table.add_row("json:FOLDER?test=LIST", "score", "images below FOLDER in JSON lists of {image, score}")
    table.add_row("FILE.csv", "mos", "your own images: columns path, mos, split, reference, ...")
    console = Console()
    console.print(table, highlight=False, markup=False)
    console.print("\n`iqa-harness data info NAME` says where to get a set and what its folder must hold.")


@app.command("info")
def info_command(data: DataArgument, cache: CacheOption = None) -> None:
    """Describe a set; of a public set named without its folder, where to get it and what it must hold.

    An embedded set is made if it is not there.
    """
    from iqa_harness.data import open_data
    from iqa_harness.data.catalogue import find_layout
    from iqa_harness.data.public.source import find_root

    layout = find_layout(data)
    if layout is not None:
        _describe(layout)
        if find_root(layout.name) is None:
            return
    images = open_data(data, cache_dir=cache)
    card = images.card
    splits = Counter(record.split for record in images.records)
    references = {s: len({r.reference for r in images.records if r.split == s}) for s in splits}
    typer.echo(f"{card.name}: {card.summary}")
    typer.echo(f"labels       {card.label}, {card.mos_range[0]:g} to {card.mos_range[1]:g}")
    if card.label_rule:
        typer.echo(f"mos          {card.label_rule}")
    for split in ("train", "val", "test"):
        typer.echo(f"{split:12} {splits[split]} images of {references.get(split, 0)} contents")
    if card.split_rule:
        typer.echo(f"splits       {card.split_rule}")
    typer.echo(f"fingerprint  {images.fingerprint}")
    typer.echo(f"source       {card.source}")
    for note in (*card.notes, *card.remarks):
        typer.echo(f"note         {note}")


def _describe(layout: Layout) -> None:
    """Print what is known of a public set before it is there."""
    typer.echo(f"{layout.name}: {layout.title}, {layout.images:,} labelled images")
    typer.echo(f"get it from  {layout.url}")
    typer.echo(f"terms        {layout.terms}")
    for place, line in enumerate(layout.holds):
        typer.echo(f"{'' if place else 'must hold':12} {line}")
    for place, label in enumerate(layout.labels):
        chosen = "" if place == 0 else f"  (?label={label.column})"
        typer.echo(f"{'' if place else 'label':12} {label.column}: {label.direction}{chosen}")
    shares = ":".join(map(str, layout.shares))
    rules = {
        "official": "the authors' own lists",
        "references": f"by reference image, {shares} for train:val:test, ?split_seed=0",
        "random": f"random images, {shares} for train:val:test, ?split_seed=0",
        "all": "every image is test",
    }
    for place, rule in enumerate(layout.splits):
        chosen = "" if place == 0 else f"  (?split={rule})"
        typer.echo(f"{'' if place else 'splits':12} {rules[rule]}{chosen}")
    typer.echo(
        f"{'':12} JSON lists of {{image, score}}  (?train=A.json&test=B.json, with &val= or &val_share=0.1)"
    )
    if layout.advice:
        typer.echo(f"note         {layout.advice}")
    typer.echo(f"use          --data {layout.name}:/path/to/folder")


@app.command("prepare")
def prepare_command(
    data: DataArgument,
    cache: CacheOption = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Decode every image into the cache of decoded images, too.")
    ] = False,
) -> None:
    """Make an embedded set, or read another one through once, so that later openings are quick."""
    from iqa_harness.data import open_data
    from iqa_harness.machine.terminal import progress_bar

    images = open_data(data, cache_dir=cache)
    if pixels:
        with progress_bar(f"Decoding {images.card.name}", len(images), show=True) as advance:
            for index in range(len(images)):
                images.view(index)
                advance()
    typer.echo(f"{images.card.name}: {len(images)} images, fingerprint {images.fingerprint}")


@app.command("check")
def check_command(
    data: DataArgument,
    cache: CacheOption = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            help="Kind of finding that is all right (rotated, palette, unlabelled, ...): told, but not "
            "counted against the set. Repeat for more.",
        ),
    ] = None,
) -> None:
    """Read every row and every image afresh and report all that is wrong; exit code 1 if something is."""
    from iqa_harness.data.catalogue import check_source

    allowed = set(allow or ())
    report = check_source(data, allowed=allowed, cache_dir=cache)
    counted = report.counted
    for finding in report.findings:
        typer.echo(f"{finding.kind:12} {finding}{' (allowed)' if finding.kind in allowed else ''}")
    kinds = Counter(finding.kind for finding in counted)
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    typer.echo(f"{report.images} rows, {len(counted)} problem(s){': ' + summary if summary else ''}")
    raise typer.Exit(ExitCode.FOUND if counted else ExitCode.OK)


@app.command("cache")
def cache_command(
    cache: CacheOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all decoded images.")] = False,
) -> None:
    """Say how much room decoded images take, and of how much; `--clear` frees it."""
    from iqa_harness.data.files.pixel_cache import LIMIT, open_pixel_cache

    held = open_pixel_cache(cache)
    if clear:
        typer.echo(f"{held.folder}: {held.clear() / 2**20:.1f} MB freed")
        return
    typer.echo(
        f"{held.folder}: {held.total() / 2**20:.1f} of {held.limit / 2**20:.1f} MB (set {LIMIT}, such as 20G)"
    )
