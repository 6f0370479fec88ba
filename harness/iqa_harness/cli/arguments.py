"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote, unquote

import typer

from iqa_harness.errors import RunError

if TYPE_CHECKING:
    from iqa_harness.cells.plan import Entrant
    from iqa_results import ResultStore

StoreOption = Annotated[
    Path, typer.Option("--store", help="Folder of Parquet parts, manifests, reports and demo models.")
]
ResultsOption = Annotated[
    str,
    typer.Option(
        "--store", help="Folder or URL (s3://bucket/folder, ...) of Parquet parts, manifests and tables."
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Folder of the embedded data [default: $IQA_HARNESS_CACHE or the user's cache]."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Torch device: cpu, cuda, cuda:1, ...")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads within one operation [default: torch's own].")
]
ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Model under test: a registered NAME, NAME?option=value&..., a checkpoint ./FOLDER, or "
        "NAME?checkpoint=FOLDER; LABEL=... gives it another name in tables. Repeat for more.",
    ),
]

BackboneOption = Annotated[
    Path | None,
    typer.Option(
        "--backbone-weights",
        help="File of pretrained trunk weights (safetensors or weights-only .pth, timm's layout), for models "
        "created by name that have a trunk to load them into.",
    ),
]

PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file of yours that registers models; it is run. Repeat for more."),
]

DEFAULT_STORE = Path("iqa-store")


def report_folder(store: ResultStore, run: str) -> Path:
    """Return where a run's report goes: in a local store beside its tables, else in the working folder."""
    root = store.root
    return root / "runs" / run / "report" if isinstance(root, Path) else Path("iqa-reports") / run


class ModelArgument(NamedTuple):
    """A model as the user named it."""

    label: str
    name: str
    """Registered name; empty if the checkpoint alone says what it is."""
    options: dict[str, Any]
    """Options of the builder."""
    checkpoint: Path | None
    """Folder the weights are read from; with a registered name, the checkpoint must be of that model."""


def parse_model(text: str) -> ModelArgument:
    """Read ``[LABEL=]NAME[?option=value&...]``, ``[LABEL=]FOLDER`` or ``[LABEL=]NAME?checkpoint=FOLDER``.

    A folder is written with a slash (``./mine``): a folder that happens to be called like a registered
    model must not take its place.

    Values are JSON (``true``, ``0.5``, ``null``) and otherwise text. Without a label a model is called
    as it was named, a checkpoint as its folder.

    Raises:
        RunError: an empty name, or an option that is not ``key=value``.
    """
    head, question, query = text.partition("?")
    label, equals, name = head.rpartition("=") if "=" in head else ("", "", head)
    if not name or (equals and not label):
        raise RunError(f"model {text!r}: write NAME, FOLDER or LABEL=NAME")
    options: dict[str, Any] = {}
    for part in query.split("&") if query else []:
        key, sign, value = part.partition("=")
        if not (key and sign):
            raise RunError(f"model {text!r}: option {part!r} is not key=value")
        options[key] = _value(unquote(value))
    if not question and "/" in name:
        return ModelArgument(label or Path(name).resolve().name, "", {}, Path(name))
    checkpoint = options.pop("checkpoint", None)
    if checkpoint is None:
        return ModelArgument(label or name + question + query, name, options, None)
    if options:
        raise RunError(f"model {text!r}: a checkpoint has its own options; leave out {', '.join(options)}")
    return ModelArgument(label or Path(str(checkpoint)).resolve().name, name, {}, Path(str(checkpoint)))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def argument_text(argument: ModelArgument) -> str:
    """Return what to write after ``--model`` to get this model under this name, from any folder."""
    label, name, options, checkpoint = argument
    if checkpoint is not None:
        folder = checkpoint.resolve()
        text = f"{name}?checkpoint={quote(str(folder))}" if name else str(folder)
        return text if label == folder.name else f"{label}={text}"
    query = "&".join(f"{key}={quote(json.dumps(value), safe='')}" for key, value in options.items())
    # A label with a question mark is the text as it was written: nobody could have given it.
    return label if "?" in label or label == name + query else f"{label}={name}{'?' * bool(query)}{query}"


def load_entrant(
    argument: ModelArgument, backbone_weights: Path | None = None, plugins: tuple[Path, ...] = ()
) -> Entrant:
    """Create or load the model a user named.

    Args:
        argument: the model.
        backbone_weights: file for the trunk of a model created by name; a checkpoint has its own.
        plugins: files that were run before, for the record.

    Raises:
        ModelError: unknown name or option, or an unusable checkpoint.
    """
    from iqa_harness.cells.plan import UNTRAINED, Entrant
    from iqa_models import UnknownModel, create_model, has_random_head, load_checkpoint

    if argument.checkpoint is not None:
        model = load_checkpoint(argument.checkpoint, expect=argument.name or None)
        return Entrant(argument.label, model, argument.checkpoint, argument_text(argument), plugins)
    options = dict(argument.options)
    if backbone_weights is not None:
        options.setdefault("backbone_weights", str(backbone_weights))
    try:
        model = create_model(argument.name, **options)
        note = UNTRAINED if has_random_head(argument.name) else None
        return Entrant(argument.label, model, None, argument_text(argument), plugins, backbone_weights, note)
    except UnknownModel as error:
        if Path(argument.name).is_dir():
            raise UnknownModel(f"{error}; for the checkpoint folder write ./{argument.name}") from error
        raise


def tell_notes(entrants: Sequence[Entrant], store: Path | str = DEFAULT_STORE) -> None:
    """Say on stderr which models have random weights, and where a trained one of that name lies."""
    for entrant in entrants:
        if entrant.note is None:
            continue
        folder = Path(store) / "models" / entrant.model.spec.name
        trained = (
            f"; a trained one is there: write {_slashed(folder)}" if (folder / "card.json").is_file() else ""
        )
        typer.echo(f"{entrant.label}: {entrant.note}{trained}", err=True)


def _slashed(folder: Path) -> str:
    text = str(folder)
    return text if "/" in text else f"./{text}"


def run_plugins(files: list[Path] | None) -> None:
    """Run the user's own Python files, which register models.

    Raises:
        RunError: a file is missing, or raises; the message holds what and the line.
    """
    from iqa_harness.entrants.plugins import run_plugin

    for file in files or ():
        run_plugin(file)


def set_up_torch(device: str, threads: int | None) -> None:
    """Set the number of threads and make sure the device is there.

    Raises:
        RunError: no such device.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).split("\n", 1)[0]
        raise RunError(f"device {device!r} cannot be used: {first}") from error
