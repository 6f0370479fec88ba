"""Defaults of options: from `iqa-harness.toml` in the working folder, and from the environment.

What is said on the command line wins, then `IQA_HARNESS_COMMAND_OPTION`, then `IQA_HARNESS_OPTION`, then the
file: its table of the command, then its top level. At the top level, and without a command's name, are only
the options that mean the same everywhere (`SHARED`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from iqa_errors.toml_text import read_toml
from iqa_harness.errors import RunError

FILE = Path("iqa-harness.toml")
PREFIX = "IQA_HARNESS"
SHARED = frozenset({"store", "device", "threads", "cache", "backbone-weights", "plugin", "quiet", "json"})
OTHERS = frozenset(f"{PREFIX}_{name}" for name in ("CACHE", "DATA", "PIXELS"))
"""Variables that are no option's: they hold in Python too."""

Words = tuple[str, ...]


def options_of(group: Any, words: Words = ()) -> Iterator[tuple[Words, dict[str, Any]]]:
    """Yield the words of every command below a group, with its options by their long names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from options_of(command, (*words, name))
        else:
            yield (*words, name), dict(_long_names(command))


def _long_names(command: Any) -> Iterator[tuple[str, Any]]:
    for param in command.params:
        for opt in param.opts:
            if opt.startswith("--") and opt != "--help":
                yield opt.removeprefix("--"), param


def name_variables(group: Any) -> None:
    """Tell every option of the commands which variables of the environment it is read from."""
    for words, options in options_of(group):
        for name, param in options.items():
            shared = [_variable(name)] if name in SHARED else []
            param.envvar = [v for v in (_variable(*words, name), *shared) if v not in OTHERS]
            param.show_envvar = False  # the rule is one sentence, and would be two lines an option


def read_defaults(group: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the file's defaults as nested as the commands are.

    Args:
        group: all commands.
        environ: the environment, looked through for variables that nothing reads.

    Raises:
        RunError: a file that cannot be read, or a key or variable that is no option's.
    """
    known = dict(options_of(group))
    readable = {v for options in known.values() for param in options.values() for v in param.envvar}
    for variable in environ:
        if variable.startswith(f"{PREFIX}_") and variable not in readable | OTHERS:
            raise RunError(f"{variable} is no option's variable{_near(variable, readable | OTHERS)}")
    content = _content()
    defaults: dict[str, Any] = {}
    top = {key: content.pop(key) for key in list(content) if not isinstance(content[key], dict)}
    for key in top:
        if key not in SHARED:
            raise RunError(
                f"{FILE}: {key!r} is no setting of all commands (those of one stand in its table)"
                f"{_near(key, SHARED)}"
            )
    for words, options in known.items():
        own = dict(top)
        table = _table(content, words)
        for key, value in table.items():
            if key not in options:
                raise RunError(f"{FILE}: [{'.'.join(words)}] has no setting {key!r}{_near(key, options)}")
            own[key] = value
        place = defaults
        for word in words:
            place = place.setdefault(word, {})
        place.update({options[key].name: value for key, value in own.items() if key in options})
    _refuse_tables(content, {words[: n + 1] for words in known for n in range(len(words))})
    return defaults


def _content() -> dict[str, Any]:
    try:
        return read_toml(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise RunError(f"{FILE} cannot be read: {error}") from error


def _table(content: Mapping[str, Any], words: Words) -> Mapping[str, Any]:
    """Return the table of a command, empty if it has none."""
    table = content
    for word in words:
        found = table.get(word, {})
        if not isinstance(found, dict):
            raise RunError(f"{FILE}: {word!r} is a table, [{'.'.join(words)}]")
        table = found
    return table


def _refuse_tables(content: Mapping[str, Any], known: set[Words], above: Words = ()) -> None:
    for key, value in content.items():
        words = (*above, key)
        if words not in known:
            names = {".".join(each) for each in known}
            raise RunError(f"{FILE}: [{'.'.join(words)}] is no command{_near('.'.join(words), names)}")
        below = {each for each in known if each[: len(words)] == words and len(each) > len(words)}
        if below:
            _refuse_tables(value, known, words)


def _variable(*words: str) -> str:
    return "_".join((PREFIX, *words)).replace("-", "_").upper()


def _near(name: str, known: Iterable[str]) -> str:
    from iqa_models.registry import did_you_mean  # on an error only

    return did_you_mean(name, known)
