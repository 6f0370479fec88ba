"""`iqa-harness power`: do the attacks find what is known to be there?"""

from __future__ import annotations

from typing import Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, Making, Place, QuietOption, ResultsOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_view
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say


def power(
    *,
    run: Annotated[str | None, typer.Argument(help="Name of a run in the store; or give --suite.")] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", "-s", help="Instead of a run: try this suite's attacks on --model."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="With --suite a model to test; with a run LABEL=MODEL, where one is now. Repeat for more.",
        ),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            "--images",
            min=2,
            help="Images that plants stand near, even. Each attack costs 8 grades of plants, about twice its "
            "cost on so many images each.",
        ),
    ] = 6,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            help="Attack of the suite that looks for plants; repeat for more.",
            show_default="all gradient attacks and noise at the main radius",
        ),
    ] = None,
    store: ResultsOption = DEFAULT_STORE,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Where the images are now; else as the suite says.")
    ] = None,
    place: Place,
    making: Making,
    quiet: QuietOption = False,
) -> Answer:
    """Plant basins in models' scores and see which the attacks find: how far can a worst case be trusted?

    A run keeps what was found, its tables and verdicts follow it. Exit code 1 if a model's plants are missed.
    """
    from iqa_harness.api import power as api

    if (run is None) == (suite is None):
        raise typer.BadParameter("name a stored run, or a suite with --suite and its models with --model")
    found = api.power(
        run, suite=suite, models=model or (), images=images, attacks=attack or (), store=store, data=data,
        progress=not quiet, **place, **making,
    )  # fmt: skip
    view = found.view()
    if view is not None:
        print_view(view)
    for name in found.missed:
        flag = found.flags[name]
        say(f"{name}: plant_missed: {flag.value:.3g}, bound {flag.threshold:g}; {flag.detail}")
    return Answer(found.summary, ExitCode.FOUND if found.missed else ExitCode.OK)
