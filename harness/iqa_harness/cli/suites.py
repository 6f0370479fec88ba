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
