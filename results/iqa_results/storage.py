"""Where a store lies: a folder of this machine, or a prefix of an object store.

`locate` turns what a user wrote into one of two kinds of path. `Path` is a local one. `RemotePath`
has the few members of it that a store needs, on any file system pyarrow knows by its URL (``s3://``,
``gs://``, ``hdfs://``) or fsspec does (``memory://``, ``az://``, ...).

A file appears whole or not at all on both. Locally it is written beside its place and renamed. On an
object store it is sent in one piece, and an object is visible only after all of it has arrived.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iqa_errors.whole_file import write_local
from iqa_results.errors import ResultsError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class RemotePath:
    """A path on a file system of pyarrow; two are equal if they name the same place."""

    filesystem: Any = field(compare=False)
    """`pyarrow.fs.FileSystem`."""
    key: str
    """Path within it, without a scheme."""
    url: str
    """The same as the user would write it."""

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.filesystem, f"{self.key.rstrip('/')}/{name}", self._url_of(name))

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.key.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether a whole file is there."""
        return bool(self.filesystem.get_file_info(self.key).is_file)

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
            OSError: it is not there or cannot be read.
        """
        with self.filesystem.open_input_file(self.key) as file:
            return bytes(file.read())

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        if missing_ok and not self.is_file():
            return
        self.filesystem.delete_file(self.key)

    def _url_of(self, name: str) -> str:
        head, question, query = self.url.partition("?")
        return f"{head.rstrip('/')}/{name}{question}{query}"


Location = Path | RemotePath
"""A local path or one on an object store."""


def is_url(text: str | Path | RemotePath) -> bool:
    """Whether a user's text names a place on another file system."""
    return isinstance(text, RemotePath) or (isinstance(text, str) and bool(_URL.match(text)))


def locate(text: str | Path | RemotePath) -> Location:
    """Return the path that a folder or URL means; nothing is made there.

    Raises:
        ResultsError: a text without a word, as a variable that is not set leaves, a URL of a file system that
            is not installed, or one that names no folder in it.
    """
    if isinstance(text, Path | RemotePath):
        return text
    if not text.strip():
        raise ResultsError(f"store {text!r}: name a folder or a URL")
    if not is_url(text):
        return Path(text)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    filesystem, key = _open(text)
    if not key.strip("/"):
        raise ResultsError(f"store {text!r}: name a folder in it, as in s3://bucket/folder")
    return RemotePath(filesystem, key.rstrip("/"), text)


def _open(url: str) -> tuple[Any, str]:
    import pyarrow as pa
    import pyarrow.fs as pafs

    try:
        filesystem, key = pafs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as unknown:
        try:
            from fsspec.core import url_to_fs

            # A listing kept from before another writer came would hide its cells.
            found, key = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ResultsError(f"store {url!r}: {unknown}; {error}") from error
        return pafs.PyFileSystem(pafs.FSSpecHandler(found)), key
    except (OSError, NotImplementedError) as error:
        raise ResultsError(f"store {url!r} cannot be opened: {error}") from error
    return filesystem, key


def write_whole(path: Location, content: bytes) -> None:
    """Write a file whole or not at all, over a former one; of two writers the later one wins whole.

    Raises:
        OSError: no room, no permission, no connection; it names the path, and a former file is still there.
    """
    if isinstance(path, RemotePath):
        adapter = getattr(path.filesystem, "handler", None)
        if adapter is not None:  # fsspec: one call that sends the whole object
            adapter.fs.pipe_file(path.key, content)
            return
        with path.filesystem.open_output_stream(path.key) as stream:
            stream.write(content)
        return
    write_local(path, content)


def no_room(error: BaseException) -> bool:
    """Whether a write failed because the disk is full, a quota is used up, or files may not grow so large."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def is_name(text: str) -> bool:
    """Whether a text may name a folder of a store; what could leave it, or no file system takes, may not."""
    return _NAME.fullmatch(text) is not None


def require_name(text: str, what: str) -> str:
    """Return a text that is to name a folder of a store.

    Args:
        text: a user's.
        what: is named, as in ``a run``.

    Raises:
        ResultsError: it may not, see `is_name`.
    """
    if not is_name(text):
        raise ResultsError(f"{what}'s name is letters, digits, '.', '_' and '-' (at most 100), not {text!r}")
    return text


def file_size(path: Location) -> int | None:
    """Return the bytes of a file, None if there is none."""
    if isinstance(path, RemotePath):
        info = path.filesystem.get_file_info(path.key)
        return info.size if info.is_file else None
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def list_files(folder: Location) -> Iterator[tuple[str, int]]:
    """Yield every file below a folder as its path from there ('/' between parts) and its size in bytes.

    One listing, whatever the number of files; of a folder that is not there nothing. Files whose name
    begins with a dot are left out: they are what a killed writer left.
    """
    if isinstance(folder, RemotePath):
        yield from _list_remote(folder)
    elif folder.is_dir():
        yield from _list_local(str(folder), "")


def _list_local(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _list_local(entry.path, f"{prefix}{entry.name}/")
                continue
            try:
                yield prefix + entry.name, entry.stat().st_size
            except FileNotFoundError:  # deleted by somebody else since the folder was read
                continue


def _list_remote(folder: RemotePath) -> Iterator[tuple[str, int]]:
    import pyarrow.fs as pafs

    selector = pafs.FileSelector(folder.key, allow_not_found=True, recursive=True)
    for info in folder.filesystem.get_file_info(selector):
        inside = info.path.strip("/")[len(folder.key.strip("/")) + 1 :]
        if info.is_file and not inside.rpartition("/")[2].startswith("."):
            yield inside, info.size


def leftovers(folder: Location, older: float = 86400.0) -> list[Path]:
    """Return what killed writers left in a local folder more than so many seconds ago.

    On an object store a killed writer leaves nothing that a listing shows.
    """
    if isinstance(folder, RemotePath) or not folder.is_dir():
        return []
    before = time.time() - older
    return sorted(p for p in folder.rglob(".*.part") if p.is_file() and p.stat().st_mtime < before)
