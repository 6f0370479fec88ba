"""`iqa-harness suites`: what can be run."""

from __future__ import annotations

from typing import Annotated

import typer

from iqa_harness.cli.arguments import QuietOption
from iqa_harness.cli.command import Answer, App

app = App(no_args_is_help=True, help="List, print and check suites.")


@app.command("list")
def list_command() -> Answer:
    """List the suites that ship."""
    from iqa_harness.api import suites as api
    from iqa_harness.cli.tables import print_list

    found = api.list_suites()
    print_list(("suite", "what it is"), list(found.items()))
    return Answer(found)


@app.command("show")
def show_command(
    suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")], quiet: QuietOption = False
) -> Answer:
    """Print a suite's TOML after checking it, with its hash on stderr."""
    from iqa_harness.api import suites as api
    from iqa_harness.machine.terminal import say

    loaded = api.show_suite(suite)
    typer.echo(loaded.text, nl=False)
    if not quiet:
        say(f"sha256 {loaded.suite.sha256}", err=True)
    return Answer({"text": loaded.text, "sha256": loaded.suite.sha256})


@app.command("validate")
def validate_command(suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")]) -> Answer:
    """Check a suite: every mistake at once with exit code 3, or what it holds."""
    from iqa_harness.api import suites as api
    from iqa_harness.machine.terminal import say

    found = api.validate_suite(suite)
    radii = ", ".join(f"{epsilon:g}" for epsilon in found.epsilons)
    say(
        f"{suite}: valid; suite {found.name!r}, {len(found.attacks)} attacks in norm {found.norm} at "
        f"{radii}, sha256 {found.sha256}"
    )
    return Answer(found)
