"""Local files that appear whole or not at all, also if the machine stops."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def write_local(path: Path, content: bytes) -> None:
    """Write a file by `whole_file`, over a former one; of two writers the later one wins whole."""
    with whole_file(path) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield where to write a local file, which takes its place at the end of the block, whole or not at all.

    Its folder is made. For content that is too large to be held; `write_local` is for the rest.

    Raises:
        OSError: no room or no permission; it names the path, and a former file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        # A write that fails for want of room names no file by itself, a rename two.
        if error.errno is None or error.filename not in (None, str(part), part):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that cannot be written to has said so above
            part.unlink(missing_ok=True)
