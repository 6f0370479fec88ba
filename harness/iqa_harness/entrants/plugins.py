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
        RunError: the file is missing, or raises; the message holds what and the line.
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
    except Exception as error:
        if former is not None:
            sys.modules[module_name] = former
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        raise RunError(f"plugin {file}, line {line}: {type(error).__name__}: {error}") from error


def need(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Raises:
        RunError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RunError(f"{module} is not installed ({error}); pip install 'iqa-harness[{extra}]'") from error
