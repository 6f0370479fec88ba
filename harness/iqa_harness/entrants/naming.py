"""What a user may call a model under test, and the model made of it: once from words, once from a record."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from torch import nn

from iqa_harness.entrants.defended import behind, is_folder, split_defences
from iqa_harness.entrants.entrant import UNTRAINED, Entrant
from iqa_harness.entrants.foreign import foreign_argument, foreign_text, refuse_code
from iqa_harness.entrants.options import read_options
from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.errors import RunError
from iqa_models import (
    QualityModel,
    UnknownModel,
    create_model,
    has_random_head,
    load_checkpoint,
    wrap,
)
from iqa_models.adapters.foreign import load_weights
from iqa_models.index import ADAPTERS
from iqa_models.registry import find_builder
from iqa_results import ModelRecord

Model = str | Path | Entrant | nn.Module | tuple[str, Any]
"""What the API takes for a model: words as after ``--model``, a checkpoint's folder, a live object, or
(label, one of these)."""


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

    Somebody else's model is ``[LABEL=]WAY:WHAT[?option=value&...]``, see `iqa_models.index.ADAPTERS`.

    A folder is written with a slash (``./mine``): a folder that happens to be called like a registered
    model must not take its place. A folder that exists may hold ``=`` and ``?`` in its path. A registered
    model's weights may be a plain file of tensors: ``NAME?weights=FILE[&strip=module.]``.

    Values are JSON (``true``, ``0.5``, ``null``) and otherwise text. Without a label a model is called
    as it was named, a checkpoint as its folder.

    Raises:
        RunError: an empty name, or an option that is not ``key=value``.
    """
    foreign = foreign_argument(text)
    if foreign is not None:
        return ModelArgument(*foreign, None)
    label, rest = _split_label(text)
    if is_folder(rest):
        return ModelArgument(label or _named(Path(rest)), "", {}, Path(rest))
    name, question, query = rest.partition("?")
    if not name:
        raise RunError(f"model {text!r}: write NAME, FOLDER or LABEL=NAME")
    options = read_options(text, query)
    if not question and "/" in name:
        return ModelArgument(label or _named(Path(name)), "", {}, Path(name))
    checkpoint = options.pop("checkpoint", None)
    if checkpoint is None:
        return ModelArgument(label or name + question + query, name, options, None)
    if options:
        raise RunError(f"model {text!r}: a checkpoint has its own options; leave out {', '.join(options)}")
    return ModelArgument(label or _named(Path(str(checkpoint))), name, {}, Path(str(checkpoint)))


def _split_label(text: str) -> tuple[str, str]:
    """Return the label, '' without one, and the rest. A label holds no slash, so that a path may hold '='."""
    head = text.partition("?")[0]
    if is_folder(text) or "=" not in head or "/" in head.partition("=")[0]:
        return "", text
    first, last = head.index("="), head.rindex("=")
    cut = first if "/" in head[first:] else last
    if cut == 0:
        raise RunError(f"model {text!r}: write NAME, FOLDER or LABEL=NAME")
    return text[:cut], text[cut + 1 :]


def _named(folder: Path) -> str:
    """Return the name of a folder.

    Raises:
        RunError: no path can be so.
    """
    try:
        return folder.resolve().name
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a NUL byte
        raise RunError(f"model {str(folder)!r}: no folder ({error})") from error


def argument_text(argument: ModelArgument) -> str:
    """Return what to write after ``--model`` to get this model under this name, from any folder."""
    label, name, options, checkpoint = argument
    if name in ADAPTERS:
        return foreign_text(label, name, options)
    if checkpoint is not None:
        folder = checkpoint.resolve()
        text = f"{name}?checkpoint={quote(str(folder))}" if name else str(folder)
        return text if label == folder.name else f"{label}={text}"
    query = "&".join(f"{key}={quote(json.dumps(value), safe='')}" for key, value in options.items())
    # A label with a question mark is the text as it was written: nobody could have given it.
    return label if "?" in label or label == name + query else f"{label}={name}{'?' * bool(query)}{query}"


def load_entrant(
    argument: ModelArgument, backbone_weights: Path | str | None = None, plugins: tuple[Path, ...] = ()
) -> Entrant:
    """Create or load the model a user named.

    Args:
        argument: the model.
        backbone_weights: file for the trunk of a model created by name; a checkpoint has its own.
        plugins: files that were run before, for the record.

    Raises:
        ModelError: unknown name or option, or an unusable checkpoint.
    """
    if argument.checkpoint is not None:
        model = load_checkpoint(argument.checkpoint, expect=argument.name or None)
        return Entrant(argument.label, model, argument.checkpoint, argument_text(argument), plugins)
    options = dict(argument.options)
    if "weights" in options and not _takes(argument.name, "weights"):
        file = Path(str(options["weights"])).absolute()
        model = _with_weights(argument.name, options)
        label = file.stem if "?" in argument.label else argument.label  # of no name but its words
        own = ModelArgument(label, argument.name, {**argument.options, "weights": str(file)}, None)
        return Entrant(label, model, None, argument_text(own), plugins)
    if backbone_weights is not None:
        options.setdefault("backbone_weights", str(backbone_weights))
    try:
        model = create_model(argument.name, **options)
    except UnknownModel as error:
        if Path(argument.name).is_dir():
            raise UnknownModel(f"{error}; for the checkpoint folder write ./{argument.name}") from error
        raise
    note = UNTRAINED if has_random_head(argument.name) else None
    return Entrant(argument.label, model, None, argument_text(argument), plugins, backbone_weights, note)


def _takes(name: str, option: str) -> bool:
    """Whether a model's builder has an option of its own of that name.

    One that takes any may mean one by it, if it is a user's or a way to name somebody else's model. Of the
    others of this package none loads weights, and those that take any know ``pretrained``.
    """
    builder = find_builder(name)
    if builder is None:
        return False
    parameters = inspect.signature(builder).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    ours = builder.__module__.partition(".")[0] == "iqa_models" and name not in ADAPTERS
    return option in parameters or (takes_any and (option == "pretrained" or not ours))


def _with_weights(name: str, options: dict[str, Any]) -> QualityModel:
    """Create a registered model and load a plain file of its tensors; no other weights are looked for.

    Raises:
        ModelError: unknown name or option, no file of tensors, or one that does not fit, with a list.
    """
    file, strip = Path(str(options.pop("weights"))), str(options.pop("strip", ""))
    if _takes(name, "pretrained"):
        options.setdefault("pretrained", "none")
    model = create_model(name, **options)
    load_weights(model, str(file), strip)
    model.spec = model.spec.replace(initial_weights=f"file:{file.name}")
    return model.eval()


def as_entrant(
    model: Model, *, backbone_weights: Path | str | None = None, plugins: tuple[Path, ...] = ()
) -> Entrant:
    """Return a model under test, whatever it was given as.

    Args:
        model: words as after ``--model``, the folder of a checkpoint, an `Entrant`, a `QualityModel`, another
            ``nn.Module`` or callable (see `iqa_models.wrap`, which asks for its score range), or
            (label, one of these). Words may end in defences, ``|jpeg:75|flip``.
        backbone_weights: file for the trunk of a model created by name.
        plugins: files that were run before, for the record.

    Raises:
        ModelError: unknown name or option, an unusable checkpoint, or an object that is no model.
        AttackError: no such defence.
        RunError: words that name no model.
    """
    if isinstance(model, tuple):
        label, inner = model
        made = as_entrant(inner, backbone_weights=backbone_weights, plugins=plugins)
        return _relabelled(made, str(label))
    if isinstance(model, Entrant):
        return model
    if isinstance(model, Path):
        argument = ModelArgument(_named(model), "", {}, model)
        return load_entrant(argument, backbone_weights, plugins)
    if isinstance(model, str):
        text, defences = split_defences(model)
        argument = parse_model(text)
        own = argument.label if defences and _split_label(text)[0] else None
        return behind(load_entrant(argument, backbone_weights, plugins), defences, own)
    quality = wrap(model)
    return Entrant(quality.spec.name, quality.eval())


def as_entrants(
    models: Model | Mapping[str, Any] | Iterable[Model],
    *,
    backbone_weights: Path | str | None = None,
    plugins: tuple[Path, ...] = (),
) -> list[Entrant]:
    """Return several models: one, a sequence of them, or a mapping from label to model."""
    if isinstance(models, Mapping):
        models = list(models.items())
    if isinstance(models, str | Path | Entrant | nn.Module) or callable(models):
        models = [models]
    return [as_entrant(model, backbone_weights=backbone_weights, plugins=plugins) for model in models]


def _relabelled(entrant: Entrant, label: str) -> Entrant:
    argument = entrant.argument
    if argument is not None:
        text, defences = split_defences(argument)
        argument = "|".join(
            [argument_text(parse_model(text)._replace(label=label)), *filter(None, [defences])]
        )
    return replace(entrant, label=label, argument=argument)


def from_record(
    record: ModelRecord,
    *,
    plugged: bool = False,
    backbone_weights: Path | str | None = None,
) -> Entrant:
    """Make a run's model again, as its manifest says.

    Args:
        record: of the run's manifest.
        plugged: whether the user's own plugins were run; a manifest is data and does not decide that.
        backbone_weights: file for its trunk, if it has moved.

    Raises:
        RunError: its checkpoint is not where the run found it, it is of a plugin that was not given, or an
            object of the process that ran it.
        ModelError: it cannot be made.
    """
    refuse_code(record)
    if record.plugins and not plugged:
        raise RunError(
            f"model {record.name!r} is of a plugin; run it again with --plugin {record.plugins[0].path}"
        )
    argument, defences = split_defences(record.argument or str(record.card.get("name")))
    weights = backbone_weights or record.backbone_weights
    if record.checkpoint is not None:
        folder = Path(record.checkpoint)
        if not folder.is_dir():
            raise RunError(
                f"model {record.name!r}: no checkpoint in {folder}, where the run found it; say where it is "
                f"with --model {record.name}=./FOLDER"
            )
        entrant = load_entrant(ModelArgument(record.name, "", {}, folder))
    elif record.argument:
        entrant = load_entrant(parse_model(argument)._replace(label=record.name), weights)
    else:
        known = record.card.get("options")
        options = dict(known) if isinstance(known, dict) else {}
        entrant = load_entrant(ModelArgument(record.name, argument, options, None), weights)
    return behind(entrant, defences, record.name)


def run_plugins(files: Iterable[str | Path] | None) -> tuple[Path, ...]:
    """Run the user's own Python files, which register models; return their paths.

    Raises:
        RunError: a file is missing, or raises; the message holds what and the line.
    """
    paths = tuple(Path(file) for file in files or ())
    for path in paths:
        run_plugin(path)
    return paths


def notes_on(entrants: Sequence[Entrant], store: Path | str) -> list[str]:
    """Say which models have random weights, and where a trained one of that name lies in a local store."""
    notes = []
    for entrant in entrants:
        if entrant.note is None:
            continue
        folder = Path(store) / "models" / entrant.model.bare.spec.name
        there = "://" not in str(store) and (folder / "card.json").is_file()
        shown = str(folder) if "/" in str(folder) else f"./{folder}"
        notes.append(f"{entrant.label}: {entrant.note}" + there * f"; a trained one is there: write {shown}")
    return notes
