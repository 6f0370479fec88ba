"""`iqa-harness verify`: is a run what it says, and is it to be believed?"""

from __future__ import annotations

from typing import Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    PluginOption,
    QuietOption,
    ResultsOption,
    ThreadsOption,
)
from iqa_harness.cli.command import Answer
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say

WHOLE = 1_000_000
"""A sample that leaves no cell out."""
SHOWN = 20
"""Findings printed at most; models that differ are all named."""


def verify(
    run: Annotated[str | None, typer.Argument(help="Name of the run in the store.")] = None,
    store: ResultsOption = DEFAULT_STORE,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="LABEL=MODEL: where a model is now; else it is made as the manifest says."
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=0,
            help="Attacked cells of each model to make again, beside its checks and clean scores; "
            "0 opens no model and no image.",
        ),
    ] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of the choice of those cells.")] = 0,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Where the images are now; else as the suite says.")
    ] = None,
    explain: Annotated[str | None, typer.Option("--explain", help="Say what a flag means, and stop.")] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
    quiet: QuietOption = False,
) -> Answer:
    """Verify a run: manifest, rows and tables against each other; checks, scores, a sample of attacks again.

    Exit code 1 if anything differs, or if a model's verdict is not sound.
    """
    from iqa_harness.api import verify as api

    if explain is not None:
        meaning = api.explain(explain)
        say(meaning)
        return Answer(meaning)
    if run is None:
        raise typer.BadParameter("name a run, or a flag with --explain")
    found = api.verify(
        run, store=store, models=model or (), sample=sample, seed=seed, data=data, device=device,
        threads=threads, cache=cache, backbone_weights=backbone_weights, plugins=plugin or (),
        progress=not quiet,
    )  # fmt: skip
    for finding in found.findings[:SHOWN]:
        say(f"{finding.what}: {finding.where}: {finding.detail}")
    if len(found.findings) > SHOWN:
        say(f"... and {len(found.findings) - SHOWN} more")
    seen = found.verified
    say(
        f"{seen.rows} rows compared with the plan and each other, {seen.cells} cells ({seen.rows_again} "
        f"rows) and the checks of {seen.checks} models made again: {len(found.findings)} differ"
    )
    for words in seen.not_verified:
        say(f"not verified: {words} (--sample {WHOLE} makes all cells again)")
    if not sample:
        say("nothing was made again (--sample 0): scores, labels and checks are as stored")
    for judged in found.judged:
        for line in judged.lines():
            say(line)
    return Answer(found.summary, ExitCode.OK if found.sound else ExitCode.FOUND)
