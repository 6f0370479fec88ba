"""Pixel hashes of files seen before, so that opening a large set a second time decodes nothing.

A file counts as seen if path, size, and times of last change of content and of inode are the same.
`iqa-harness data check` never asks here: it reads everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from iqa_harness.data.hashing import json_sha256
from iqa_harness.machine.cache_folder import cache_root
from iqa_results.storage import write_whole

_FORMAT = 1


class DigestIndex:
    """The pixel hashes of one folder's files.

    Args:
        root: the folder.
        cache_dir: root of the cache; see `cache_root`.
    """

    def __init__(self, root: Path, cache_dir: Path | None) -> None:
        self._root = root
        self._path = cache_root(cache_dir) / "digests" / f"{json_sha256(str(root))[:16]}.json"
        self._known = self._load()
        self._changed = False

    def get(self, file: Path) -> str | None:
        """Return the pixel hash of a file that has not changed since it was put, else None."""
        entry = self._known.get(str(file.relative_to(self._root)))
        return str(entry[-1]) if entry and entry[:-1] == _state(file) else None

    def put(self, file: Path, sha256: str) -> None:
        """Remember the pixel hash of a file."""
        self._known[str(file.relative_to(self._root))] = [*_state(file), sha256]
        self._changed = True

    def save(self) -> None:
        """Write what was put, whole or not at all; of two processes the later one wins.

        Raises:
            OSError: the cache cannot be written to.
        """
        if not self._changed:
            return
        content = json.dumps({"format": _FORMAT, "files": self._known})
        write_whole(self._path, content.encode())
        self._changed = False

    def _load(self) -> dict[str, Sequence[int | str]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                return {}
            files = content["files"].items()
            return {str(name): [*map(int, entry[:3]), str(entry[3])] for name, entry in files}
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
            return {}  # none yet, or damaged: everything is hashed again


def _state(file: Path) -> list[int | str]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
