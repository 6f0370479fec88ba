"""A user's own Python files, which register models."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from iqa_harness.errors import RunError


def run_plugin(file: Path, name: str | None = None) -> None:
    """Run a plugin; the same text is run once a process.

    Args:
        file: the Python file.
        name: its name without ending where it was given, if this is a copy.

    Raises:
        RunError: the file is missing, raises or exits; the message holds what and the line.
    """
    module_name = f"iqa_plugin_{name or file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file) if file.is_file() else None
    if spec is None or spec.loader is None:
        raise RunError(f"plugin {file}: no such Python file")
    text = file.read_bytes()
    if getattr(sys.modules.get(module_name), "__plugin_text__", None) == text:
        return  # its models are registered, and a name can be taken once
    module = importlib.util.module_from_spec(spec)
    vars(module)["__plugin_text__"] = text
    former = sys.modules.get(module_name)
    sys.modules[module_name] = module  # where Python looks up the source of its classes
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if former is None:
            del sys.modules[module_name]
        else:
            sys.modules[module_name] = former
        what = f"{type(error).__name__}: {error}"
        raise RunError(f"plugin {file}, {_place(error, file)}: {what}") from error


def _place(error: BaseException, file: Path) -> str:
    """Return the line of a plugin at which it failed, and the place behind that if it lies elsewhere."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):  # what it is in was not run
        places.append((error.filename or "", error.lineno))
    own = [line for name, line in places if Path(name).absolute() == file.absolute()]
    name, line = places[-1]
    elsewhere = "" if Path(name).absolute() == file.absolute() else f" ({name}, line {line})"
    return f"line {own[-1] if own else 1}{elsewhere}"


def need(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Raises:
        RunError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RunError(f"{module} is not installed ({error}); pip install 'iqa-harness[{extra}]'") from error
