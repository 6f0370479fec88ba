"""`iqa-harness suites`: what can be run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.api import suites as api
from iqa_harness.cli.arguments import DEFAULT_STORE, QuietOption, ResultsOption
from iqa_harness.cli.command import Answer, App
from iqa_harness.cli.printing import print_figures, print_list
from iqa_harness.machine.terminal import say

app = App(no_args_is_help=True, help="List, print, check and build suites.")


@app.command("list")
def list_command() -> Answer:
    """List the suites that ship."""
    found = api.list_suites()
    print_list(("suite", "what it is"), list(found.items()))
    return Answer(found)


@app.command("show")
def show_command(
    suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")], quiet: QuietOption = False
) -> Answer:
    """Print a suite's TOML after checking it, with its hash on stderr."""
    loaded = api.show_suite(suite)
    typer.echo(loaded.text, nl=False)
    if not quiet:
        say(f"sha256 {loaded.suite.sha256}", err=True)
    return Answer({"text": loaded.text, "sha256": loaded.suite.sha256})


@app.command("validate")
def validate_command(suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")]) -> Answer:
    """Check a suite: every mistake at once with exit code 3, or what it holds."""
    found = api.validate_suite(suite)
    radii = ", ".join(f"{epsilon:g}" for epsilon in found.epsilons)
    say(
        f"{suite}: valid; suite {found.name!r}, {len(found.attacks)} attacks in norm {found.norm} at "
        f"{radii}, sha256 {found.sha256}"
    )
    return Answer(found)


@app.command("build")
def build_command(
    run: Annotated[str, typer.Argument(help="Run whose attacks are chosen from.")],
    name: Annotated[str, typer.Option(help="Name of the new suite.")],
    out: Annotated[Path, typer.Option(help="TOML file to write it to.")],
    budget: Annotated[float, typer.Option(help="Gradients an image it may cost.")] = math.inf,
    min_gain: Annotated[
        float, typer.Option(help="Smallest fall of mean suite_min SROCC that a further member must bring.")
    ] = 0.01,
    store: ResultsOption = DEFAULT_STORE,
) -> Answer:
    """Build a suite of what lowered suite_min most for its gradients in a run, judged on models left out."""
    found = api.build_suite(run, name=name, budget=budget, min_gain=min_gain, store=store, out=out)
    rows = [(each.member, f"{each.gradients:,.1f}", f"{each.fall:.3f}") for each in found.members]
    rows.append((f"all of {run}", f"{found.whole_gradients:,.1f}", f"{found.whole:.3f}"))
    print_figures(("members up to", "gradients an image", "mean fall of SROCC"), rows)
    held = [
        (h.model, f"{h.gradients:,.1f}", f"{h.reached:.3f}", f"{h.fall:.3f}", f"{h.share or 0:.0%}")
        for h in found.held_out
    ]
    if held:
        heads = ("chosen without, tried on", "gradients an image", "fall reached", f"of {run}", "share")
        print_figures(heads, held)
    else:
        say("one model: what the suite reaches on another one was not measured")
    say(f"{out}: suite {found.suite.suite.name!r}, sha256 {found.suite.suite.sha256}")
    return Answer(found)
