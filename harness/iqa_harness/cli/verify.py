"""`iqa-harness verify`: is a run what it says, and is it to be believed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iqa_harness.cli.arguments import (
    DEFAULT_STORE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    PluginOption,
    ResultsOption,
    ThreadsOption,
    load_entrant,
    parse_model,
    run_plugins,
    set_up_torch,
)
from iqa_harness.errors import ExitCode, RunError

if TYPE_CHECKING:
    from iqa_harness.cells.plan import Entrant
    from iqa_results import ModelRecord, RunManifest

SHOWN = 20


def verify(
    run: Annotated[str | None, typer.Argument(help="Name of the run in the store.")] = None,
    store: ResultsOption = str(DEFAULT_STORE),
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="LABEL=MODEL: where a model is now; else it is made as the manifest says."
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=0,
            help="Attacked cells of each model to make again, beside its checks and clean scores; "
            "0 opens no model and no image.",
        ),
    ] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of the choice of those cells.")] = 0,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Where the images are now; else as the suite says.")
    ] = None,
    explain: Annotated[str | None, typer.Option("--explain", help="Say what a flag means, and stop.")] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    backbone_weights: BackboneOption = None,
    plugin: PluginOption = None,
) -> None:
    """Verify a run: manifest, rows and tables against each other; checks, scores, a sample of attacks again.

    Exit code 1 if anything differs, or if a model's verdict is not sound.
    """
    if explain is not None:
        _explain(explain)
        return
    if run is None:
        raise typer.BadParameter("name a run, or a flag with --explain")
    from rich.console import Console

    from iqa_harness.cells.compute import Runtime
    from iqa_harness.cells.selection import recorded_data
    from iqa_harness.running.run import refreshed
    from iqa_harness.verify import cell_name, require_entrants, verify_run
    from iqa_results import ResultStore

    console = Console()
    results = ResultStore(store)
    manifest = refreshed(results, results.read_manifest(run))
    entrants: list[Entrant] = []
    images = None
    if sample:
        set_up_torch(device, threads)
        run_plugins(plugin)
        entrants = _entrants(manifest, model or [], backbone_weights, bool(plugin))
        require_entrants(manifest, entrants)
        images = recorded_data(manifest, cache, name=data)
    found = verify_run(
        results, manifest, entrants, images, sample=sample, seed=seed, runtime=Runtime(device=device),
        on_cell=lambda cell: typer.echo(f"again: {cell_name(cell)}", err=True),
    )  # fmt: skip
    for finding in found.findings[:SHOWN]:
        console.print(
            f"{finding.what}: {finding.where}: {finding.detail}",
            highlight=False,
            soft_wrap=True,
            markup=False,
            emoji=False,
        )
    if len(found.findings) > SHOWN:
        console.print(f"... and {len(found.findings) - SHOWN} more", highlight=False)
    console.print(
        f"{found.rows} rows compared with the plan and each other, {found.cells} cells ({found.rows_again} "
        f"rows) and the checks of {found.checks} models made again: {len(found.findings)} differ",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if not sample:
        console.print("nothing was made again (--sample 0): scores, labels and checks are as stored")
    sound = found.tables is not None and print_verdicts(found.tables.flags.to_pylist(), manifest)
    raise typer.Exit(ExitCode.OK if sound and not found.findings else ExitCode.FOUND)


def print_verdicts(flags: list[dict[str, object]], manifest: RunManifest) -> bool:
    """Print every model's verdict and raised flags; return whether all are sound."""
    from rich.console import Console

    from iqa_harness.evidence.flags import Flag, verdict_of

    console = Console()
    sound = True
    for record in manifest.models:
        mine = [f for f in flags if f["model"] == record.name]
        made = [Flag(**{name: f[name] for name in Flag._fields}) for f in mine]  # type: ignore[arg-type]
        verdict = verdict_of(made)[0] if made else "not judged"
        sound &= verdict == "sound"
        measured = sum(f.measured for f in made)
        console.print(
            f"{record.name}: {verdict} ({measured} of {len(made)} flags measured)",
            highlight=False,
            soft_wrap=True,
            markup=False,
            emoji=False,
        )
        for flag in made:
            if flag.raised:
                value = "not measurable" if flag.value is None else f"{flag.value:.4g}"
                console.print(
                    f"  {flag.flag} ({flag.severity}): {value}, bound {flag.threshold:g}; {flag.detail}",
                    highlight=False, soft_wrap=True, markup=False, emoji=False,
                )  # fmt: skip
    return sound


def judge_run(store: str | Path, suite: str, run: str | None) -> ExitCode:
    """Print the verdicts of a run whose tables are written; FOUND if one is not sound."""
    from iqa_results import ResultStore
    from iqa_suites import load_suite

    results = ResultStore(store)
    name = run or load_suite(suite).suite.name
    sound = print_verdicts(results.read_flags(name).to_pylist(), results.read_manifest(name))
    return ExitCode.OK if sound else ExitCode.FOUND


def _explain(name: str) -> None:
    from iqa_harness.evidence.flags import FLAGS
    from iqa_models.registry import did_you_mean

    if name not in FLAGS:
        raise RunError(f"no flag {name!r}{did_you_mean(name, FLAGS)}; there are {', '.join(FLAGS)}")
    kind = FLAGS[name]
    typer.echo(f"{name}: {kind.severity}, raised {kind.raised} {kind.threshold:g}\n\n{kind.meaning}")


def _entrants(
    manifest: RunManifest, given: list[str], backbone_weights: Path | None, plugged: bool
) -> list[Entrant]:
    here = {argument.label: argument for argument in map(parse_model, given)}
    made = [load_entrant(argument, backbone_weights) for argument in here.values()]
    return made + [_made_again(m, backbone_weights, plugged) for m in manifest.models if m.name not in here]


def _made_again(record: ModelRecord, given: Path | None, plugged: bool) -> Entrant:
    """Make a model as the manifest says.

    Raises:
        RunError: its checkpoint is not where the run found it, or it is of a plugin that was not given.
    """
    from iqa_harness.cells.plan import UNTRAINED, Entrant
    from iqa_models import create_model, has_random_head

    if record.checkpoint is not None and not Path(record.checkpoint).is_dir():
        raise RunError(
            f"model {record.name!r}: no checkpoint in {record.checkpoint}, where the run found it; "
            f"say where it is with --model {record.name}=./FOLDER"
        )
    if record.plugins and not plugged:
        # A manifest is data: it must not decide which code is run.
        raise RunError(
            f"model {record.name!r} is of a plugin; run it again with --plugin {record.plugins[0].path}"
        )
    weights = Path(record.backbone_weights) if record.backbone_weights else None
    if record.argument:
        return load_entrant(parse_model(record.argument)._replace(label=record.name), given or weights)
    if record.checkpoint is not None:
        return load_entrant(parse_model(f"{record.name}={_folder(record.checkpoint)}"), given or weights)
    options, name = record.card.get("options"), str(record.card["name"])
    model = create_model(name, **(options if isinstance(options, dict) else {}))
    return Entrant(record.name, model, note=UNTRAINED if has_random_head(name) else None)


def _folder(path: str) -> str:
    return path if "/" in path else f"./{path}"
