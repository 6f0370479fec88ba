"""`iqa-harness study`: a grid of training runs and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    Changes,
    DeviceOption,
    Making,
    QuietOption,
    SaveOption,
    StoreOption,
    WorkersOption,
)
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import print_view
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say


def study(
    *,
    name: Annotated[str, typer.Argument(help="Study by name (see --list), or the path of a TOML file.")] = "",
    changes: Changes,
    seeds: Annotated[str | None, typer.Option("--seeds", help="0,1,2: other seeds than the study's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of runs and table.", show_default="studies/NAME in the store"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    making: Making,
    device: DeviceOption = "cpu",
    save_every: SaveOption = 200,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Attack suite for the worst cases.", show_default="the study's"),
    ] = None,
    no_attack: Annotated[
        bool, typer.Option("--no-attack", help="Train and score only; run no suite.")
    ] = False,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the study and its rows; train nothing.")
    ] = False,
    known: Annotated[
        bool, typer.Option("--list", help="Print the studies that ship with the harness.")
    ] = False,
) -> Answer:
    """Train every point of a study on every seed and print one table; finished runs are kept."""
    from iqa_harness.api import study as api

    if known or not name:
        listed = api.list_studies()
        say("\n".join(f"{one}: {summary}" for one, summary in listed.items()))
        return Answer(listed)
    if show:
        data, settings = changes["data"], changes["settings"]
        text = api.show_study(name, data=data, settings=settings, seeds=seeds, plugins=making["plugins"])
        say(text)
        return Answer(text)
    found = api.study(
        name, seeds=seeds, out=out, store=store, device=device, save_every=save_every, suite=suite,
        no_attack=no_attack, workers=workers, progress=not quiet, **changes, **making,
    )  # fmt: skip
    print_view(found.view)
    if found.compared is not None:
        print_view(found.compared.view)
    say("\n".join(map(str, found.files)))
    return Answer(
        lambda: {
            "table": found.table,
            "contrasts": found.contrasts,
            "failures": found.failures,
            "files": found.files,
        },
        ExitCode.PARTIAL if found.failures else ExitCode.OK,
    )
