"""`iqa-harness evaluate`: how well models agree with opinion, on several data sets at once."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    ModelsOption,
    PluginOption,
    StoreOption,
    ThreadsOption,
)
from iqa_harness.entrants.naming import load_entrant, notes_on, parse_model, run_plugins
from iqa_harness.errors import ExitCode
from iqa_harness.machine.places import require_folder


def evaluate(
    model: ModelsOption,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            help="Data set to test on: demo, koniq10k:/folder, 'spaq:/folder?split=all', FILE.csv, ... "
            "Repeat for more.",
        ),
    ],
    split: Annotated[
        Literal["train", "val", "test", "all"], typer.Option("--split", help="Images the numbers are of.")
    ] = "test",
    name: Annotated[
        str, typer.Option("--name", help="Table in the store that the rows go to.")
    ] = "evaluation",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    eot_samples: Annotated[
        int | None, typer.Option("--eot-samples", min=1, help="Draws averaged for a stochastic model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals and of such draws.")] = 0,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
) -> None:
    """Test models on data sets without attack: SROCC, PLCC after a logistic, KROCC, one row a model and set.

    Scores are kept: an interrupted evaluation goes on, and one more model or set costs itself only. Rows of
    earlier calls with this --name stay in the table.
    """
    from rich.console import Console

    from iqa_harness.data import open_data
    from iqa_harness.evaluation.evaluate import count_images, describe, name_sets
    from iqa_harness.evaluation.evaluate import evaluate as run_evaluation
    from iqa_harness.evaluation.store import EvaluationStore, Stored
    from iqa_harness.evaluation.table import evaluation_view, join
    from iqa_harness.machine.provenance import collect_provenance
    from iqa_harness.machine.terminal import progress_bar
    from iqa_reports import print_table

    require_folder(store, "--store")
    from iqa_harness.machine.devices import use_devices

    use_devices([device], threads)
    run_plugins(plugin)
    evaluations = EvaluationStore(store)
    former = evaluations.read(name)  # a bad name, or a damaged table, is refused before anything is computed
    entrants = [load_entrant(parse_model(text), backbone_weights) for text in model]
    for note in notes_on(entrants, store):
        typer.echo(note, err=True)
    taken = {card["name"]: card["sha256"] for card in former.manifest["data"]} if former else {}
    sets = name_sets([(text, open_data(text, cache_dir=cache)) for text in data], split, taken)
    with progress_bar("Scoring", count_images(entrants, sets), show=True) as advance:
        found = run_evaluation(
            entrants, sets, evaluations, device=device, draws=eot_samples, seed=seed,
            on_image=lambda model, data: advance(),
        )  # fmt: skip
    import torch

    manifest = {
        **describe(entrants, sets, eot_samples, seed),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "provenance": collect_provenance(device, torch.get_num_threads()).model_dump(mode="json"),
    }
    # Read again: another evaluation of this name may have ended meanwhile.
    joined = join(evaluations.read(name), Stored(found.rows, found.scores, manifest))
    folder = evaluations.write(name, joined.stored)
    console = Console()
    print_table(evaluation_view(joined.stored.rows), console)
    console.print(
        f"\ntable.csv, table.parquet, scores.parquet and manifest.json are in {folder}",
        highlight=False,
        markup=False,
        emoji=False,
    )
    for (label, where), reason in found.errors.items():
        Console(stderr=True).print(
            f"no scores of {label} on {where}: {reason}", highlight=False, markup=False, emoji=False
        )
    for words in joined.left_out:
        typer.echo(f"left out of the table, {words}", err=True)
    raise typer.Exit(ExitCode.PARTIAL if found.errors else ExitCode.OK)
