"""`iqa-harness data`: images and labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import CacheOption, QuietOption
from iqa_harness.cli.command import Answer, App
from iqa_harness.cli.printing import print_list
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say

if TYPE_CHECKING:
    from iqa_harness.data.image_set import ImageSet
    from iqa_harness.data.public.layout import Layout

app = App(no_args_is_help=True, help="List, describe, make and check data sets.")

DataArgument = Annotated[
    str,
    typer.Argument(
        help="A set: embedded (demo), public with its folder (koniq10k:/folder), json:/folder?test=LIST, "
        "or the path of a CSV; ?option=value&... may follow."
    ),
]


@app.command("list")
def list_command() -> Answer:
    """List the data sets there are: embedded ones, and public ones for whose folder you are asked."""
    from iqa_harness.api import data as api

    found = api.list_data()
    print_list(("set", "labels", "what it is"), found)
    say("\n`iqa-harness data info NAME` says where to get a set and what its folder must hold.")
    return Answer(found)


@app.command("info")
def info_command(data: DataArgument, cache: CacheOption = None, quiet: QuietOption = False) -> Answer:
    """Describe a set; of a public set named without its folder, where to get it and what it must hold.

    An embedded set is made if it is not there.
    """
    from iqa_harness.api import data as api

    found = api.describe_data(data, cache=cache, progress=not quiet)
    if found.layout is not None:
        _describe(found.layout)
    if found.images is not None:
        _tell(found.images)
    return Answer({"layout": found.layout, "images": found.images and found.images.summary()})


def _tell(images: ImageSet) -> None:
    """Print what a set holds."""
    card = images.card
    splits = Counter(record.split for record in images.records)
    references = {s: len({r.reference for r in images.records if r.split == s}) for s in splits}
    lines = [
        f"{card.name}: {card.summary}",
        f"labels       {card.label}, {card.mos_range[0]:g} to {card.mos_range[1]:g}",
    ]
    if card.label_rule:
        lines.append(f"mos          {card.label_rule}")
    lines += [
        f"{split:12} {splits[split]} images of {references.get(split, 0)} contents"
        for split in ("train", "val", "test")
    ]
    if card.split_rule:
        lines.append(f"splits       {card.split_rule}")
    lines += [f"fingerprint  {images.fingerprint}", f"source       {card.source}"]
    lines += [f"note         {note}" for note in (*card.notes, *card.remarks)]
    say("\n".join(lines))


def _describe(layout: Layout) -> None:
    """Print what is known of a public set before it is there."""
    say(f"{layout.name}: {layout.title}, {layout.images:,} labelled images")
    say(f"get it from  {layout.url}")
    say(f"terms        {layout.terms}")
    for place, line in enumerate(layout.holds):
        say(f"{'' if place else 'must hold':12} {line}")
    for place, label in enumerate(layout.labels):
        chosen = "" if place == 0 else f"  (?label={label.column})"
        say(f"{'' if place else 'label':12} {label.column}: {label.direction}{chosen}")
    shares = ":".join(map(str, layout.shares))
    rules = {
        "official": "the authors' own lists",
        "references": f"by reference image, {shares} for train:val:test, ?split_seed=0",
        "random": f"random images, {shares} for train:val:test, ?split_seed=0",
        "all": "every image is test",
    }
    for place, rule in enumerate(layout.splits):
        chosen = "" if place == 0 else f"  (?split={rule})"
        say(f"{'' if place else 'splits':12} {rules[rule]}{chosen}")
    say(f"{'':12} JSON lists of {{image, score}}  (?train=A.json&test=B.json, with &val= or &val_share=0.1)")
    if layout.advice:
        say(f"note         {layout.advice}")
    say(f"use          --data {layout.name}:/path/to/folder")


@app.command("prepare")
def prepare_command(
    data: DataArgument,
    cache: CacheOption = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Decode every image into the cache of decoded images, too.")
    ] = False,
    quiet: QuietOption = False,
) -> Answer:
    """Make an embedded set, or read another one through once, so that later openings are quick."""
    from iqa_harness.api import data as api

    images = api.prepare_data(data, cache=cache, pixels=pixels, progress=not quiet)
    say(f"{images.card.name}: {len(images)} images, fingerprint {images.fingerprint}")
    return Answer(images.summary)


@app.command("export")
def export_command(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; must not exist.")],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Of each split only the first so many images.")
    ] = None,
    cache: CacheOption = None,
    quiet: QuietOption = False,
) -> Answer:
    """Write a set as PNG files with a CSV of its labels, and say what to write after --data to use them."""
    from iqa_harness.api import data as api

    written = api.export_data(data, out, limit=limit, cache=cache, progress=not quiet)
    say(written)
    return Answer({"data": written})


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
    quiet: QuietOption = False,
) -> Answer:
    """Read every row and every image afresh and report all that is wrong; exit code 1 if something is."""
    from iqa_harness.api import data as api

    found = api.check_data(data, cache=cache, allow=allow or (), progress=not quiet)
    for finding in found.findings:
        say(f"{finding.kind:12} {finding}{' (allowed)' if finding.kind in (allow or ()) else ''}")
    kinds = Counter(finding.kind for finding in found.counted)
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    say(f"{found.images} rows, {kinds.total()} problem(s){': ' + summary if summary else ''}")
    result = {"images": found.images, "findings": found.findings, "counted": len(found.counted)}
    return Answer(result, ExitCode.FOUND if found.counted else ExitCode.OK)


@app.command("cache")
def cache_command(
    cache: CacheOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all decoded images.")] = False,
) -> Answer:
    """Say how much room decoded images take, and of how much; `--clear` frees it."""
    from iqa_harness.api import data as api

    held = api.pixel_cache(cache=cache, clear=clear)
    if clear:
        say(f"{held.folder}: {held.freed / 2**20:.1f} MB freed")
    else:
        say(
            f"{held.folder}: {held.used / 2**20:.1f} of {held.limit / 2**20:.1f} MB "
            f"(set {held.variable}, such as 20G)"
        )
    return Answer(held)
