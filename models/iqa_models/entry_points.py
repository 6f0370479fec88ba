"""Plug-ins of other installed packages, found through their entry points and loaded once a process."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType


@functools.cache
def load_group(group: str) -> Mapping[str, object]:
    """Return what the installed packages offer under an entry point group, by name, sorted.

    Call it at the first look-up, never at import. What cannot be loaded is named in a warning and left out:
    one broken plug-in must not take the others away. Of two packages that give one name the first by its own
    name counts, and the other is named in a warning, too.
    """
    found: dict[str, object] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: (e.name, e.dist.name if e.dist else "")):
        package = entry.dist.name if entry.dist else "an unknown package"
        where = f"entry point {entry.name!r} ({group}) of {package}"
        if entry.name in found:
            warnings.warn(f"{where} is skipped: another package has that name", stacklevel=2)
            continue
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything at its import
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"{where} is skipped, it cannot be loaded: {reason}", stacklevel=2)
    return MappingProxyType(found)
