"""What every command has: `--json`, `--quiet`, an answer, and defaults from a file and the environment."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import inspect
import io
import math
from collections.abc import Callable, Mapping
from json import dumps
from typing import Annotated, Any, NamedTuple, get_type_hints, is_typeddict

import typer
from typer.models import CommandFunctionType

from iqa_harness.cli.arguments import QuietOption
from iqa_harness.errors import ExitCode
from iqa_harness.machine.terminal import say

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and no other text.", show_default=False)
]
KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Answer(NamedTuple):
    """What a command found: its exit code, and what `--json` prints."""

    value: Any
    """What the function of Python returns, or what of it there is to know; a function without arguments is
    called only where JSON is wanted."""
    code: ExitCode = ExitCode.OK


class App(typer.Typer):
    """A group of commands that return an `Answer`."""

    def command(
        self, name: str | None = None, **settings: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Add a command; its help is its docstring, whose lines a terminal breaks for itself."""

        def decorate(function: CommandFunctionType) -> CommandFunctionType:
            paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
            told = "\n\n".join(each.replace("\n", " ") for each in paragraphs)
            super(App, self).command(name, help=told, **settings)(completed(function))
            return function

        return decorate


def completed(function: Callable[..., Answer]) -> Callable[..., None]:
    """Return a command with `--json` and `--quiet`, its groups' options, and the exit code of its answer."""
    signature = inspect.signature(function, eval_str=True)
    groups = {each.name: _options_of(each.annotation) for each in signature.parameters.values()}
    own = [option for name, each in signature.parameters.items() for option in groups[name] or [each]]
    tells = "quiet" in signature.parameters

    @functools.wraps(function)
    def command(*, json: bool, **given: Any) -> None:
        if not tells:
            del given["quiet"]
        for name, options in groups.items():
            if options:
                given[name] = {option.name: given.pop(option.name) for option in options}
        with contextlib.redirect_stdout(io.StringIO()) if json else contextlib.nullcontext():
            answer = function(**given)
        if json:
            value = answer.value() if callable(answer.value) else answer.value
            say(dumps(plain_values(value), indent=1, allow_nan=False))
        raise typer.Exit(answer.code)

    for flag, annotation in (("quiet", QuietOption), ("json", JsonOption)):
        if flag not in signature.parameters:
            own.append(inspect.Parameter(flag, KEYWORD, default=False, annotation=annotation))
    shown: Any = command
    shown.__signature__ = signature.replace(parameters=own)
    shown.__annotations__ = {each.name: each.annotation for each in own}
    return command


def _options_of(group: Any) -> list[inspect.Parameter]:
    """Return the options of a group with their defaults, none for what is no group; see `cli.arguments`."""
    fields = get_type_hints(group, include_extras=True) if is_typeddict(group) else {}
    return [
        inspect.Parameter(name, KEYWORD, default=(*field.__metadata__, None)[1], annotation=field)
        for name, field in fields.items()
    ]


def plain_values(value: Any) -> Any:
    """Return a result as what JSON has: records as objects, tables as lists of rows, no number as null."""
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_asdict"):
        return [plain_values(each) for each in value]
    fields = _fields(value)
    return str(value) if fields is None else fields


def _fields(value: Any) -> Any:
    """Return what a record or a table holds; other packages' are known by what they can do."""
    if isinstance(value, Mapping):
        names = (" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in value)
        return dict(zip(names, map(plain_values, value.values()), strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_values(getattr(value, f.name)) for f in dataclasses.fields(value)}
    for name, arguments in (
        ("_asdict", {}),  # a named tuple
        ("model_dump", {"mode": "json"}),  # pydantic
        ("to_pylist", {}),  # pyarrow
        ("to_dict", {"orient": "records"}),  # pandas
        ("tolist", {}),  # numpy, torch
    ):
        if hasattr(value, name):
            return plain_values(getattr(value, name)(**arguments))
    return None
