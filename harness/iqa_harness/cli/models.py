"""`iqa-harness models`: what can be put under test."""

from __future__ import annotations

from typing import Annotated

import typer

from iqa_harness.cli.arguments import load_entrant, parse_model

app = typer.Typer(no_args_is_help=True, help="List and describe models under test.")


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. 'smart*'.")] = "*",
) -> None:
    """List the registered models."""
    from rich.console import Console
    from rich.table import Table

    from iqa_models import describe_model, list_models

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("what it is")
    for name in list_models(pattern):
        table.add_row(name, describe_model(name))
    Console().print(table)


@app.command("show")
def show_command(
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
) -> None:
    """Print a model's card as JSON, with its number of parameters on stderr."""
    entrant = load_entrant(parse_model(model))
    typer.echo(entrant.model.spec.model_dump_json(indent=1))
    count = sum(p.numel() for p in entrant.model.parameters())
    typer.echo(f"parameters {count:,}\nsha256 {entrant.sha256}", err=True)
