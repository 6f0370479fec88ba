"""`iqa-harness certify`: what no attack can do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, Making, Place, QuietOption, ResultsOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_view
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say


def certify(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Model, as `attack` takes it; of a run where it is now. Repeat."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Certify the models of this run at its radii, and store it with the run."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Image set.", show_default="demo, or the run's")
    ] = None,
    norm: Annotated[
        Literal["inf", "2", "rmse"] | None,
        typer.Option("--norm", help="Norm of the ball.", show_default="inf, or the run's"),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option("--eps", help="Radius on pixels in [0, 1].", show_default="1/255, or the run's"),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test", "all"] | None,
        typer.Option("--split", help="Images the floors are of.", show_default="test, or the run's"),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=3, help="First images only.")] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="Noisy copies of each image behind smooth_median.")
    ] = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", help="With which such a floor holds, all images together.")
    ] = 0.999,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of those draws.")] = 0,
    store: ResultsOption = DEFAULT_STORE,
    place: Place,
    making: Making,
    quiet: QuietOption = False,
) -> Answer:
    """Print what no attack within a ball can push SROCC and PLCC below.

    Of linear models, small networks of an nn.Sequential, and any model behind smooth_median:SIGMA,DRAWS.
    With --run the norm and the radii are the run's, and its reports show both sides of the worst case. Exit
    code 1 if an attack of the run contradicts a certificate.
    """
    from iqa_harness.api import certify as api

    if run is None and not model:
        raise typer.BadParameter("name a model with --model, or a run with --run")
    asked = {"norm": norm, "epsilon": epsilon, "split": split, "limit": limit}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if run is not None and chosen:
        raise typer.BadParameter(
            "a run has its own norm, radii and images: no --norm, --eps, --split, --limit"
        )
    if run is not None:
        found = api.certify_run(
            run, store=store, models=model or (), data=data, draws=draws, confidence=confidence, seed=seed,
            progress=not quiet, **place, **making,
        )  # fmt: skip
    else:
        found = api.certify(
            model or (), "demo" if data is None else data, draws=draws, confidence=confidence, seed=seed,
            progress=not quiet, **chosen, **place, **making,
        )  # fmt: skip
    for view in found.views:
        print_view(view)
    for row in found.contradicted:
        say(
            f"contradicted: {row.model}, {row.metric} at {row.epsilon:g}: attacks moved {row.outside} images "
            "out of what was certified",
            err=True,
        )
    code = ExitCode.FOUND if found.contradicted else ExitCode.OK
    return Answer({"certificates": found.rows, "intervals": found.intervals}, code)
