"""`iqa-harness models`: what can be put under test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.cli.arguments import BackboneOption, PluginOption
from iqa_harness.entrants.naming import load_entrant, parse_model, run_plugins
from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_folder

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
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
) -> None:
    """Print a model's card as JSON, with its number of parameters on stderr."""
    run_plugins(plugin)
    entrant = load_entrant(parse_model(model), backbone_weights)
    typer.echo(entrant.card.model_dump_json(indent=1))
    count = sum(p.numel() for p in entrant.model.parameters())
    typer.echo(f"parameters {count:,}\nsha256 {entrant.sha256}", err=True)


@app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(help="Checkpoint of the HyperIQA or SMART-IQA authors, or of pyiqa.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint; must not exist.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE: what leaves no trace in the file, e.g. protocol=centre."),
    ] = None,
) -> None:
    """Turn somebody else's checkpoint into one of ours; nothing in the file is run."""
    from iqa_models import import_checkpoint, save_checkpoint

    if out.exists():
        raise RunError(f"{out} exists already; choose another --out")
    require_folder(out, "--out")
    options = parse_model("file?" + "&".join(option)).options if option else {}
    model, report = import_checkpoint(file, **options)
    save_checkpoint(model, out, training={"imported_from": file.name, "layout": report.layout})
    typer.echo(f"{report.layout} checkpoint, {report.converted} tensors: {report.model} {report.options}")
    if report.filled:
        typer.echo(f"{len(report.filled)} counters that the file lacks were set to 0")
    typer.echo(str(out))
