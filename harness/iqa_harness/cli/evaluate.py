"""`iqa-harness evaluate`: how well models agree with opinion, on several data sets at once."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, Making, ModelsOption, Place, QuietOption, StoreOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_view
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say


def evaluate(
    *,
    model: ModelsOption,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            help="Data set to test on: demo, koniq10k:/folder, 'spaq:/set?split=all', FILE.csv, ... "
            "Repeat for more.",
        ),
    ],
    split: Annotated[
        Literal["train", "val", "test", "all"], typer.Option("--split", help="Images the numbers are of.")
    ] = "test",
    name: Annotated[
        str, typer.Option("--name", help="Table in the store that the rows go to.")
    ] = "evaluation",
    store: StoreOption = DEFAULT_STORE,
    place: Place,
    eot_samples: Annotated[
        int | None, typer.Option("--eot-samples", min=1, help="Draws averaged for a stochastic model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals and of such draws.")] = 0,
    making: Making,
    quiet: QuietOption = False,
) -> Answer:
    """Test models on data sets without attack: SROCC, PLCC after a logistic, KROCC, one row a model and set.

    Scores are kept: an interrupted evaluation goes on, and one more model or set costs itself only. Rows of
    earlier calls with this --name stay in the table.
    """
    from iqa_harness.api import evaluate as api

    found = api.evaluate(
        model, data, split=split, name=name, store=store, eot_samples=eot_samples, seed=seed,
        progress=not quiet, **place, **making,
    )  # fmt: skip
    print_view(found.view)
    say(f"table.csv, table.parquet, scores.parquet and manifest.json are in {found.folder}")
    for (label, where), reason in found.errors.items():
        say(f"no scores of {label} on {where}: {reason}", err=True)
    for words in found.left_out:
        say(f"left out of the table, {words}", err=True)
    return Answer(
        lambda: {
            "rows": found.rows, "folder": found.folder, "errors": found.errors, "left_out": found.left_out
        },
        ExitCode.PARTIAL if found.errors else ExitCode.OK,
    )  # fmt: skip
