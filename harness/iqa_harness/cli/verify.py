"""`iqa-harness verify`: is a run what it says, and is it to be believed?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, DeviceOption, Making, QuietOption, ResultsOption
from iqa_harness.cli.command import Answer
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say

if TYPE_CHECKING:
    from iqa_harness.api.verify import Verification

SHOWN = 20
"""Findings printed at most; of the others the models are named."""


def verify(
    *,
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
    ] = 3,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the choice of those cells; else drawn, and told.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", "-s", help="What the run should be of; a suite that ships is known by name."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Where the images are now; else as the suite says.")
    ] = None,
    explain: Annotated[str | None, typer.Option("--explain", help="Say what a flag means, and stop.")] = None,
    device: DeviceOption = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="Threads within one operation.", show_default="those of the run"
        ),
    ] = None,
    making: Making,
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
        run, store=store, models=model or (), sample=sample, seed=seed, suite=suite, data=data,
        device=device, threads=threads, progress=not quiet, **making,
    )  # fmt: skip
    for line in _findings(found):
        say(line)
    seen = found.verified
    say(
        f"{seen.rows} rows compared with the plan and each other, {seen.cells} cells ({seen.rows_again} "
        f"rows) and the checks of {seen.checks} models made again: {len(found.findings)} differ"
    )
    if seen.kept:
        say(f"{seen.kept} rows scored again from kept images, before their models had seen anything else")
    for line in _chances(found):
        say(line)
    for words in seen.not_verified:
        say(f"not verified: {words}")
    if not sample:
        say("nothing was made again (--sample 0): scores, labels and checks are as stored")
    for judged in found.judged:
        for line in judged.lines():
            say(line)
    return Answer(found.summary, ExitCode.OK if found.sound else ExitCode.FOUND)


def _findings(found: Verification) -> list[str]:
    """Return the first findings, and of the others the models they are of."""
    lines = [f"{finding.what}: {finding.where}: {finding.detail}" for finding in found.findings[:SHOWN]]
    rest = found.findings[SHOWN:]
    if rest:
        named = ", ".join(f"{model} ({count})" for model, count in found.models_of(rest).items())
        lines.append(f"... and {len(rest)} more{f', of {named}' if named else ''}")
    return lines


def _chances(found: Verification) -> list[str]:
    """Say by which seed cells were drawn, and what is missed by the model that was looked at least."""
    seen = found.verified
    if not seen.main_cells:
        return []
    model, (there, again) = min(seen.main_cells.items(), key=lambda item: item[1][1] / item[1][0])
    if again == there:
        return ["all attacked cells at the main radius were made again"]
    half = -(-there // 2)
    return [
        f"cells were drawn by --seed {found.seed}: of {model}, {again} of {there} attacked cells at the main "
        f"radius; 1 altered one is missed with a chance of {seen.missed(model, 1):.0%}, {half} with one of "
        f"{seen.missed(model, half):.2g} (--sample makes more again)"
    ]
