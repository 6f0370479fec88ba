"""A manifest as a file: JSON for people too, with a checksum of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from iqa_errors.json_text import read_json
from iqa_results.errors import BadManifest
from iqa_results.manifest import RunManifest

CHECKSUM = "sha256"
"""Name of the checksum in a manifest's file; one of the first edition has none."""

_Model = TypeVar("_Model", bound=BaseModel)


def manifest_bytes(manifest: RunManifest, where: str = "manifest") -> bytes:
    """Return a manifest as its file: a field a line, of the cells a cell a line, a checksum of all.

    Raises:
        BadManifest: it holds NaN, an infinity or text that is not UTF-8, which no reader would take.
    """
    fields = manifest.model_dump(mode="json")
    with _named(where):
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    fields[CHECKSUM] = _checksum(fields)
    cells = ",\n  ".join(json.dumps(cell) for cell in fields.pop("cells"))
    return f'{json.dumps(fields, indent=1)[:-2]},\n "cells": [\n  {cells}\n ]\n}}\n'.encode()


def parse_manifest(content: bytes, where: str = "manifest") -> RunManifest:
    """Return the manifest that a file holds.

    Raises:
        BadManifest: no manifest, of another format, or not as it was written; the message names the key.
    """
    fields = load_json(content, where)
    stated = fields.pop(CHECKSUM, None) if isinstance(fields, dict) else None
    manifest = validated(RunManifest, fields, where)
    if stated is not None and stated != _checksum(fields):
        raise BadManifest(
            f"{where}: was changed after it was written (its checksum differs); put the original back, or "
            "delete it and start the run again: stored cells are kept"
        )
    return manifest


def load_json(content: bytes, where: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        BadManifest: it is no JSON, or holds text that is not UTF-8 or a number that is NaN, infinite or
            longer than 64 bits.
    """
    with _named(where):
        return read_json(content)


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        raise BadManifest(f"{where}: the file: no JSON ({error})") from error
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 30) : error.end]
        raise BadManifest(f"{where}: no UTF-8 text: ...{near!a}; choose another name") from error
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{where}: {error}") from error


def validated(model: type[_Model], fields: Any, where: str) -> _Model:
    """Return a record of some fields.

    Raises:
        BadManifest: a field is missing, unknown or wrong; the message names the first one.
    """
    try:
        return model.model_validate(fields, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadManifest(f"{where}: {key}: {first['msg']}") from error


def _checksum(fields: Any) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
