"""Where this machine keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root(cache_dir: Path | str | None = None) -> Path:
    """Return `cache_dir`, else `$IQA_HARNESS_CACHE`, else `iqa-harness` in the user's XDG cache folder."""
    if cache_dir is not None:
        return Path(cache_dir)
    if own := os.environ.get("IQA_HARNESS_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "iqa-harness"
