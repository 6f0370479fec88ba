"""TOML of a user's: read within bounds, so that what is absurd is an error and no crash or wait."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from iqa_errors.json_text import require_short_numbers

_LONG_KEY = re.compile(r"""(?:^|[{,\[])[ \t]*(?:[\w"'-]+[ \t]*\.[ \t]*){100}""", re.MULTILINE)
"""A key of more parts than any table is deep: the reader's time grows with the square of their number."""


def read_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds.

    Raises:
        ValueError: it is no TOML, a value is nested too deeply, a whole number is longer than 64 bits, or a
            key has a hundred parts.
    """
    if _LONG_KEY.search(text):
        raise ValueError("a key has more than 100 parts")
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise ValueError("values are nested too deeply; write them flatter") from None
    require_short_numbers(value)
    return value
