"""Suites by name or by path, with every mistake in a file told at once."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from iqa_suites.attack_settings import ATTACK_SETTINGS, near
from iqa_suites.errors import BadSuite, UnknownSuite
from iqa_suites.schema import DataSettings, Suite

_DEFINITIONS = files("iqa_suites") / "definitions"


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

        content = tomlkit.parse(self.text)
        data: dict[str, Any] = content["data"]
        data["name"] = name
        for key in ("images", "mos_range"):
            data.pop(key, None)
        if mos_range is not None:
            data["mos_range"] = [float(end) for end in mos_range]
        text = f"# [data] is the command line's, the rest as read\n{tomlkit.dumps(content)}"
        return LoadedSuite(parse_suite(text, f"suite {self.suite.name!r} on {name!r}"), text)


def list_suites() -> list[str]:
    """Return the names of the suites that ship, sorted."""
    return sorted(f.name.removesuffix(".toml") for f in _DEFINITIONS.iterdir() if f.name.endswith(".toml"))


def load_suite(name: str) -> LoadedSuite:
    """Load a suite that ships by its name, or one of the user's by the path of its TOML file.

    Raises:
        UnknownSuite: neither; the message holds the nearest name.
        BadSuite: broken TOML, or keys that are unknown, missing or out of range: all of them, by name.
    """
    if name in list_suites():
        text, where = (_DEFINITIONS / f"{name}.toml").read_text(encoding="utf-8"), f"suite {name!r}"
    else:
        path = Path(name)
        if not path.is_file():
            known = list_suites()
            raise UnknownSuite(
                f"no suite {name!r}{near(name, known)}; there are {', '.join(known)}, or give the path of a "
                "TOML file"
            )
        try:
            text, where = path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise BadSuite(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return LoadedSuite(parse_suite(text, where), text)


def parse_suite(text: str, where: str) -> Suite:
    """Validate the TOML text of a suite; `where` names it in messages.

    Raises:
        BadSuite: see `load_suite`.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSuite(f"{where}: not valid TOML: {error}") from error
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item) for item in _worth_telling(error.errors())]
        raise BadSuite(
            "\n".join([f"{where}: {len(lines)} mistake(s)", *(f"  {line}" for line in lines)])
        ) from error


def _worth_telling(items: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out "too short" for a list whose own items are the mistakes: it only says they did not count."""

    def has_own_mistakes(place: tuple[int | str, ...]) -> bool:
        return any(len(item["loc"]) > len(place) and item["loc"][: len(place)] == place for item in items)

    return [item for item in items if item["type"] != "too_short" or not has_own_mistakes(item["loc"])]


def _explain(item: ErrorDetails) -> str:
    """Say where in the file something is wrong, and for an unknown name which one was meant."""
    location, kind, message = item["loc"], item["type"], item["msg"]
    parts = [p for i, p in enumerate(location) if i < 2 or p not in ATTACK_SETTINGS]
    where = ".".join(str(part) for part in parts) or "the file"
    if kind == "extra_forbidden":
        return f"{where}: unknown key{near(str(location[-1]), _keys(location))}"
    if kind == "union_tag_invalid":
        tag, known = str(item["ctx"]["tag"]), list(ATTACK_SETTINGS)
        return f"{where}.kind: no attack {tag!r}{near(tag, known)}; there are {', '.join(known)}"
    return f"{where}: {message.removeprefix('Value error, ')}"


def _keys(location: tuple[int | str, ...]) -> list[str]:
    if location[0] == "attacks":
        kind = next((str(p) for p in location if p in ATTACK_SETTINGS), None)
        kinds = [ATTACK_SETTINGS[kind]] if kind else ATTACK_SETTINGS.values()
        return [f.alias or name for settings in kinds for name, f in settings.model_fields.items()]
    if location[0] == "data" and len(location) > 1:
        return list(DataSettings.model_fields)
    return list(Suite.model_fields)
