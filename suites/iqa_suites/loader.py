"""Suites by name or by path, with every mistake in a file told at once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from iqa_errors.toml_text import read_toml
from iqa_models.entry_points import load_group
from iqa_models.registry import did_you_mean
from iqa_suites.attack_settings import AnyAttackSettings, list_kinds, settings_class
from iqa_suites.errors import BadSuite, UnknownSuite
from iqa_suites.schema import DataSettings, Suite

GROUP = "iqa_harness.suites"
"""Entry points through which installed packages offer suites."""


class LoadedSuite(NamedTuple):
    """A suite and the text it was read from."""

    suite: Suite
    text: str

    def on_data(self, name: str, mos_range: tuple[float, float] | None) -> LoadedSuite:
        """Return the suite on another image set; it is another suite, with a hash of its own.

        The limit on the number of images goes with the old set: all images of the split are attacked. The
        text says the same as the suite: who reads it again gets this suite and no other.
        """
        import tomlkit
        from tomlkit.exceptions import TOMLKitError

        try:
            content = tomlkit.parse(self.text)
        except (TOMLKitError, ValueError, RecursionError) as error:
            raise BadSuite(f"suite {self.suite.name!r}: not valid TOML: {error}") from error
        data: dict[str, Any] = content["data"]
        data["name"] = name
        for key in ("images", "mos_range"):
            data.pop(key, None)
        if mos_range is not None:
            data["mos_range"] = [float(end) for end in mos_range]
        text = f"# [data] is the command line's, the rest as read\n{tomlkit.dumps(content)}"
        return LoadedSuite(parse_suite(text, f"suite {self.suite.name!r} on {name!r}"), text)


def list_suites() -> list[str]:
    """Return the names of the suites that ship and of those that installed packages offer, sorted."""
    return sorted(_texts())


def load_suite(name: str) -> LoadedSuite:
    """Load a suite by its name, or one of the user's by the path of its TOML file.

    Raises:
        UnknownSuite: neither; the message holds the nearest name.
        BadSuite: broken TOML, or keys that are unknown, missing or out of range: all of them, by name.
    """
    known = _texts()
    if name in known:
        text, where = known[name], f"suite {name!r}"
    else:
        path = Path(name)
        if not path.is_file():
            near = did_you_mean(name, known, cutoff=0.6)
            raise UnknownSuite(
                f"no suite {name!r}{near}; there are {', '.join(list_suites())}, or give the path of a "
                "TOML file"
            )
        text, where = _read(path), str(path)
    return LoadedSuite(parse_suite(text, where), text)


def _read(file: Path | Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSuite(f"{file}: cannot be read as UTF-8 text ({error})") from error


@functools.cache
def _texts() -> Mapping[str, str]:
    """Return the TOML of every suite there is by name; what packages offer is checked, ours is tested."""
    found = _in_folder(files("iqa_suites") / "definitions")
    for entry, offered in load_group(GROUP).items():
        where = f"entry point {entry!r} ({GROUP})"
        try:
            texts = _offered(entry, offered)
        except BadSuite as error:
            warnings.warn(f"{where} is skipped: {error}", stacklevel=2)
            continue
        for name, text in texts.items():
            try:
                if name in found:
                    raise BadSuite("another suite has that name")
                parse_suite(text, f"suite {name!r}")
            except BadSuite as error:
                warnings.warn(f"{where}: its suite {name!r} is skipped: {error}", stacklevel=2)
            else:
                found[name] = text
    return MappingProxyType(found)


def _offered(entry: str, offered: object) -> dict[str, str]:
    """Return the suites of an entry point: a package, or a folder, file or text of TOML."""
    if isinstance(offered, ModuleType):
        if not hasattr(offered, "__path__"):
            raise BadSuite(f"{offered.__name__} is a module, not a package with TOML files")
        return _in_folder(files(offered))
    if isinstance(offered, str) and "\n" in offered:
        return {entry: offered}
    if not isinstance(offered, str | Path):
        raise BadSuite(f"{type(offered).__name__} is no package, path or TOML text")
    path = Path(offered)
    return _in_folder(path) if path.is_dir() else {entry: _read(path)}


def _in_folder(folder: Path | Traversable) -> dict[str, str]:
    texts = {f.name.removesuffix(".toml"): _read(f) for f in folder.iterdir() if f.name.endswith(".toml")}
    if not texts:
        raise BadSuite(f"{folder} has no TOML files")
    return texts


def parse_suite(text: str, where: str) -> Suite:
    """Validate the TOML text of a suite; `where` names it in messages.

    Raises:
        BadSuite: see `load_suite`.
    """
    try:
        content = read_toml(text)
    except ValueError as error:
        raise BadSuite(f"{where}: not valid TOML: {error}") from error
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item, content) for item in _worth_telling(error.errors())]
        raise BadSuite(
            "\n".join([f"{where}: {len(lines)} mistake(s)", *(f"  {line}" for line in lines)])
        ) from error


def _worth_telling(items: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out "too short" for a list whose own items are the mistakes: it only says they did not count."""

    def has_own_mistakes(place: tuple[int | str, ...]) -> bool:
        return any(len(item["loc"]) > len(place) and item["loc"][: len(place)] == place for item in items)

    return [item for item in items if item["type"] != "too_short" or not has_own_mistakes(item["loc"])]


def _explain(item: ErrorDetails, content: dict[str, Any]) -> str:
    """Say where in the file something is wrong, and for an unknown name which one was meant."""
    location, kind = item["loc"], item["type"]
    where = ".".join(str(part) for part in location) or "the file"
    if kind == "extra_forbidden":
        near = did_you_mean(str(location[-1]), _keys(location, content), cutoff=0.6)
        return f"{where}: unknown key{near}"
    if kind == "attack_kind":
        where = f"{where}.kind"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"


def _keys(location: tuple[int | str, ...], content: dict[str, Any]) -> list[str]:
    """Return the keys that may stand where an unknown one does."""
    fields: Mapping[str, Any] = Suite.model_fields
    if len(location) > 1 and location[0] == "attacks":
        kind = content["attacks"][location[1]].get("kind")
        fields = (settings_class(kind) if kind in list_kinds() else AnyAttackSettings).model_fields
    elif len(location) > 1 and location[0] == "data":
        fields = DataSettings.model_fields
    return [field.alias or name for name, field in fields.items()]
