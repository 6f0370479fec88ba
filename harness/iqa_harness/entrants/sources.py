"""The Python files that decide what a user's own model computes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iqa_models import QualityModel
from iqa_models.identity import OURS, VERSIONED, makers_of
from iqa_models.registry import find_builder

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

    A name is looked for beside the file that imports it, beside the first file, in the top and in `src`
    below the top; found in two of them, both files count. Nothing is run, and neither the path Python
    searches nor what is loaded already is asked: the answer depends on nothing but the files. What comes
    with Python or is installed, is found in another folder of that path only, or is imported by a name made
    while the code runs, is not followed.
    """
    file = file.absolute()
    top = file.parent
    if _INSTALLED & set(file.parts):
        return Sources(top, (file,))  # it does not change between runs as a user's own file does
    while (top / "__init__.py").is_file():
        top = top.parent
    roots = [file.parent, top, top / "src"]
    installed = _installations(top)
    files = [file]
    for path in files:  # grows
        for bases, name in _imports(path, roots):
            for found in _modules(bases, name):
                if found.is_relative_to(top) and found not in files and not _is_below(found, installed):
                    files.append(found)
    return Sources(top, tuple(files))


def hash_sources(model: QualityModel) -> str:
    """Return the hashes of all files that make a model of a user's own; empty for one of ours.

    Ours are versioned with the harness, which every row names; a user's file is edited between runs, and
    a cell of its former text must not pass for a cell of the new one. The files are those of the classes
    and functions in it (`makers_of`), of the function registered under its name, wherever these files are,
    and what each imports beside itself (`sources_of`). Of code in an archive it is the text of the module
    alone.
    """
    hashes: set[str] = set()
    for maker in (find_builder(model.spec.name), *makers_of(model)):
        name = getattr(maker, "__module__", None) or ""
        if maker is None or name.partition(".")[0] in VERSIONED:
            continue
        try:
            file = Path(inspect.getfile(maker))  # type: ignore[arg-type]
            hashes |= set(sources_of(file).hashes().values())
        except (OSError, TypeError):  # defined in no file of its own: an archive, an interactive session
            hashes.add(_sha256(_text_of(maker).encode()))
    return " ".join(sorted(hashes))


def _text_of(maker: object) -> str:
    """Return the text of a class's or function's module, or its own; its name if no text is to be had."""
    module = str(getattr(maker, "__module__", None))
    loader = getattr(sys.modules.get(module), "__loader__", None)
    try:
        text = loader.get_source(module) if loader else None
    except (AttributeError, ImportError, OSError):  # a loader without texts, or of another module
        text = None
    try:
        return text or inspect.getsource(maker)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return str(getattr(maker, "__qualname__", type(maker).__qualname__))


def _installations(top: Path) -> list[Path]:
    """Return the folders of this Python and its packages, but those that the top itself is in."""
    paths = sysconfig.get_paths()
    names = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders = {Path(name).resolve() for name in {*names, sys.prefix, sys.base_prefix}}
    return [folder for folder in folders if not top.resolve().is_relative_to(folder)]


def _is_below(file: Path, folders: list[Path]) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _imports(path: Path, roots: list[Path]) -> Iterator[tuple[list[Path], str]]:
    """Yield the modules a file imports, each with the folders its name may be found in."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a compiled module
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] not in OURS]
            yield from (([path.parent, *roots], name) for name in names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in OURS:
            bases = list(path.parents)[node.level - 1 :][:1] if node.level else [path.parent, *roots]
            stem = f"{node.module}." if node.module else ""
            yield from ((bases, stem + alias.name) for alias in node.names)  # a name may be a module


def _modules(bases: list[Path], name: str) -> Iterator[Path]:
    """Yield the files of a dotted name and of the packages it is in, as far as they are there."""
    parts = name.split(".")
    for base in bases:
        for end in range(1, len(parts) + 1):
            place = base.joinpath(*parts[:end])
            files = (place / "__init__.py", place.with_name(f"{place.name}.py"))  # as Python prefers
            file = next((file for file in files if file.is_file()), None)
            if file is not None and not _INSTALLED & set(file.parts):
                yield file


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
