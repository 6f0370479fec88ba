"""`iqa-harness demo`: the whole way, from photographs to a leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, CacheOption, Place, QuietOption, StoreOption
from iqa_harness.cli.command import Answer
from iqa_harness.cli.printing import code_of, print_run, say_where
from iqa_harness.machine.terminal import say
from iqa_harness.wording import in_words

if TYPE_CHECKING:
    from iqa_harness.api.demo import Stage


def demo(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Two models trained whole, 48 images, five radii: half an hour.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Attack only the first so many images.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    place: Place,
    cache: CacheOption = None,
    quiet: QuietOption = False,
) -> Answer:
    """Make the embedded data, train the demo models, run the demo suite, print and write the report.

    Everything is kept: a second call finds data, checkpoints and cells in place and ends in seconds.
    """
    import time

    from iqa_harness.api.demo import Stage
    from iqa_harness.api.demo import demo as run_demo

    done = run_demo(full=full, limit=limit, store=store, cache=cache, progress=not quiet, **place)
    began = time.perf_counter()
    if done.page is None or not done.run.complete:
        print_run(done.run)
    else:  # drawn already, from the tables as they are
        say(repr(done.run))
        say_where("page", done.page)
        say_where("table", done.run.store.table_path(done.run.name))
        say_where("rows", done.run.store.root / "cells")
    stages = (*done.stages, Stage("report", time.perf_counter() - began))
    for line in _times(stages):
        say(line)
    return Answer(lambda: {"run": done.run.summary(), "page": done.page, "stages": stages}, code_of(done.run))


def _times(stages: tuple[Stage, ...]) -> list[str]:
    lines = [f"time   {in_words(sum(stage.seconds for stage in stages))}"]
    for stage in stages:
        parts = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in stage.parts.items())
        lines.append(f"       {stage.name} {in_words(stage.seconds)}{f' ({parts})' if parts else ''}")
    return lines
