"""Checkpoints to a folder or a Hugging Face repository and back: known files only, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_errors import IQAError
from iqa_errors.whole_file import write_local
from iqa_models.checkpoint import CARD, CheckpointCard, checked_card, read_card
from iqa_models.errors import BadCheckpoint, HubError
from iqa_models.state_dicts import listed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"
"""Name of the page for readers."""

_WEIGHTS = re.compile(r"model-[0-9a-f]{16}\.safetensors")
_LEFT = {".git", ".gitattributes"}  # a repository's own; never taken
_REPOSITORY = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_SECONDS = 10  # until a repository that does not answer is given up


def push_checkpoint(folder: Path, place: str, readme: str, *, endpoint: str | None = None) -> tuple[str, ...]:
    """Bring a checkpoint and its page to a place, replacing a checkpoint that is there.

    Args:
        folder: what `save_checkpoint` wrote; nothing else in it is taken.
        place: a folder, or ``hf://ORG/NAME[@BRANCH]``; a repository that is not there is made.
        readme: the page, Markdown.
        endpoint: address of the hub, ``$HF_ENDPOINT`` or Hugging Face's if left out.

    Returns:
        Names of the files.

    Raises:
        BadCheckpoint: the checkpoint is not whole.
        HubError: the place cannot be reached or written to.
    """
    card = checked_card(folder)
    names = (card.file_name, README, CARD)  # the card last: a folder's reader finds its weights
    content = {name: (folder / name).read_bytes() for name in (card.file_name, CARD)}
    content[README] = readme.encode()
    if "://" in place:
        _commit(place, content, endpoint)
        return names
    target = Path(place)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            write_local(target / name, content[name])
        for old in target.iterdir():
            if _WEIGHTS.fullmatch(old.name) and old.name not in names:
                old.unlink()
    except OSError as error:
        raise HubError(f"{place} cannot be written: {error.strerror}") from error
    return names


def pull_checkpoint(place: str, out: Path, *, endpoint: str | None = None) -> CheckpointCard:
    """Bring a checkpoint from a place into a new folder; it stands there whole and checked, or not at all.

    Args:
        place: a folder, or ``hf://ORG/NAME[@REVISION]``.
        out: folder for the checkpoint; must not exist.
        endpoint: as in `push_checkpoint`.

    Raises:
        BadCheckpoint: no checkpoint, one that is not whole, or files that are no part of one.
        HubError: the place cannot be reached or read, or `out` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as scratch:
            made = Path(scratch) / "checkpoint"
            made.mkdir()
            if "://" in place:
                card = _from_hub(place, made, Path(scratch) / "fetched", endpoint)
            else:
                card = _from_folder(Path(place), made)
            made.rename(out)
    except OSError as error:
        raise HubError(f"{place} to {out}: {error.strerror or error}") from error
    return card


def _from_folder(folder: Path, made: Path) -> CheckpointCard:
    if not folder.is_dir():
        raise HubError(f"{folder}: no such folder; a repository is hf://ORG/NAME")

    def take(name: str) -> None:
        if (folder / name).resolve() != folder.resolve() / name:
            raise BadCheckpoint(f"{folder}: {name} leads out of the folder; nothing was taken")
        shutil.copyfile(folder / name, made / name)

    return _take(str(folder), {path.name for path in folder.iterdir()}, take, made)


def _from_hub(place: str, made: Path, fetched: Path, endpoint: str | None) -> CheckpointCard:
    repository, revision = _parts(place)
    with _hub(place, endpoint) as hub:
        info = hub.model_info(repository, revision=revision, timeout=_SECONDS)

    def take(name: str) -> None:
        # All of one commit, whatever is pushed meanwhile.
        with _hub(place, endpoint) as hub:
            file = hub.hf_hub_download(
                repository, name, revision=info.sha, local_dir=fetched, etag_timeout=_SECONDS
            )
        Path(file).rename(made / name)

    return _take(place, {file.rfilename for file in info.siblings or ()}, take, made)


def _take(place: str, names: Collection[str], take: Callable[[str], None], made: Path) -> CheckpointCard:
    """Take the card, the weights it names and the page; the names of all files are looked at first."""
    strange = sorted(n for n in names if n not in {CARD, README, *_LEFT} and not _WEIGHTS.fullmatch(n))
    if strange:
        alone = (
            "" if "://" in place else f"; `iqa-harness models push {place} FOLDER` takes the checkpoint alone"
        )
        raise BadCheckpoint(
            f"{place} holds what is no part of a checkpoint: {listed(strange)}; nothing was taken{alone}"
        )
    try:
        for name in sorted({CARD, README} & set(names)):
            take(name)
        weights = read_card(made).file_name
        if weights in names:
            take(weights)
        return checked_card(made)
    except BadCheckpoint as error:
        raise BadCheckpoint(str(error).replace(str(made), place)) from error


def _commit(place: str, content: dict[str, bytes], endpoint: str | None) -> None:
    repository, revision = _parts(place)
    with _hub(place, endpoint) as hub:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            there = hub.model_info(repository, revision=revision, timeout=_SECONDS).siblings or ()
        except RepositoryNotFoundError:
            hub.create_repo(repository, exist_ok=True)
            there = ()
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in content.items()
        ]
        names = [file.rfilename for file in there]
        changes += [CommitOperationDelete(n) for n in names if _WEIGHTS.fullmatch(n) and n not in content]
        hub.create_commit(repository, changes, commit_message="Checkpoint of iqa-harness", revision=revision)


def _parts(place: str) -> tuple[str, str | None]:
    match = _REPOSITORY.fullmatch(place)
    if match is None:
        raise HubError(f"{place}: a repository is hf://ORG/NAME, with @REVISION behind it if you like")
    return match[1], match[2]


@contextmanager
def _hub(place: str, endpoint: str | None) -> Iterator[HfApi]:
    try:
        from huggingface_hub import HfApi, constants
    except ImportError as error:
        raise HubError(f"{place} needs a package: pip install huggingface_hub") from error
    address = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    try:
        yield HfApi(endpoint=address)
    except IQAError:
        raise
    except Exception as error:  # the hub's HTTP library, so its errors, vary by version
        raise HubError(f"{place} at {address}: {_why(error)}") from error


def _why(error: Exception) -> str:
    kind, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or kind in ("LocalTokenNotFoundError", "RepositoryNotFoundError"):
        return "no such repository, or you are not allowed to; a token is HF_TOKEN=... or `hf auth login`"
    return f"{kind}: {next(filter(None, map(str.strip, str(error).splitlines())), '')}"
