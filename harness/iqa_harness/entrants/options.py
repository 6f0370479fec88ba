"""Options behind a model's name, ``key=value&...``: JSON values, and otherwise text."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from iqa_errors.json_text import read_json
from iqa_harness.errors import RunError


def read_options(text: str, query: str) -> dict[str, Any]:
    """Read ``key=value&...`` behind a model's name.

    Raises:
        RunError: a part is not ``key=value``; the message names the model's whole `text`.
    """
    options: dict[str, Any] = {}
    for part in query.split("&") if query else []:
        key, sign, value = part.partition("=")
        if not (key and sign):
            raise RunError(f"model {text!r}: option {part!r} is not key=value")
        options[key] = read_value(unquote(value))
    return options


def read_value(text: str) -> Any:
    """Return JSON as what it means, anything else as text.

    Raises:
        RunError: JSON that is nested too deeply, or holds a number of hundreds of digits.
    """
    try:
        return read_json(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:
        raise RunError(f"value {text[:40]!r}...: not to be read ({error})") from error
