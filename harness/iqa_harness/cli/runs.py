"""`iqa-harness runs`: what a store holds, whether it is whole, and other machines' results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import DEFAULT_STORE, ResultsOption
from iqa_harness.cli.command import Answer, App
from iqa_harness.cli.printing import print_list
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say
from iqa_harness.wording import in_words

if TYPE_CHECKING:
    from iqa_results import RunManifest

app = App(no_args_is_help=True, help="List, show, check, export, merge and tidy runs of a store.")

RunArgument = Annotated[str, typer.Argument(help="Name of the run in the store.")]


@app.command("list")
def list_command(store: ResultsOption = DEFAULT_STORE) -> Answer:
    """List the runs of a store with how far they came; exit code 4 if a manifest is damaged."""
    from iqa_harness.api.runs import list_runs

    found, damaged = list_runs(store)
    for reason in damaged:
        say(f"damaged: {reason}", err=True)
    briefs = [_brief(manifest) for manifest in found]
    heads = ("run", "suite", "data", "images", "models", "cells", "state", "started")
    rows = [
        (
            *(str(brief[key]) for key in heads[:4]), str(len(manifest.models)),
            f"{brief['done']}/{brief['cells']}", str(brief["status"]), str(brief["started"]),
        )
        for manifest, brief in zip(found, briefs, strict=True)
    ]  # fmt: skip
    if found:
        print_list(heads, rows)
    elif not damaged:
        say(f"no runs in {store}")
    return Answer(briefs, ExitCode.PARTIAL if damaged else ExitCode.OK)


@app.command("show")
def show_command(run: RunArgument, store: ResultsOption = DEFAULT_STORE) -> Answer:
    """Show what a run was made of, with what, by whom, at what cost, and what failed."""
    from iqa_harness.api.runs import show_run

    manifest = show_run(run, store)
    made, data = manifest.provenance, manifest.data
    done = sum(cell.status == "done" for cell in manifest.cells)
    failed = [cell for cell in manifest.cells if cell.status == "failed"]
    commit = (
        f"commit {made.commit[:12]}{', with uncommitted changes' if made.dirty else ''}"
        if made.commit
        else ""
    )
    versions = ("iqa-harness", "torch", "timm", "torchattacks")
    lines = [
        (
            "run",
            f"{manifest.run}, {manifest.status}: {done} of {len(manifest.cells)} cells, {len(failed)} failed",
        ),
        ("suite", f"{manifest.suite}, sha256 {manifest.suite_sha256[:12]}, seed {manifest.seed}"),
        ("data", f"{data.name}, {data.split} split, {data.images} images, {data.label}, {data.sha256[:12]}"),
        ("", f"only {data.selection}" if data.selection else ""),
        ("time", f"{manifest.started} to {manifest.ended or 'now'}"),
        ("", f"{in_words(manifest.device_seconds)} of workers' time"),
        ("cost", _cost(manifest)),
        ("with", ", ".join(f"{name} {made.packages.get(name, '?')}" for name in versions)),
        ("", f"Python {made.python}, {made.platform}"),
        ("", f"CUDA {made.cuda or 'none'}, driver {made.driver or 'none'}"),
        ("", commit),
    ]
    for model in manifest.models:
        lines.append(("model", f"{model.name}: sha256 {model.sha256[:12]}, {_cost(model)}"))
        lines.append(("", f"--model {model.argument}" if model.argument else "made in Python"))
        lines += [("", f"--plugin {plugin.path}") for plugin in model.plugins]
    for worker in manifest.workers:
        peak = f", at most {worker.peak_memory / 2**20:.0f} MB" if worker.peak_memory else ""
        lines.append(
            ("worker", f"{worker.id} {worker.executor} on {worker.device} ({worker.device_name}), "
             f"{worker.threads} thread(s){peak}, {worker.cells} cells")
        )  # fmt: skip
    lines += [("note", note) for note in manifest.notes]
    for cell in failed:
        first = (cell.error or "").partition("\n")[0]
        lines.append(("failed", f"{cell.model} {cell.attack} images from {cell.first}: {first}"))
    for name, text in lines:
        if text:
            say(f"{name:8} {text}")
    return Answer(manifest)


@app.command("check")
def check_command(
    run: Annotated[list[str] | None, typer.Argument(help="Runs to check.", show_default="all")] = None,
    store: ResultsOption = DEFAULT_STORE,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete damaged and foreign files: `attack` computes them again.")
    ] = False,
) -> Answer:
    """Read every part against manifest and checksums; exit code 1 if one is missing, damaged or foreign.

    A part that another version wrote is reported too, and kept even with --delete.
    """
    from iqa_harness.api.runs import check_store

    runs, problems = check_store(store, run or (), delete=delete)
    for problem in problems:
        say(f"{problem.kind:8} {problem.run} {problem.key[:12]} {problem.detail}")
    say(f"{len(runs)} run(s), {len(problems)} problem(s)")
    return Answer({"runs": runs, "problems": problems}, ExitCode.FOUND if problems else ExitCode.OK)


@app.command("export")
def export_command(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Argument(
            help="FILE.parquet or FILE.csv for all rows; FILE.zip for a store of this run alone; a folder "
            "with --format."
        ),
    ],
    store: ResultsOption = DEFAULT_STORE,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="croissant: all rows in Parquet with a description that catalogues of data sets read. "
            "hf-eval: clean values and worst cases as Hugging Face takes them, a YAML file a model.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark",
            help="Of hf-eval: ORG/NAME of a benchmark data set of the hub; the files are then for the folder "
            ".eval_results/ of the models, not for the metadata of their pages.",
        ),
    ] = None,
) -> Answer:
    """Write all rows of a run as one file, or what catalogues read of a run into a folder."""
    from iqa_harness.api.runs import export_run

    count, what = export_run(run, out, store, format=kind, benchmark=benchmark), "rows"
    if kind == "hf-eval":
        what = "models"
    say(f"{out}: {count} {what}")
    return Answer({"file": out, what: count})


@app.command("merge")
def merge_command(
    source: Annotated[str, typer.Argument(help="Another store: folder, URL, or a .zip of `runs export`.")],
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only this run. Repeat for more.", show_default="all")
    ] = None,
    store: ResultsOption = DEFAULT_STORE,
) -> Answer:
    """Take runs of another machine's store into this one; a run that is in both becomes one."""
    from iqa_harness.api.runs import merge_runs

    merged = merge_runs(source, store, run or ())
    for manifest, new in merged:
        name = manifest.run
        say(f"{name}: {new} new cells, {manifest.status}; `iqa-harness report {name}` for its tables")
    return Answer([{**_brief(manifest), "new": new} for manifest, new in merged])


@app.command("gc")
def gc_command(
    store: ResultsOption = DEFAULT_STORE,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; without it only what would be is said.")
    ] = False,
) -> Answer:
    """Delete cells that no run names, and what killed writers left."""
    from iqa_harness.api.runs import collect_garbage

    waste = collect_garbage(store, delete=yes)
    say(
        f"{len(waste.cells)} cells that no run names and {len(waste.fragments)} fragments, "
        f"{waste.bytes / 2**20:.1f} MB{': deleted' if yes else '; --yes deletes them'}"
    )
    return Answer(waste)


def _brief(manifest: RunManifest) -> dict[str, object]:
    return {
        "run": manifest.run,
        "suite": manifest.suite,
        "data": manifest.data.name,
        "images": manifest.data.images,
        "models": [model.name for model in manifest.models],
        "cells": len(manifest.cells),
        "done": sum(cell.status == "done" for cell in manifest.cells),
        "failed": sum(cell.status == "failed" for cell in manifest.cells),
        "status": manifest.status,
        "started": manifest.started,
        "ended": manifest.ended,
    }


def _cost(record: object) -> str:
    forwards, backwards, seconds = (getattr(record, name) for name in ("forwards", "backwards", "seconds"))
    return f"{backwards:,} gradients and {forwards:,} evaluations, {in_words(seconds)}"
