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
    top = {key: content.pop(key) for key in list(content) if not isinstance(content[key], dict)}
    for key in top:
        if key not in SHARED:
            raise RunError(
                f"{FILE}: {key!r} is no setting of all commands (those of one stand in its table)"
                f"{_near(key, SHARED)}"
            )
    return _of_command(
        group, content, top, {".".join(words[: n + 1]) for words in known for n in range(len(words))}
    )


def _of_command(
    command: Any, table: Any, top: Mapping[str, Any], names: Iterable[str], words: Words = ()
) -> dict[str, Any]:
    """Return the defaults of a command, or of those below a group, by its table and what holds for all."""
    if not isinstance(table, dict):
        raise RunError(f"{FILE}: {words[-1]!r} is a table, [{'.'.join(words)}]")
    if hasattr(command, "commands"):
        for key in table:
            if key not in command.commands:
                name = ".".join((*words, key))
                raise RunError(f"{FILE}: [{name}] is no command{_near(name, names)}")
        return {
            word: _of_command(below, table.get(word, {}), top, names, (*words, word))
            for word, below in command.commands.items()
        }
    options = dict(_long_names(command))
    for key in table:
        if key not in options:
            raise RunError(f"{FILE}: [{'.'.join(words)}] has no setting {key!r}{_near(key, options)}")
    return {
        options[key].name: _value(key, value, options[key])
        for key, value in {**top, **table}.items()
        if key in options
    }


def _value(key: str, value: Any, option: Any) -> Any:
    """Return a value as its option takes it: one of an option that repeats is a list of one."""
    if option.multiple:
        return value if isinstance(value, list) else [value]
    if isinstance(value, list | dict) and option.nargs == 1:
        raise RunError(f"{FILE}: {key!r} takes one value, not {value!r}")
    return value


def _content() -> dict[str, Any]:
    try:
        return read_toml(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise RunError(f"{FILE} cannot be read: {error}") from error


def _variable(*words: str) -> str:
    return "_".join((PREFIX, *words)).replace("-", "_").upper()


def _near(name: str, known: Iterable[str]) -> str:
    from iqa_models.registry import did_you_mean  # on an error only

    return did_you_mean(name, known)
