"""`iqa-harness suites`: what can be run."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="List, print and check suites.")


@app.command("list")
def list_command() -> None:
    """List the suites that ship."""
    from iqa_harness.api import suites as api
    from iqa_harness.cli.tables import print_list

    print_list(("suite", "what it is"), list(api.list_suites().items()))


@app.command("show")
def show_command(suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")]) -> None:
    """Print a suite's TOML after checking it, with its hash on stderr."""
    from iqa_harness.api import suites as api
    from iqa_harness.machine.terminal import say

    loaded = api.show_suite(suite)
    typer.echo(loaded.text, nl=False)
    say(f"sha256 {loaded.suite.sha256}", err=True)


@app.command("validate")
def validate_command(suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")]) -> None:
    """Check a suite: every mistake at once with exit code 3, or what it holds."""
    from iqa_harness.api import suites as api
    from iqa_harness.machine.terminal import say

    found = api.validate_suite(suite)
    radii = ", ".join(f"{epsilon:g}" for epsilon in found.epsilons)
    say(
        f"{suite}: valid; suite {found.name!r}, {len(found.attacks)} attacks in norm {found.norm} at "
        f"{radii}, sha256 {found.sha256}"
    )
