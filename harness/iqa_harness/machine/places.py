"""Can a command write where it was told to? Asked before any work, since work may take hours."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from iqa_harness.errors import RunError


def require_folder(place: Path | str | None, option: str) -> None:
    """See that files can be written to a folder, which need not exist yet; nothing is left behind.

    Args:
        place: the folder; None or a URL is not looked at.
        option: what the user wrote it after.

    Raises:
        RunError: it is no word, a file, lies below one, or cannot be written to.
    """
    if place == "":  # what an unset variable leaves: files would fill the working folder
        raise RunError(f"{option} is empty; give a folder")
    text = str(place).removeprefix("file://")
    if place is None or (isinstance(place, str) and "://" in text):
        return
    folder = Path(text)
    there = _existing(folder)
    if not there.is_dir():
        kind = "a file" if there.is_file() else "no folder"
        what = f"{folder} is {kind}" if there == folder else f"{folder}: {there} is {kind}"
        raise RunError(f"{option} {what}; give a folder")
    _require_writable(there, f"{option} {folder}")


def require_new_folder(folder: Path, option: str) -> None:
    """See that a folder is not there and can be made.

    Raises:
        RunError: it is there, or cannot be written to.
    """
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another {option}")
    require_folder(folder, option)


def require_file(place: Path | None, option: str, *, in_place: bool = False) -> None:
    """See that a file can be written or replaced, which need not exist yet; nothing is left behind.

    Args:
        place: the file; None is not looked at.
        option: what the user wrote it after.
        in_place: what is there is written to, not replaced: a pipe or device will do, in any folder.

    Raises:
        RunError: it is a folder, lies below a file, or its folder cannot be written to.
    """
    if place is None:
        return
    if place.is_dir():
        raise RunError(f"{option} {place} is a folder; give a file")
    with contextlib.suppress(OSError):
        if in_place and place.exists():
            if not os.access(place, os.W_OK):
                raise RunError(f"{option} {place} cannot be written: no permission")
            return
    there = _existing(place.parent)
    if not there.is_dir():
        raise RunError(f"{option} {place}: {there} is a file, not a folder")
    _require_writable(there, f"{option} {place}")


def _existing(folder: Path) -> Path:
    """Return the folder, or what of its path there is."""
    while folder != folder.parent:
        with contextlib.suppress(OSError):  # below a file, or in a folder that may not be searched
            if folder.exists() or folder.is_symlink():
                return folder
        folder = folder.parent
    return folder


def _require_writable(folder: Path, what: str) -> None:
    # Permission bits do not tell: a file system may be read-only, full, or none that holds files.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(f"{what} cannot be written: {folder}: {error.strerror}") from error
