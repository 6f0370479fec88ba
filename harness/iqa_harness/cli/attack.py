"""`iqa-harness attack`: run a suite on models."""

from __future__ import annotations

from typing import Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    PANEL,
    Making,
    ModelsOption,
    QuietOption,
    ResultsOption,
    ThreadsOption,
    Workers,
)
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import code_of, print_run, speed_lines
from iqa_harness.machine.terminal import say


def attack(
    *,
    suite: Annotated[str, typer.Option("--suite", "-s", help="Suite by name, or the path of a TOML file.")],
    model: ModelsOption,
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run.", show_default="the suite's")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Other images: demo, koniq10k:/folder, a CSV, ...")
    ] = None,
    mos_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--mos-range", metavar="LOW HIGH", help="Ends of a CSV's label scale."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Only the first so many images; every table says so."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--images", help="Only the image of this id; every table says so. Repeat for more."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Compute this attack and the clean scores only (`clean`: these alone); the rest stays to "
            "do. Repeat for more.",
        ),
    ] = None,
    keep_images: Annotated[
        bool,
        typer.Option(
            "--keep-images", help="Store the attacked images too, bit for bit: new models are tried on them."
        ),
    ] = False,
    store: ResultsOption = DEFAULT_STORE,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="Torch device: cpu, cuda (all cards), cuda:1, ...; several as cuda:0,cuda:1."
        ),
    ] = "cpu",
    threads: ThreadsOption = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images in one pass; halved where memory runs out.",
            show_default="8 on a CPU, what fits on a GPU",
        ),
    ] = None,
    where: Workers,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Slurm, Ray: KEY=VALUE for submitit's update_parameters (slurm_partition=gpu) or ray.init.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    tune: Annotated[
        str,
        typer.Option(
            "--tune", help="How gradients are computed: off (as the model stands), fast or full (measured)."
        ),
    ] = "fast",
    making: Making,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a model's verdict is not sound.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be computed and about what it costs; compute nothing."
        ),
    ] = False,
    quiet: QuietOption = False,
) -> Answer:
    """Run a suite on models; cells that are in the store already are not computed again.

    It can be stopped at any moment; the same command goes on from there. A cell that failed is tried again.
    """
    from iqa_harness.api.attack import plan
    from iqa_harness.machine.places import require_folder

    if not dry_run:
        require_folder(store, "--store")
    planned = plan(
        suite, model, run=run, data=data, mos_range=mos_range, limit=limit, images=image or (),
        only=only or (), keep_images=keep_images, store=store, progress=not quiet, device=device,
        chunk=chunk, threads=threads, settings=tuple(settings or ()), tune=tune, **where, **making,
    )  # fmt: skip
    if not quiet or dry_run:
        for line in planned.lines():
            say(line, err=True)
    if dry_run:
        return Answer(planned.summary)
    done = planned.run(progress=not quiet)
    print_run(done)
    for line in () if quiet else speed_lines(done):
        say(line, err=True)
    return Answer(done.summary, code_of(done, strict=strict))
