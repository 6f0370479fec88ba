"""`iqa-harness suites`: what can be run."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="List, print and check suites.")


@app.command("list")
def list_command() -> None:
    """List the suites that ship."""
    from rich.console import Console
    from rich.table import Table

    from iqa_suites import list_suites, load_suite

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("suite", no_wrap=True)
    table.add_column("what it is")
    for name in list_suites():
        table.add_row(name, load_suite(name).suite.summary)
    Console().print(table)


@app.command("show")
def show_command(suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")]) -> None:
    """Print a suite's TOML after checking it, with its hash on stderr."""
    from iqa_suites import load_suite

    loaded = load_suite(suite)
    typer.echo(loaded.text, nl=False)
    typer.echo(f"sha256 {loaded.suite.sha256}", err=True)


@app.command("validate")
def validate_command(suite: Annotated[str, typer.Argument(help="Name, or path of a TOML file.")]) -> None:
    """Check a suite: every mistake at once with exit code 3, or what it holds."""
    from iqa_suites import load_suite

    found = load_suite(suite).suite
    radii = sorted({epsilon for attack in found.own_attacks for epsilon in attack.epsilons})
    typer.echo(
        f"{suite}: valid; suite {found.name!r}, {len(found.attacks)} attacks in norm {found.norm} at "
        f"{', '.join(f'{epsilon:g}' for epsilon in radii)}, sha256 {found.sha256}"
    )
