"""Temporary folders that outlive no process for long: below the store, where they are found again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

OLD = 86400.0
"""Seconds after which a folder is abandoned where file locks do not tell."""


@contextlib.contextmanager
def scratch_folder(root: object) -> Iterator[Path]:
    """Yield a new folder in ``tmp`` of a store, deleted at the end, with those that killed processes left.

    Args:
        root: the store's folder; for what is no local path the system's own place for temporary files.
    """
    if not isinstance(root, Path):
        with tempfile.TemporaryDirectory(prefix="iqa-harness-") as name:
            yield Path(name)
        return
    for folder in abandoned(root):
        shutil.rmtree(folder, ignore_errors=True)
    parent = root / "tmp"
    new = [folder for folder in (parent, root) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as name:
            handle = os.open(name, os.O_RDONLY)  # the lock goes with the process, however that ends
            try:
                _lock(handle)
                yield Path(name)
            finally:
                os.close(handle)
    finally:
        with contextlib.suppress(OSError):  # something is in it
            for folder in new or [parent]:
                folder.rmdir()


def abandoned(root: object) -> list[Path]:
    """Return the temporary folders of a store whose process has ended."""
    if not isinstance(root, Path):
        return []
    return sorted(folder for folder in (root / "tmp").glob("work-*") if folder.is_dir() and _free(folder))


def _free(folder: Path) -> bool:
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
