"""`iqa-harness evaluate`: how well models agree with opinion, on several data sets at once."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console


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
    from iqa_harness.evaluation.table import join
    from iqa_harness.machine.provenance import collect_provenance
    from iqa_harness.machine.terminal import progress_bar

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
    _print(console, joined.stored.rows)
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


def _print(console: Console, rows: pa.Table) -> None:
    """Print the table, set by set, with what its numbers must not be taken for."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("data", "split", "n", "model", "SROCC", "95 %", "PLCC", "KROCC"):
        numeric = column in ("n", "SROCC", "PLCC", "KROCC")
        table.add_column(
            column,
            justify="right" if numeric else "left",
            no_wrap=column not in ("data", "model"),
            overflow="fold",
        )
    met = rows.column("data").to_pylist()
    listed = sorted(rows.to_pylist(), key=lambda row: (met.index(row["data"]), row["split"]))
    marks: dict[str, str] = {}
    former = None
    for row in listed:
        # Calls with another --split put rows of other images of one set into one table.
        place = (row["data"], row["split"], row["images"])
        first = place != former
        former = place
        mark = "".join(marks.setdefault(note, f"({len(marks) + 1})") for note in _notes(row))
        interval = (
            "" if row["srocc_low"] is None else f"{_figure(row['srocc_low'])} .. {_figure(row['srocc_high'])}"
        )
        cells = (
            row["data"] if first else "",
            row["split"] if first else "",
            f"{row['images']:,}" if first else "",
            f"{row['model']} {mark}".rstrip(),
            _figure(row["srocc"]),
            interval,
            _figure(row["plcc"]),
            _figure(row["krocc"]),
        )
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    for note, mark in marks.items():
        console.print(Text(f"{mark} {note}", style="dim"))


def _notes(row: dict[str, object]) -> list[str]:
    """Return what must be said about a row."""
    notes = []
    if row["label"] == "pseudo-MOS":
        notes.append("labels are pseudo-MOS: for comparing models on equal terms, no human quality")
    if row["trained_on"] == "this set, divided otherwise":
        notes.append("trained on the same pictures divided otherwise: some of these may have been trained on")
    if row["trained_on"] == "this set" and row["split"] != "test":
        notes.append("images of this split were used in training")
    mapping = str(row["mapping"])
    if mapping.startswith("none"):
        notes.append("PLCC of raw scores: no logistic could be fitted")
    elif mapping != "logistic on val":
        notes.append("the logistic of PLCC was fitted on the evaluated images themselves")
    if row["undefined"]:
        notes.append(f"undefined: {row['undefined']}")
    return notes


def _figure(value: object) -> str:
    return "undefined" if value is None else f"{value:.4f}"
