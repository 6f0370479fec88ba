"""The Python files that decide what a user's own model computes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iqa_models import QualityModel
from iqa_models.registry import find_builder

_OURS = {"iqa_attacks", "iqa_harness", "iqa_models", "iqa_reports", "iqa_results", "iqa_suites"}
_VERSIONED = frozenset({*_OURS, "torch", "timm", "torchvision", *sys.stdlib_module_names})
"""Packages a run names by their versions, or that come with Python."""
_INSTALLED = {"site-packages", "dist-packages"}


class Sources(NamedTuple):
    """A Python file with the files beside it that it imports."""

    top: Path
    """Folder all of them are in: the file's own, or the one its package is in."""
    files: tuple[Path, ...]
    """The file itself, then what it imports, directly or not, as the imports are met."""

    def hashes(self) -> dict[str, str]:
        """Return the hash of each file by its path from the top, the file itself first."""
        return {path.relative_to(self.top).as_posix(): _sha256(path.read_bytes()) for path in self.files}


def sources_of(file: Path) -> Sources:
    """Follow the imports of a Python file within its folder.

    Nothing is run and what is loaded already does not count: the answer is the same in every process. What
    is imported from elsewhere, or by a name made while the code runs, is not followed.
    """
    file = file.absolute()
    top = file.parent
    if _INSTALLED & set(file.parts):
        return Sources(top, (file,))  # it does not change between runs as a user's own file does
    while (top / "__init__.py").is_file():
        top = top.parent
    # A file may have put a folder below its own on the path, as `src`.
    roots = [top, *(path for path in map(Path, sys.path) if path.is_relative_to(top) and path != top)]
    files = [file]
    for path in files:  # grows
        for bases, name in _imports(path, roots):
            found = dict.fromkeys(file for file in _modules(bases, name) if file.is_relative_to(top))
            files += [file for file in found if file not in files]
    return Sources(top, tuple(files))


def hash_sources(model: QualityModel) -> str:
    """Return the hashes of all files that make a model of a user's own; empty for one of ours.

    Ours are versioned with the harness, which every row names; a user's file is edited between runs, and
    a cell of its former text must not pass for a cell of the new one. The files are those of the classes
    of the model and of every module in it, of the function registered under its name, and what they
    import beside themselves.
    """
    makers: dict[object, None] = {find_builder(model.spec.name): None}
    for module in model.modules():
        makers |= dict.fromkeys(type(module).__mro__)
    hashes: set[str] = set()
    for maker in makers:
        name = getattr(maker, "__module__", None)
        if maker is None or (name or "").partition(".")[0] in _VERSIONED:
            continue
        try:
            file = Path(inspect.getfile(maker))  # type: ignore[arg-type]
            hashes |= set(sources_of(file).hashes().values())
        except (OSError, TypeError):  # defined in no file, as in an interactive session
            hashes.add(_sha256(str(getattr(maker, "__qualname__", type(maker).__qualname__)).encode()))
    return " ".join(sorted(hashes))


def _imports(path: Path, roots: list[Path]) -> Iterator[tuple[list[Path], str]]:
    """Yield the modules a file imports, each with the folders its name may be found in."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a compiled module
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] not in _OURS]
            yield from (([path.parent, *roots], name) for name in names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in _OURS:
            bases = list(path.parents)[node.level - 1 :][:1] if node.level else [path.parent, *roots]
            stem = f"{node.module}." if node.module else ""
            yield from ((bases, stem + alias.name) for alias in node.names)  # a name may be a module


def _modules(bases: list[Path], name: str) -> Iterator[Path]:
    """Yield the files of a dotted name and of the packages it is in, as far as they are there."""
    parts = name.split(".")
    for base in bases:
        for end in range(1, len(parts) + 1):
            place = base.joinpath(*parts[:end])
            for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                if file.is_file() and not _INSTALLED & set(file.parts):
                    yield file


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
