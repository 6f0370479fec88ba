"""Temporary folders that outlive no process for long: they lie where the next process finds them."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

OLD = 86400.0
"""Seconds after which a folder is abandoned where file locks do not tell."""


class Scratch:
    """A new folder, deleted when it is closed, with those that killed processes left beside it.

    A lock on it goes with the process, however that ends, and says whether it is in use.
    """

    def __init__(self, root: object = None) -> None:
        """Make it in ``tmp`` of a store.

        Args:
            root: the store's folder; for what is no local path the system's own place for temporary files.
        """
        sweep(root)
        self._parent = _parent(root)
        self._new = [folder for folder in (self._parent, self._parent.parent) if not folder.exists()]
        self.path = _made_in(self._parent)
        self._handle = None if sys.platform == "win32" else os.open(self.path, os.O_RDONLY)
        if self._handle is not None:
            _lock(self._handle)

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        with contextlib.suppress(OSError):  # something is in it, or another process was faster
            for folder in self._new or [self._parent]:
                folder.rmdir()


@contextlib.contextmanager
def scratch_folder(root: object = None) -> Iterator[Path]:
    """Yield the path of a `Scratch` and close it at the end."""
    scratch = Scratch(root)
    try:
        yield scratch.path
    finally:
        scratch.close()


def abandoned(root: object = None) -> list[Path]:
    """Return the temporary folders of a store, or of the system's place, whose process has ended."""
    return sorted(folder for folder in _parent(root).glob("work-*") if folder.is_dir() and _free(folder))


def sweep(root: object = None) -> None:
    """Delete them."""
    for folder in abandoned(root):
        shutil.rmtree(folder, ignore_errors=True)


def _parent(root: object) -> Path:
    """Return where temporary folders of a store lie; those of no local one in a folder of this user alone."""
    if isinstance(root, Path):
        return root / "tmp"
    user = getpass.getuser() if sys.platform == "win32" else os.getuid()
    return Path(tempfile.gettempdir()) / f"iqa-harness-{user}"


def _made_in(parent: Path) -> Path:
    for _ in range(10):
        parent.mkdir(mode=0o700 if parent.name != "tmp" else 0o777, parents=True, exist_ok=True)
        if sys.platform != "win32" and parent.name != "tmp" and os.lstat(parent).st_uid != os.getuid():
            break  # somebody else's: the system's own rules protect a folder that is made there
        with contextlib.suppress(FileNotFoundError):  # another process has just removed the empty parent
            return Path(tempfile.mkdtemp(prefix="work-", dir=parent))
    return Path(tempfile.mkdtemp(prefix="iqa-harness-"))


def _free(folder: Path) -> bool:
    if sys.platform == "win32":  # it opens no folder: age alone tells
        with contextlib.suppress(OSError):
            return time.time() - folder.stat().st_mtime > OLD
        return False
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        age = time.time() - os.fstat(handle).st_mtime
        # One that is a second old may not be locked yet.
        return age > 1 if _lock(handle) else age > OLD
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open folder for this process; False where there are no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    if sys.platform == "win32":  # no fcntl there
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems lock no folders
        return False
    return True
